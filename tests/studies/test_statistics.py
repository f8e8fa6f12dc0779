"""Intervals cover what they should, and verdicts follow the written rule."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from experiments.statistics import (
    MARGIN,
    Interval,
    Steps,
    bootstrap,
    excess_difference,
    is_exhausted,
    mean_curve,
    pooled_difference,
    regret_difference,
    spread_ratio,
    time_ratio,
    verdict,
)


def runs(*finals: float) -> dict[int, Steps]:
    """One run per final value: 1 at 10 s, the final value at 50 s."""
    return {seed: Steps(np.array([10.0, 50.0]), np.array([1.0, final])) for seed, final in enumerate(finals)}


def test_an_incumbent_is_carried_forward_and_unknown_before_its_first_result() -> None:
    run = runs(0.2)[0]
    assert math.isnan(run.at(np.array([9.9]))[0])
    assert run.at(np.array([10.0, 49.0, 50.0, 1e9])).tolist() == [1.0, 1.0, 0.2, 0.2]
    assert (run.reaches(1.0), run.reaches(0.5), run.reaches(0.1)) == (10.0, 50.0, math.inf)


def test_the_interval_is_scipys_percentile_interval_of_the_median() -> None:
    values = np.random.default_rng(3).normal(0.3, 1.0, 30)
    mine = bootstrap(values)
    other = scipy_bootstrap((values,), np.median, method="percentile", n_resamples=10_000, rng=np.random.default_rng(7))
    assert mine.median == np.median(values) and mine.n == 30
    assert (mine.low, mine.high) == pytest.approx(tuple(other.confidence_interval), abs=0.05)


def test_another_statistic_has_scipys_interval_too() -> None:
    values = np.random.default_rng(4).lognormal(size=40)

    def variation(v: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(v.std(axis=axis, ddof=1) / v.mean(axis=axis))

    mine = bootstrap(values, of=variation)
    other = scipy_bootstrap((values,), variation, method="percentile", n_resamples=10_000, rng=np.random.default_rng(7))
    assert mine.median == pytest.approx(values.std(ddof=1) / values.mean())
    assert (mine.low, mine.high) == pytest.approx(tuple(other.confidence_interval), abs=0.05)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap(rng.normal(size=30), seed=i) for i in range(200)]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.05)


def test_regrets_are_compared_pair_by_pair_on_a_log_scale() -> None:
    #                       regret  .1   .01  .001 (below the floor of .002)
    found = regret_difference(runs(0.2, 0.11, 0.101), runs(1.1, 0.2, 0.2), 100.0, optimum=0.1, floor=0.002)
    assert found.median == pytest.approx(-1.0)
    assert found.low == pytest.approx(math.log10(0.002 / 0.1)) and found.high == pytest.approx(-1.0)
    assert regret_difference(runs(0.2), runs(0.3), 5.0, 0.1, 0.01).n == 0  # nothing is known at 5 s


def test_a_seed_that_one_method_lacks_does_not_count() -> None:
    assert regret_difference(runs(0.2, 0.3), runs(0.2), 60.0, 0.1, 0.01).n == 1


def test_several_panels_count_alike_and_only_seeds_that_all_have() -> None:
    #            log10 regret  -2, -1         -1, -1             -3, -2             -1, -2
    first, second = (runs(0.11, 0.2), runs(0.2, 0.2)), (runs(1.001, 1.01, 1.5), runs(1.1, 1.01))
    found = pooled_difference([(*first, 100.0, 0.1, 1e-6), (*second, 100.0, 1.0, 1e-6)])
    # seed 0: (-1 - 2) / 2, seed 1: (0 + 0) / 2
    assert (found.low, found.high, found.n) == (pytest.approx(-1.5), pytest.approx(0.0), 2) and found.median == pytest.approx(-0.75)
    alone = pooled_difference([(*first, 100.0, 0.1, 1e-6)])
    assert alone == regret_difference(*first, 100.0, 0.1, 1e-6)


def test_spreads_are_compared_as_scipys_paired_bootstrap_compares_them() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 0.02, 40), rng.normal(0.5, 0.05, 40)
    found = spread_ratio(runs(*a), runs(*b), 100.0)
    assert found.median == pytest.approx(np.log10(a.std(ddof=1) / b.std(ddof=1))) and found.n == 40

    def ratio(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.log10(x.std(axis=axis, ddof=1) / y.std(axis=axis, ddof=1))

    other = scipy_bootstrap((a, b), ratio, paired=True, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1))
    assert (found.low, found.high) == pytest.approx(tuple(other.confidence_interval), abs=0.02)
    assert verdict("steadier", found, False) == "reproduced"
    assert math.isnan(spread_ratio(runs(0.1, 0.2), runs(0.1, 0.2), 100.0).median)  # two runs have hardly a spread


def test_times_are_compared_to_the_regret_that_the_second_has_at_half_time() -> None:
    slow = {seed: Steps(np.array([10.0, 50.0]), np.array([1.0, 0.2])) for seed in range(3)}
    fast = {seed: Steps(np.array([5.0, 25.0]), np.array([0.2, 0.1])) for seed in range(3)}
    ratio, regret = time_ratio(fast, slow, 100.0, optimum=0.1, floor=1e-4)
    assert regret == pytest.approx(0.1)
    assert ratio.median == pytest.approx(math.log10(5 / 50))
    late = {seed: Steps(np.array([60.0 if seed == 1 else 10.0]), np.array([1.0])) for seed in range(3)}
    assert time_ratio(slow, late, 100.0, 0.1, 1e-4)[0].n == 0  # one of them has no result at half time
    never = {seed: Steps(np.array([10.0]), np.array([1.0])) for seed in range(3)}
    assert time_ratio(never, slow, 100.0, 0.1, 1e-4)[0].median == pytest.approx(math.log10(100 / 50))


def test_a_median_of_pairs_that_found_everything_says_nothing() -> None:
    a, b = runs(0.1, 0.1, 0.1, 0.1, 0.5), runs(0.1, 0.1005, 0.1, 0.9, 0.1)
    assert is_exhausted(a, b, 60.0, 0.1, 1e-3)  # three of five pairs
    assert regret_difference(a, b, 60.0, 0.1, 1e-3).median == 0
    assert not is_exhausted(a, b, 60.0, 0.1, 1e-4)  # two
    assert not is_exhausted(a, b, 20.0, 0.1, 1e-3)  # not yet
    assert not is_exhausted(a, b, 5.0, 0.1, 1e-3)  # no results


def test_an_excess_is_beyond_each_ones_own_baseline() -> None:
    def runs(regret: float) -> dict[int, Steps]:
        return {seed: Steps(np.array([0.0]), np.array([0.1 + regret])) for seed in range(3)}

    found = excess_difference(runs(0.2), runs(0.1), runs(0.8), runs(0.1), 1.0, 0.1, 1e-4)
    assert found.median == pytest.approx(math.log10(2) - math.log10(8)) and found.n == 3


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("better", -0.5, -0.1, "reproduced"),
        ("better", -0.5, 0.1, "undecided"),
        ("better", 0.1, 0.5, "not reproduced"),
        ("better", -0.05, 0.05, "not reproduced"),  # they are alike
        ("better", -0.05, -0.01, "reproduced"),  # by little
        ("no worse", -0.3, 0.1, "reproduced"),
        ("no worse", -0.3, 0.2, "undecided"),
        ("no worse", 0.2, 0.3, "not reproduced"),
        ("alike", -0.1, 0.1, "reproduced"),
        ("alike", -0.3, 0.1, "undecided"),
        ("alike", 0.2, 0.5, "not reproduced"),
        ("alike", -0.5, -0.2, "not reproduced"),
        ("no slower", -0.9, MARGIN, "reproduced"),
        ("no slower", -0.9, 0.3, "undecided"),
        ("no slower", 0.16, 0.3, "not reproduced"),
    ],
)
def test_the_verdict_follows_the_interval(relation: str, low: float, high: float, expected: str) -> None:
    found = Interval((low + high) / 2, low, high, 30)
    assert verdict(relation, found, is_stand_in=False) == expected  # type: ignore[arg-type]
    other = {"reproduced": "stand-in agrees", "not reproduced": "stand-in disagrees"}
    assert verdict(relation, found, is_stand_in=True) == other.get(expected, expected)  # type: ignore[arg-type]


def test_one_pair_decides_nothing() -> None:
    assert verdict("better", Interval(-1, -1, -1, 1), is_stand_in=False) == "undecided"


def test_standard_errors_divide_by_n_minus_one() -> None:
    mean, error = mean_curve(runs(0.2, 0.4), np.array([20.0, 60.0]), optimum=0.1)
    assert mean.tolist() == pytest.approx([0.9, 0.2])
    assert error.tolist() == pytest.approx([0.0, math.sqrt(0.02) / math.sqrt(2)])
