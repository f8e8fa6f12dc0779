"""The synthetic curves have the optimum they claim, cross only when asked to, and repeat themselves."""

import pickle
from typing import Any

import numpy as np
import pytest
from ConfigSpace import Configuration
from scipy.stats import spearmanr

from experiments.benchmarks.synthetic import Curves
from schedulers.types import Benchmark, Job

CONDITIONAL = {
    "hyperparameters": [
        {"type": "categorical", "name": "optimiser", "choices": ["sgd", "adam"]},
        {"type": "uniform_float", "name": "momentum", "lower": 0.0, "upper": 0.99},
        {"type": "ordinal", "name": "width", "sequence": [16, 64, 256]},
        {"type": "constant", "name": "depth", "value": 3},
    ],
    "conditions": [{"type": "EQ", "child": "momentum", "parent": "optimiser", "value": "sgd"}],
}


def sample(benchmark: Curves, size: int = 300) -> list[dict[str, Any]]:
    benchmark.space.seed(0)
    return [dict(config) for config in benchmark.space.sample_configuration(size)]


@pytest.mark.parametrize(
    "settings", [{}, {"decay": "exponential"}, {"crossing": 0.0}, {"problem": 3}, {"space": CONDITIONAL}, {"r_max": 1}]
)
def test_no_configuration_beats_the_optimum_and_the_best_one_reaches_it(settings: dict[str, Any]) -> None:
    benchmark = Curves(**settings)
    finals = [benchmark.mean_curve(config)[-1] for config in sample(benchmark)]
    assert benchmark.optimum <= min(finals) < max(finals) <= benchmark.optimum + 1
    assert benchmark.mean_curve(benchmark.best_config)[-1] == pytest.approx(benchmark.optimum, abs=1e-15)
    if "space" not in settings:
        Configuration(benchmark.space, values=benchmark.best_config).check_valid_configuration()


@pytest.mark.parametrize("decay", ["power", "exponential"])
def test_curves_fall_and_without_crossing_keep_their_order(decay: str) -> None:
    benchmark = Curves(decay=decay, crossing=0.0)
    values = np.array([benchmark.mean_curve(config) for config in sample(benchmark)])
    assert values.shape == (300, 27)
    assert np.all(np.diff(values, axis=1) < 0)
    order = np.argsort(values[:, -1])
    assert np.all(np.diff(values[order], axis=0) >= -1e-12)


def test_curves_cross_when_asked_to() -> None:
    correlation = []
    for crossing in (0.0, 0.5, 2.0):
        benchmark = Curves(crossing=crossing)
        values = np.array([benchmark.mean_curve(config) for config in sample(benchmark)])
        correlation.append(spearmanr(values[:, 0], values[:, -1]).statistic)
    assert correlation[0] > 0.999 > 0.9 > correlation[1] > correlation[2]


def test_training_yields_the_asked_stretch_with_simulated_seconds() -> None:
    benchmark = pickle.loads(pickle.dumps(Curves(seconds=10.0, noise=0.1)))
    assert isinstance(benchmark, Benchmark)
    configs = sample(benchmark)
    whole, part = (list(benchmark.train(Job(0, configs[0], *stretch), None)) for stretch in ((0, 27), (3, 9)))
    assert whole[3:9] == part and [item.r for item in whole] == list(range(1, 28))
    costs = [benchmark.epoch_seconds(config) for config in configs]
    assert 10 / np.e <= min(costs) < 5 and 20 < max(costs) <= 10 * np.e
    assert whole[0].seconds == costs[0]
    assert {Curves(cost_spread=0.0).epoch_seconds(config) for config in configs} == {1.0}


def test_noise_is_fixed_by_configuration_and_seed_and_has_the_stated_size() -> None:
    benchmark, configs = Curves(noise=0.05), sample(Curves())
    residuals = np.array([benchmark.curve(config) - benchmark.mean_curve(config) for config in configs])
    assert residuals.std() == pytest.approx(0.05, rel=0.05)
    assert abs(np.corrcoef(residuals[0], residuals[1])[0, 1]) < 0.9
    numpy_config = {name: np.asarray(value)[()] for name, value in configs[0].items()}
    np.testing.assert_array_equal(benchmark.curve(configs[0]), Curves(noise=0.05).curve(numpy_config))
    assert not np.array_equal(benchmark.curve(configs[0]), Curves(noise=0.05, seed=1).curve(configs[0]))
    np.testing.assert_array_equal(Curves(seed=0).curve(configs[0]), Curves(seed=1).curve(configs[0]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"decay": "linear"}, "decay='linear' is unknown"),
        ({"noise": -1}, "noise=-1 must be a finite number, 0 or more"),
        ({"seconds": 0}, "seconds=0 must be positive"),
        ({"r_max": 0}, "r_max=0 at least 1"),
        ({"num_floats": 0, "num_ints": 0, "num_categoricals": 0}, "at least 1 together"),
        (
            {"space": {**CONDITIONAL, "conditions": [], "forbiddens": [{"type": "EQUALS", "name": "width", "value": 256}]}},
            "has forbidden clauses",
        ),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Curves(**settings)
