"""What studies say about a claim: regret, paired differences with bootstrap intervals, and the verdict.

Regret is against the best value that any method of the study reached on that task at any time (Klein et al. 2020, section 4). Methods are
compared seed by seed, on log10 of the regret; what is called equal lies within MARGIN of it, a factor of 1.41.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

MARGIN = 0.15
DRAWS = 10_000
CONFIDENCE = 0.95
Relation = Literal["better", "no worse", "alike", "no slower", "steadier"]


class Steps(NamedTuple):
    """The incumbent of one run: `best` holds from `times` (seconds, rising) on."""

    times: np.ndarray
    best: np.ndarray

    def at(self, when: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, " T"]:
        """nan before the first result."""
        index = np.searchsorted(self.times, when, side="right") - 1
        return np.where(index >= 0, self.best[np.maximum(index, 0)], np.nan) if len(self.times) else np.full(len(when), np.nan)

    def reaches(self, value: float) -> float:
        """The first time at which the incumbent is at most `value`; inf if never."""
        found = np.flatnonzero(self.best <= value)
        return float(self.times[found[0]]) if len(found) else math.inf


class Interval(NamedTuple):
    """A median (or the statistic that was asked for) with its bootstrap interval; `n` pairs."""

    median: float
    low: float
    high: float
    n: int


def bootstrap(values: Float64[np.ndarray, "N ..."], seed: int = 0, of: Callable[..., Any] = np.median) -> Interval:
    """The median of paired differences (or another statistic of them), and its percentile interval over resampled pairs."""
    if len(values) == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    drawn = of(values[rng.integers(len(values), size=(DRAWS, len(values)))], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(of(values, axis=0)), float(low), float(high), len(values))


def log_regret(value: np.ndarray, optimum: float, floor: float) -> np.ndarray:
    """log10 of the regret, which counts as `floor` below it: the run that found the optimum has none."""
    return np.log10(np.maximum(value - optimum, floor))


def regret_difference(a: Mapping[int, Steps], b: Mapping[int, Steps], when: float, optimum: float, floor: float) -> Interval:
    """log10 regret of a minus that of b at time `when`, over the seeds that both have; negative: a is better."""
    at = np.array([when])
    pairs = [(a[seed].at(at)[0], b[seed].at(at)[0]) for seed in sorted(a.keys() & b.keys())]
    known = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2)
    return bootstrap(log_regret(known[:, 0], optimum, floor) - log_regret(known[:, 1], optimum, floor))


def is_exhausted(a: Mapping[int, Steps], b: Mapping[int, Steps], when: float, optimum: float, floor: float) -> bool:
    """Whether in more than half of the pairs neither has regret left: their median difference is zero then, whatever the methods."""
    at = np.array([when])
    values = np.array([[run[seed].at(at)[0] for run in (a, b)] for seed in sorted(a.keys() & b.keys())]).reshape(-1, 2)
    return bool(2 * np.sum((values - optimum <= floor).all(axis=1)) > len(values))


def pooled_difference(pairs: Sequence[tuple[Mapping[int, Steps], Mapping[int, Steps], float, float, float]]) -> Interval:
    """The mean over several pairs (a, b, when, optimum, floor) of log10 regret of a minus that of b, over the seeds that all have."""
    seeds = sorted(set.intersection(*(set(a) & set(b) for a, b, *_ in pairs)))
    values = np.array([[[run[seed].at(np.array([when]))[0] for run in (a, b)] for a, b, when, _, _ in pairs] for seed in seeds]).reshape(
        -1, len(pairs), 2
    )
    known = values[np.isfinite(values).all(axis=(1, 2))]
    logs = np.stack([log_regret(known[:, i], optimum, floor) for i, (*_, optimum, floor) in enumerate(pairs)], axis=1)
    return bootstrap((logs[..., 0] - logs[..., 1]).mean(axis=1))


def spread_ratio(a: Mapping[int, Steps], b: Mapping[int, Steps], when: float, seed: int = 0) -> Interval:
    """log10 of the standard deviation over seeds of a's value at time `when` over that of b's, with an interval over resampled seeds."""
    at = np.array([when])
    pairs = np.array([[run[number].at(at)[0] for run in (a, b)] for number in sorted(a.keys() & b.keys())]).reshape(-1, 2)
    known = pairs[np.isfinite(pairs).all(axis=1)]
    if len(known) < 3:
        return Interval(math.nan, math.nan, math.nan, len(known))
    chosen = np.random.default_rng(seed).integers(len(known), size=(DRAWS, len(known)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log10(known[chosen, 0].std(axis=1, ddof=1) / known[chosen, 1].std(axis=1, ddof=1))
        found = float(np.log10(known[:, 0].std(ddof=1) / known[:, 1].std(ddof=1)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios[np.isfinite(ratios)], [tail, 1 - tail])
    return Interval(found, float(low), float(high), len(known))


def excess_difference(
    a: Mapping[int, Steps],
    without_a: Mapping[int, Steps],
    b: Mapping[int, Steps],
    without_b: Mapping[int, Steps],
    when: float,
    optimum: float,
    floor: float,
) -> Interval:
    """By how much log10 regret of a exceeds that of its own baseline, minus the same of b; negative: a is harmed less."""
    at, runs = np.array([when]), (a, without_a, b, without_b)
    seeds = sorted(set.intersection(*(set(one) for one in runs)))
    values = np.array([[one[seed].at(at)[0] for one in runs] for seed in seeds]).reshape(-1, 4)
    logs = log_regret(values[np.isfinite(values).all(axis=1)], optimum, floor)
    return bootstrap(logs @ np.array([1.0, -1.0, -1.0, 1.0]))


def time_ratio(a: Mapping[int, Steps], b: Mapping[int, Steps], horizon: float, optimum: float, floor: float) -> tuple[Interval, float]:
    """log10 of the time that a takes over the time that b takes to the regret which b has, in the median, at half the horizon.

    Negative: a is faster. A run that never gets there counts with the horizon (two of a pair that do not, as equal). The regret comes
    second. Nothing is compared if some run of b has no result by then.
    """
    half = np.array([horizon / 2])
    target = max(float(np.median([run.at(half)[0] for run in b.values()])), optimum + floor)
    if not math.isfinite(target):
        return bootstrap(np.empty(0)), math.nan
    pairs = [[min(run[seed].reaches(target), horizon) for run in (a, b)] for seed in sorted(a.keys() & b.keys())]
    times = np.array(pairs).reshape(-1, 2)
    return bootstrap(np.log10(times[:, 0] / times[:, 1])), target - optimum


def verdict(relation: Relation, found: Interval, is_stand_in: bool) -> str:
    """reproduced, not reproduced or undecided. A stand-in can agree or disagree at most.

    better, steadier (in its spread over seeds): the interval lies below zero; it fails if it lies above, or else within the margin. alike:
    the interval lies within the margin; it fails if it lies outside. no worse (in regret), no slower (in time): the interval lies below the
    margin; it fails if it lies above.
    Source: algorithms.md section 5.1.
    """
    within = -MARGIN <= found.low and found.high <= MARGIN
    if relation in ("better", "steadier"):
        holds = found.high < 0
        fails = not holds and (found.low > 0 or within)
    elif relation == "alike":
        holds, fails = within, found.low > MARGIN or found.high < -MARGIN
    else:
        holds, fails = found.high <= MARGIN, found.low > MARGIN
    if found.n < 2 or holds == fails:
        return "undecided"
    if is_stand_in:
        return "stand-in agrees" if holds else "stand-in disagrees"
    return "reproduced" if holds else "not reproduced"


def mean_curve(runs: Mapping[int, Steps], grid: Float64[np.ndarray, " T"], optimum: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean regret and its standard error (ddof 1) on the grid; nan where a run has no result yet."""
    regrets = np.array([run.at(grid) for run in runs.values()]) - optimum
    spread = regrets.std(axis=0, ddof=1) / math.sqrt(len(regrets)) if len(regrets) > 1 else np.full(len(grid), np.nan)
    return regrets.mean(axis=0), spread


def all_known(runs: Mapping[int, Steps], grid: Float64[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """Where every run has a result."""
    return np.all(np.isfinite([run.at(grid) for run in runs.values()]), axis=0)
