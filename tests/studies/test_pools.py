"""A study on a table stays inside it: searchers propose its configurations only, and at most a fifth of them."""

from pathlib import Path

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace

from experiments import tabulate
from experiments.benchmarks import blackbox_format
from experiments.build import build
from experiments.overrides import composed
from experiments.simulation import simulate
from experiments.store import metadata
from schedulers.encoding import Encoding
from schedulers.run import run
from schedulers.types import Recording

NUM = 120


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pool") / "table"
    arguments = ["benchmark=curves", "benchmark.r_max=9", f"out={out}", f"configs={NUM}", f"slice={NUM}", "processes=1"]
    assert tabulate.main(arguments) == 0
    return out


def overrides(table: Path, *more: str) -> list[str]:
    limits = ["backend=simulated", "budget.seconds=null", "budget.trials=24", "brackets=2", "workers=3"]
    return ["benchmark=blackbox", f"benchmark.folder={table}", "benchmark.off_grid=pool", *limits, *more]


@pytest.mark.parametrize(
    "searcher",
    [
        ["searcher=random"],
        ["searcher=initial", "searcher@searcher.inner=random"],
        ["searcher=evolution"],
        ["searcher=kde"],
        ["searcher=gp", "searcher.num_candidates=64", "searcher.refit_period=10", "surrogate=matern"],
    ],
    ids=lambda overrides: str(overrides[0]),
)
def test_a_searcher_proposes_different_configurations_of_the_table_and_no_other(table: Path, searcher: list[str]) -> None:
    parts = build(composed(overrides(table, *searcher)), Path(), Recording([]))
    events = list(run(parts.scheduler, parts.backend(), type("Nothing", (), {"append": lambda self, event: None})()))
    encoding = Encoding(ConfigurationSpace(space=dict(parts.benchmark.space)))
    members = set(encoding.keys(np.array([encoding.vector(config) for config in blackbox_format.read(table).configs])))
    proposed = [event.proposal.config for event in events if event.proposal is not None]
    keys = encoding.keys(np.array([encoding.vector(config) for config in proposed]))
    assert len(keys) == 24 == len(set(keys)) and set(keys) <= members
    assert not any(event.report.error for event in events if event.report is not None)


def test_a_study_on_a_table_says_how_large_it_is_and_what_becomes_of_other_configurations(table: Path) -> None:
    meta = metadata(simulate(composed(overrides(table, "searcher=random")), 0))
    assert (meta["pool_size"], meta["off_grid"]) == (NUM, "pool")


def test_more_than_a_fifth_of_a_table_is_refused(table: Path) -> None:
    with pytest.raises(ValueError, match="budget.trials=25 is more than a fifth of the table's 120 configurations: it must be at most 24"):
        build(composed(overrides(table, "searcher=random", "budget.trials=25")), Path(), Recording([]))
    with pytest.raises(ValueError, match="would evaluate more than a fifth of the 120 configurations of its table"):
        simulate(composed(overrides(table, "searcher=random", "budget.trials=null", "budget.seconds=1e6")), 0)


def test_the_pool_of_a_space_is_what_is_sampled_enumerated_and_moved() -> None:
    space = ConfigurationSpace({"a": (0.0, 1.0), "b": (1, 9), "c": ["x", "y", "z"]}, seed=0)
    members = [dict(config) for config in space.sample_configuration(30)]
    plain = Encoding(space)
    all_keys = set(plain.keys(np.array([plain.vector(config) for config in members])))
    space.pool = members  # type: ignore[attr-defined]
    encoding, rng = Encoding(space), np.random.default_rng(0)
    assert encoding.size == 30 and set(encoding.keys(encoding.enumerate())) == all_keys
    draws = encoding.sample(3000, rng)
    counts = np.unique(np.array(encoding.keys(draws)), return_counts=True)[1]
    assert len(counts) == 30 and counts.min() > 60  # 100 expected each, standard deviation 10
    moved = encoding.neighbours(draws[0], 20, rng)
    elsewhere = encoding.vectors(rng.random((50, encoding.dim)))
    assert set(encoding.keys(np.concatenate([moved, elsewhere, encoding.default()[None]]))) <= all_keys
    assert encoding.is_legal(draws).all() and not encoding.is_legal(plain.sample(20, rng)).any()
    rows, pool = rng.random((50, encoding.dim)), encoding.rows(encoding.enumerate())
    snapped = encoding.rows(encoding.vectors(rows))
    of_values = plain.rows(plain.vectors(rows))
    best = np.linalg.norm(of_values[:, None] - pool[None], axis=2).min(1)
    np.testing.assert_allclose(np.linalg.norm(of_values - snapped, axis=1), best)
