"""The bundled table holds what its benchmark trains."""

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
