"""What a surrogate says of cells that it has not seen, on recorded traces: the numbers of the kernel laboratory.

A trace is what a study without a model observed (configurations and their metrics at rungs) together with the whole curves behind it. Two
questions are asked about every trial, of a surrogate that knows all the others:

    continued   the trial's own first cell is known too; what are its later ones?
    new         nothing of the trial is known; what are all its cells?

Hyperparameters are those fitted to other trials: the trials are dealt to FOLDS, and a fit sees nothing of its own fold. Units are the
surrogate's: metrics less the mean of the observations, over their standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.stats import norm, spearmanr

from experiments.overrides import composed, made
from experiments.simulation import Nothing
from mfgp.query import Known, believe, learn
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.encoding import Encoding
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import TrialLimit
from schedulers.types import Benchmark, Job

FOLDS = 5
INTERVAL = 0.9
TASKS = ("continued", "new")


class Trace(NamedTuple):
    """N trials of a study. Metrics are minimised."""

    name: str
    rows: Float[np.ndarray, "N D"]  # encoded configurations
    owners: tuple[int, ...]  # which hyperparameter each coordinate is about
    curves: Float64[np.ndarray, "N R"]  # the metric at 1..r_max
    levels: tuple[int, ...]  # rungs and r_max
    trial: Int[np.ndarray, " n"]  # of each observation
    r: Int[np.ndarray, " n"]

    @property
    def r_max(self) -> int:
        return self.levels[-1]


class Prediction(NamedTuple):
    """Of one cell: the truth, and mean and standard deviation of what would be observed, in the surrogate's units."""

    task: str
    trial: int
    r: int
    truth: float
    mean: float
    std: float


class Band(NamedTuple):
    """A posterior learning curve in the metric's own units."""

    trial: int
    r: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    seen_r: int  # the one cell that was known


def record(name: str, benchmark: Benchmark, *, trials: int, brackets: int, seed: int = 0) -> Trace:
    """What asynchronous Hyperband (stopping, random search, 4 simulated workers) observes of `trials` configurations."""
    encoding = Encoding(benchmark.space)
    searcher = TrialLimit(RandomSearcher(benchmark.space, seed=seed, default_first=False), trials)
    scheduler = AsyncHyperband(searcher, r_min=1, r_max=benchmark.r_max, brackets=brackets, seed=seed)
    for _ in run(scheduler, SimulatedBackend(benchmark, 4), Nothing()):
        pass
    history = scheduler.history
    sign = 1.0 if benchmark.mode == "min" else -1.0
    configs = [trial.proposal.config for trial in history.trials]
    curves = np.array([[sign * p.metric for p in benchmark.train(Job(0, config, 0, benchmark.r_max), None)] for config in configs])
    r = np.asarray(history.observed_resources, int)
    at_level = np.isin(r, history.levels)
    rows = encoding.rows(np.array([encoding.vector(config) for config in configs]))
    return Trace(name, rows, encoding.owners(), curves, history.levels, np.asarray(history.observed_trials, int)[at_level], r[at_level])


def surrogate_of(name: str) -> Any:
    """The surrogate of conf/surrogate/<name>.yaml."""
    return made(composed([f"surrogate={name}"]).surrogate)


def folds(trace: Trace) -> list[Int[np.ndarray, " k"]]:
    """The trials in FOLDS parts, at random but always the same."""
    order = np.random.default_rng(len(trace.rows)).permutation(len(trace.rows))
    return [np.sort(part) for part in np.array_split(order, FOLDS)]


def examine(trace: Trace, surrogate: Any) -> list[Prediction]:
    """The predictions of all trials' cells, both questions."""
    predictions: list[Prediction] = []
    surrogate = surrogate.over(trace.owners)
    centre, unit = units(trace)
    for number, fold in enumerate(folds(trace)):
        hyperparameters = learn(surrogate, (0, number), _known(trace, ~np.isin(trace.trial, fold)))
        for trial in fold:
            for task in TASKS:
                used, seen_r = _used(trace, trial, task)
                r = np.array([level for level in trace.levels if level > seen_r])
                if len(r) == 0:
                    continue
                mean, std = _observed_belief(surrogate, hyperparameters, trace, used, trial, r)
                truth = (trace.curves[trial, r - 1] - centre) / unit
                predictions += [Prediction(task, int(trial), *cell) for cell in zip(r.tolist(), truth, mean, std, strict=True)]
    return predictions


