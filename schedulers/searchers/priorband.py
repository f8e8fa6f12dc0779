"""PriorBand (Mallik et al. 2023): Hyperband whose new configurations come from random search, the prior, or around the incumbent.

The higher the first rung of a bracket, the less it draws at random. As evidence comes in, prior and incumbent share the rest by how
likely each makes the best configurations so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace
from scipy.special import expit, ndtr, ndtri

from schedulers.draws import Uniforms, generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.drawing import first_new
from schedulers.searchers.prior import legal_mode
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.user_prior import Confidence, Part, Prior, PriorScale, log_mean_weight
from schedulers.types import Proposal, Slot

MUTATION_RATE = 0.5
MUTATION_STD = 0.25


class Shares(NamedTuple):
    """Probabilities with which a new configuration is drawn from each; they sum to 1."""

    random: float
    prior: float
    incumbent: float


class PriorBandSearcher:
    """Chooses per trial among random search, prior and incumbent; the first trial is the prior's mode.

    The incumbent takes part once the resource of one full lowest bracket was spent and some trial reached r_max. Until then, and
    without any result, its share is the prior's. prior, confidence, prior_scale, part: see `user_prior.Prior`. eta: the scheduler's.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        prior: Mapping[str, Any],
        eta: float = 3,
        confidence: Confidence = "medium",
        prior_scale: PriorScale = "neps11",
        part: Part = "joint",
        mode_first: bool = True,
        seed: int = 0,
    ) -> None:
        if not eta >= 2:
            raise ValueError(f"searcher.eta={eta} must be at least 2, and the scheduler's own eta")
        self._random = RandomSearcher(space, seed=seed, default_first=False)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self._prior = Prior(self._encoding, prior, confidence=confidence, prior_scale=prior_scale, part=part)
        self._eta, self._mode_first, self._seed = eta, mode_first, seed
        self._choices = Uniforms(seed, "priorband")

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        self._tried.update(history)
        if slot.trial_id == 0 and self._mode_first and (mode := legal_mode(self._prior, self._encoding)) is not None:
            return Proposal(self._encoding.configs(mode[None])[0], "prior", note="the prior's mode")
        shares, why = self.shares(history, slot)
        note = f"random {shares.random:.3g}, prior {shares.prior:.3g}, incumbent {shares.incumbent:.3g}: {why}"
        source, vector = self._draw(self._choices[slot.trial_id], shares, history, slot)
        if vector is not None:
            return Proposal(self._encoding.configs(vector[None])[0], source, note=note)
        proposal = self._random.suggest(history, slot)
        return proposal and proposal._replace(note=note)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def shares(self, history: History, slot: Slot) -> tuple[Shares, str]:
        """The probabilities for the trial of `slot`, and why."""
        self._tried.update(history)
        random, rest = base_weights(sum(level < slot.milestone for level in history.levels), self._eta)
        spent, needed = sum(trial.r for trial in history.trials), bracket_cost(history.levels, self._eta)
        if spent < needed:
            return Shares(random, rest, 0.0), f"spent {spent} of {needed} before the incumbent counts"
        trials, resources, metrics = _results(history)
        if not np.any(resources >= history.levels[-1]):
            return Shares(random, rest, 0.0), "no result at r_max yet"
        top, rung = _best_at_highest_rung(history.levels, trials, resources, metrics, self._eta)
        if top is None:
            prior_part, why = self._eta / (1 + self._eta), f"no rung has {self._eta:g} results"
        else:
            incumbent = self._tried.vectors()[_incumbent(trials, metrics)]
            prior_part = self._prior_part(self._tried.vectors()[top], incumbent)
            why = f"judged by the best {len(top)} at rung {rung}"
        return Shares(random, rest * prior_part, rest * (1 - prior_part)), why

    def _prior_part(self, best_first: np.ndarray, incumbent: np.ndarray) -> float:
        """S_prior / (S_prior + S_incumbent) of the rank-weighted densities, in log space."""
        weights = np.arange(len(best_first), 0, -1.0)
        by_prior = log_mean_weight(self._prior.log_density(best_first), weights)
        by_incumbent = log_mean_weight(self._prior.centred_at(incumbent).log_density(best_first), weights)
        return float(expit(by_prior - by_incumbent))

    def _draw(
        self, u: float, shares: Shares, history: History, slot: Slot
    ) -> tuple[Literal["prior", "incumbent", "random"], np.ndarray | None]:
        if u < shares.random:
            return "random", None
        rng = generator(self._seed, "priorband draw", slot.trial_id)
        if u >= shares.random + shares.prior:
            trials, _, metrics = _results(history)
            incumbent = self._tried.vectors()[_incumbent(trials, metrics)]
            found = first_new(
                self._encoding, self._tried, lambda num: mutations(self._encoding, self._prior, incumbent, num, rng), rounds=1
            )
            if found is not None:
                return "incumbent", found
        return "prior", first_new(self._encoding, self._tried, lambda num: self._prior.full(num, rng))


