"""Priors from another task: where its best configurations lie, and what the searchers make of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, OrdinalHyperparameter
from omegaconf import OmegaConf
from scipy.stats import truncnorm

from experiments.cli import CONFIG_DIR
from experiments.overrides import composed
from experiments.source_prior import DEFAULTS, chosen, described, made, main
from experiments.tabulate import design, make_benchmark
from schedulers.encoding import Encoding
from schedulers.searchers.user_prior import Prior
from schedulers.types import Job, Progress

DATA = os.environ.get("MFGP_DATA_DIR")
CURVES = ["benchmark=curves", "benchmark.noise=0"]


class Bowl:
    """The last value is the distance of `rate` from .5, more where `kind` is b and with `depth`, and nan for the highest rates."""

    r_max, metric_name = 2, "distance"

    def __init__(self, mode: str = "min") -> None:
        self.mode = mode
        self.space = ConfigurationSpace({"rate": (1e-4, 1.0), "kind": ["a", "b", "c"], "depth": (1, 9), "fixed": 3})

    def value(self, config: Any) -> float:
        value = abs(config["rate"] - 0.5) + (config["kind"] == "b") + 0.1 * config["depth"]
        return float("nan") if config["rate"] > 0.9 else value

    def train(self, job: Job, checkpoint_dir: str | None) -> Any:
        yield Progress(1, 0.0, 1.0)
        yield Progress(2, self.value(job.config) * (1 if self.mode == "min" else -1), 1.0)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_chosen_ones_have_the_best_last_values(mode: str) -> None:
    benchmark = Bowl(mode)
    configs = design(benchmark, 0, 60)
    ranked = sorted(configs, key=lambda c: np.nan_to_num(benchmark.value(c), nan=np.inf))
    assert 1 <= sum(np.isnan(benchmark.value(c)) for c in configs) <= 30
    best, worst, half = (chosen(benchmark, 0, 60, take, 7) for take in ("best", "worst", "half"))
    assert (best, half, worst) == (ranked[:7], ranked[:30], ranked[-7:])


def test_a_sample_that_says_nothing_is_of_low_confidence_and_a_narrow_one_is_not() -> None:
    space = ConfigurationSpace({"a": (0.0, 1.0)})
    rng = np.random.default_rng(0)
    for std, word in ((5.0, "low"), (0.25, "medium"), (0.125, "high"), (0.05, "ultra")):
        drawn = truncnorm(-0.5 / std, 0.5 / std, 0.5, std).rvs(2000, random_state=rng)
        assert word in described(space, [{"a": float(value)} for value in drawn], ["a"])["a"]


def test_choices_and_ordinals_can_be_read_back() -> None:
    space = ConfigurationSpace()
    space.add(CategoricalHyperparameter("edge", ["0_1", "off", "conv"]), OrdinalHyperparameter("size", ["small", "medium", "large"]))
    entries = described(space, [{"edge": "off", "size": "medium"}] * 3, ["edge", "size"])
    spec: Any = OmegaConf.to_container(OmegaConf.create("\n".join(f"{name}: {entry}" for name, entry in entries.items())))
    assert set(spec["edge"]["probabilities"]) == {"0_1", "off", "conv"} and spec["size"]["default"] == "medium"
    prior = Prior(Encoding(space), spec)
    assert np.isfinite(prior.log_density(prior.sample(20, np.random.default_rng(0)))).all()


def test_numbers_have_their_median_and_spread_and_categories_their_frequencies() -> None:
    benchmark = Bowl()
    configs = [{"rate": 0.5 + 0.01 * i, "kind": "ab"[i % 2], "depth": (1, 9)[i % 2], "fixed": 3} for i in range(9)]
    entries = {
        name: OmegaConf.create(entry) for name, entry in described(benchmark.space, configs, ["rate", "kind", "depth", "fixed"]).items()
    }
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
        (["take=half", "configs=1"], "configs=1 must be a whole number of at least 2"),
        (["benchmark.cost_spread=-1"], "benchmark: "),
        (["number=0"], "number=0 must be a whole number of at least 1"),
        (["number=20", "configs=10"], "number=20 must be from 1 to configs=10"),
        (["names=speed"], "names=speed: the space has no speed; it has"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CURVES, *arguments]) == 2
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