def bands(trace: Trace, surrogate: Any, trials: Sequence[int]) -> list[Band]:
    """Posterior learning curves of these trials, of which one cell is known; a surrogate that knows levels only is asked at rungs."""
    (centre, unit), found, surrogate = units(trace), [], surrogate.over(trace.owners)
    parts = folds(trace)
    for trial in trials:
        number = next(i for i, fold in enumerate(parts) if trial in fold)
        hyperparameters = learn(surrogate, (0, number), _known(trace, ~np.isin(trace.trial, parts[number])))
        used, seen_r = _used(trace, trial, "continued")
        everywhere = np.unique(np.rint(np.geomspace(1, trace.r_max, 24)).astype(int))
        r = np.array(trace.levels) if surrogate.has_levels else np.union1d(everywhere, trace.levels)
        mean, std = _observed_belief(surrogate, hyperparameters, trace, used, trial, r)
        found.append(Band(int(trial), r, mean * unit + centre, std * unit, seen_r))
    return found


def typical(trace: Trace) -> list[int]:
    """A good, a middling and a bad trial of those that began at the lowest rung."""
    first = np.array([trace.r[trace.trial == trial].min(initial=trace.r_max) for trial in range(len(trace.rows))])
    low = np.flatnonzero(first == trace.levels[0])
    order = low[np.argsort(trace.curves[low, -1], kind="stable")]
    return [int(order[round(share * (len(order) - 1))]) for share in (0.1, 0.5, 0.9)]


def units(trace: Trace) -> tuple[float, float]:
    """Mean and standard deviation of the trace's observations: what is zero and one in the predictions (`mfgp.data.joint`)."""
    y = trace.curves[trace.trial, trace.r - 1]
    return float(y.mean()), float(y.std()) or 1.0


def _known(trace: Trace, mask: Bool[np.ndarray, " n"]) -> Known:
    """The observations in the mask. Standardised here, by all of the trace's, so that every subset is in the same units."""
    trial, r = trace.trial[mask], trace.r[mask]
    centre, unit = units(trace)
    y = (trace.curves[trial, r - 1] - centre) / unit
    return Known(trace.rows[trial], (r - 0.5) / trace.r_max, y, np.empty((0, trace.rows.shape[1])), np.empty(0), 4)


def _used(trace: Trace, trial: int, task: str) -> tuple[Bool[np.ndarray, " n"], int]:
    """Which observations are known when `trial` is asked about, and the trial's own one among them (0: none)."""
    mine = trace.trial == trial
    seen_r = int(trace.r[mine].min(initial=trace.r_max)) if task == "continued" else 0
    return ~mine | (mine & (trace.r == seen_r)), seen_r


def _observed_belief(
    surrogate: Any, hyperparameters: Any, trace: Trace, used: Bool[np.ndarray, " n"], trial: int, r: Int[np.ndarray, " m"]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of observations of `trial` at `r`, noise included, in the trace's units."""
    known = _known(trace, used)
    belief = believe(
        surrogate, hyperparameters, (0, 0), known, np.repeat(trace.rows[trial][None], len(r), 0), (r - 0.5) / trace.r_max, num_fantasies=1
    )
    # The subset is standardised once more inside.
    mean, std = float(known.y.mean()), float(known.y.std()) or 1.0
    return belief.mean[0] * std + mean, np.sqrt(belief.std**2 + hyperparameters["noise"]) * std


def log_likelihood(truth: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
    """Mean negative log density, in nats per cell."""
    return float(-norm.logpdf(truth, mean, std).mean())


def coverage(truth: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
    """Share of the cells inside the central INTERVAL."""
    return float(np.mean(np.abs(truth - mean) <= norm.ppf(0.5 + INTERVAL / 2) * std))


def rank_correlation(truth: np.ndarray, mean: np.ndarray) -> float:
    """Spearman's; nan for constants and fewer than three cells."""
    if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(mean) == 0:
        return math.nan
    return float(spearmanr(truth, mean).statistic)