def base_weights(t: int, eta: float) -> tuple[float, float]:
    """(random, rest) of a bracket whose first rung is number t: random gets 1 / (1 + eta^t)."""
    return 1 / (1 + eta**t), eta**t / (1 + eta**t)


def bracket_cost(levels: Sequence[int], eta: float) -> int:
    """The resource of one full lowest bracket, floor(eta^(K-j)) trials at level j, of which each trains on from the level below."""
    sizes = [math.floor(eta ** (len(levels) - 1 - j)) for j in range(len(levels))]
    return sum(size * (level - below) for size, level, below in zip(sizes, levels, (0, *levels), strict=False))


def mutations(encoding: Encoding, prior: Prior, incumbent: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """[num, P] the incumbent with each hyperparameter changed with probability 1/2: numbers by a normal step of 0.25 of their
    (log-)range, truncated to it, categories to any other one. Where it was inactive the prior draws, in case it becomes active.
    """
    full = np.where(np.isnan(incumbent), prior.full(num, rng), incumbent)
    for column in encoding.columns:
        if column.num_categories == 1 or np.isnan(incumbent[column.index]):
            continue
        changed = np.flatnonzero(rng.random(num) < MUTATION_RATE)
        entries = full[changed, column.index]
        full[changed, column.index] = column.move(entries, rng, 0.0) if column.num_categories else _step(column, entries, rng)
    return full


def _step(column: Any, entries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    unit = column.encode(entries)[:, 0]
    low, high = ndtr((0 - unit) / MUTATION_STD), ndtr((1 - unit) / MUTATION_STD)
    moved = unit + MUTATION_STD * ndtri(low + rng.random(len(unit)) * (high - low))
    return np.asarray(column.decode(np.clip(moved, 0.0, 1.0)[:, None]))


def _results(history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(trials, resources, metrics) of the finite observations."""
    metrics = np.asarray(history.observed_metrics, float)
    seen = np.isfinite(metrics)
    return np.asarray(history.observed_trials, int)[seen], np.asarray(history.observed_resources, int)[seen], metrics[seen]


def _incumbent(trials: np.ndarray, metrics: np.ndarray) -> int:
    return int(trials[np.argmin(metrics)])


def _best_at_highest_rung(
    levels: Sequence[int], trials: np.ndarray, resources: np.ndarray, metrics: np.ndarray, eta: float
) -> tuple[np.ndarray | None, int]:
    """The best max(floor(n / eta), eta) trials of the highest rung with n >= eta results, best first; None: there is no such rung."""
    for level in reversed(levels):
        there = np.flatnonzero(resources == level)
        if len(there) >= eta:
            keep = max(math.floor(len(there) / eta), math.ceil(eta))
            return trials[there[np.argsort(metrics[there], kind="stable")[:keep]]], level
    return None, 0
