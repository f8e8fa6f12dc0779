"""Priors from another task: where its best configurations lie, and what the searchers make of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace
from omegaconf import OmegaConf

from experiments.cli import CONFIG_DIR
from experiments.overrides import composed
from experiments.source_prior import DEFAULTS, chosen, described, made, main
from experiments.tabulate import make_benchmark
from schedulers.encoding import Encoding
from schedulers.searchers.user_prior import Prior
from schedulers.types import Job, Progress

DATA = os.environ.get("MFGP_DATA_DIR")
CURVES = ["benchmark=curves", "benchmark.noise=0"]


class Bowl:
    """The last value is the distance of `rate` from 0.01 in decades, more where `kind` is b; nothing can be read off earlier ones."""

    r_max, mode, metric_name = 2, "min", "distance"

    def __init__(self) -> None:
        self.space = ConfigurationSpace({"rate": (1e-4, 1.0), "kind": ["a", "b", "c"], "depth": (1, 9), "fixed": 3})

    def train(self, job: Job, checkpoint_dir: str | None) -> Any:
        value = abs(np.log10(job.config["rate"]) + 2) + (job.config["kind"] == "b") + 0.1 * job.config["depth"]
        yield Progress(1, 1 / (1 + value), 1.0)
        yield Progress(2, float("nan") if job.config["rate"] > 0.9 else value, 1.0)


def test_the_chosen_ones_have_the_best_last_values() -> None:
    benchmark = Bowl()
    best, worst, half = (chosen(benchmark, 0, 60, take, 7) for take in ("best", "worst", "half"))
    last = {id(c): [p.metric for p in benchmark.train(Job(0, c, 0, 2), None)][-1] for c in (*best, *worst, *half)}
    everything = sorted((*half, *worst), key=lambda c: last[id(c)])
    assert len(best) == len(worst) == 7 and len(half) == 30
    assert best == half[:7] == everything[:7]
    assert max(last[id(c)] for c in half if np.isfinite(last[id(c)])) <= min(last[id(c)] for c in worst if np.isfinite(last[id(c)]))


def test_numbers_have_their_median_and_spread_and_categories_their_frequencies() -> None:
    benchmark = Bowl()
    configs = [{"rate": 0.5 + 0.01 * i, "kind": "ab"[i % 2], "depth": (1, 9)[i % 2], "fixed": 3} for i in range(9)]
    entries = {name: OmegaConf.create(entry) for name, entry in described(benchmark, configs, ["rate", "kind", "depth", "fixed"]).items()}
    assert entries["rate"] == {"default": 0.54, "confidence": "ultra"}  # a spread of .026 of the range
    assert entries["depth"] == {"default": 1, "confidence": "low"}  # a spread of .44
    assert "fixed" not in entries
    np.testing.assert_allclose([entries["kind"].probabilities[k] for k in "abc"], [6 / 12, 5 / 12, 1 / 12], atol=1e-4)


def test_what_is_printed_is_a_prior_of_its_space_and_names_choose() -> None:
    text = made(DEFAULTS | {"number": "10", "configs": "100", "names": "rate_0,kind_0"}, CURVES)
    spec = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(spec, dict) and set(spec) == {"rate_0", "kind_0"}
    assert "names=rate_0,kind_0 benchmark=curves" in text
    encoding = Encoding(make_benchmark(composed(CURVES)).space)
    prior = Prior(encoding, spec)
    assert np.isfinite(prior.log_density(prior.sample(50, np.random.default_rng(0)))).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["take=good"], "take=good is unknown: choose best, half or worst"),
        (["number=0"], "number=0 must be a whole number of at least 1"),
        (["number=20", "configs=10"], "number=20 must be from 1 to configs=10"),
        (["names=speed"], "names=speed: the space has no speed; it has"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, *CURVES]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.skipif(DATA is None or not Path(DATA, "yahpo").is_dir(), reason="needs MFGP_DATA_DIR/yahpo")
@pytest.mark.parametrize("name", ["lcbench_arch", "lcbench_hp", "lcbench_weak", "lcbench_adversarial"])
def test_the_bundled_priors_are_what_their_commands_print(name: str) -> None:
    text = (CONFIG_DIR / "prior" / f"{name}.yaml").read_text()
    command = next(line for line in text.splitlines() if "experiments.source_prior" in line).split("source_prior ")[1].split()
    given = dict(argument.split("=", 1) for argument in command if argument.split("=")[0] in DEFAULTS)
    printed = made(DEFAULTS | given, [a for a in command if a.split("=")[0] not in DEFAULTS])
    assert printed == text.split("\n", 1)[1].rstrip("\n")
