"""The bundled table holds what its benchmark trains."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks.blackbox import Blackbox
from experiments.overrides import composed
from experiments.tabulate import design, make_benchmark


def test_the_bundled_table_is_a_design_of_the_perceptron_on_the_digits() -> None:
    table = Blackbox("mlp_digits")
    benchmark = make_benchmark(composed(["benchmark=mlp", "benchmark.dataset=digits"]))
    configs = design(benchmark, 0, 200)
    assert (table.pool_size, table.r_max, dict(table.space)) == (200, 27, dict(benchmark.space))
    assert [table.row(config) for config in configs] == list(range(200))
    # A network that trains in a second and at a rate where rounding stays rounding.
    small = min((c for c in configs if c["learning_rate"] < 1e-3), key=lambda c: c["units_1"] * c["units_2"] / c["batch_size"])
    retrained = benchmark.train_together([small], 1)[0, :3, 0]  # type: ignore[attr-defined]
    assert table.curve(table.row(small))[0][:3] == pytest.approx(retrained, abs=1 / 599)


DATA = os.environ.get("MFGP_DATA_DIR", "")


@pytest.mark.skipif(not Path(DATA, "electricity").is_dir() or not DATA, reason="needs MFGP_DATA_DIR/electricity")
def test_the_bundled_trainings_of_electricity_are_a_design_of_the_perceptron_on_it() -> None:
    table = Blackbox("mlp_electricity", off_grid="pool")
    benchmark = make_benchmark(composed(["benchmark=mlp", "benchmark.dataset=electricity"]))
    configs = design(benchmark, 0, table.pool_size)
    assert table.r_max == 27 and dict(table.space) == dict(benchmark.space)
    assert [table.row(config) for config in configs] == list(range(table.pool_size))
    small = min((c for c in configs if c["learning_rate"] < 1e-3), key=lambda c: c["units_1"] * c["units_2"] / c["batch_size"])
    retrained = benchmark.train_together([small], 1)[0, :2, 0]  # type: ignore[attr-defined]
    found, seconds = table.curve(table.row(small))
    assert found[:2] == pytest.approx(retrained, abs=0.002) and np.all(np.diff(seconds) > 0)
