"""BOHB's model (Falkner et al. 2018): densities of good and bad configurations, and the candidate where their ratio is best.

The rules are those of its authors' HpBandSter, on the largest resource at which there is enough data. Numbers live in the unit
coordinate of `schedulers.encoding`, categories are indices. The model knows nothing of pending evaluations; unlike there, what was tried
before is not proposed again.

HpBandSter drops a result once there is a model at a larger resource; as it always asks the model at the largest resource, that changes
none of its proposals, but it means that what is known at lower resources never counts again. `keep_all_budgets` lets it count.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace
from scipy.special import ndtr, ndtri

from schedulers.draws import Uniforms, generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Proposal, Slot

log = logging.getLogger(__name__)

CategoricalRule = Literal["hpbandster", "clipped"]
FLOOR = 1e-32  # of either density in the ratio


class KDESearcher:
    """Random with probability `random_fraction` and while there is no model, else the model's best of `num_candidates`.

    categorical: `hpbandster` takes the spread of the categories' indices for a bandwidth, which makes kernels prefer other categories
        and densities negative; `clipped` takes that of their indicators and keeps the kernel's peak where it belongs.
    keep_all_budgets: each trial counts once, at the largest rung it reached, ranked behind all that got further.
    good_percent: of the results that count as good; bandwidth_factor: candidates spread that much wider than the good density.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        categorical: CategoricalRule = "clipped",
        keep_all_budgets: bool = False,
        random_fraction: float = 1 / 3,
        good_percent: int = 15,
        num_candidates: int = 64,
        bandwidth_factor: float = 3.0,
        min_bandwidth: float = 1e-3,
        default_first: bool = True,
        seed: int = 0,
    ) -> None:
        if categorical not in ("hpbandster", "clipped"):
            raise ValueError(f"searcher.categorical={categorical} is unknown: choose hpbandster or clipped")
        if not 0 <= random_fraction <= 1:
            raise ValueError(f"searcher.random_fraction={random_fraction} must be a probability, from 0 to 1")
        if not 0 < good_percent < 100:
            raise ValueError(f"searcher.good_percent={good_percent} must lie between 0 and 100")
        for name, value in {"num_candidates": num_candidates, "bandwidth_factor": bandwidth_factor, "min_bandwidth": min_bandwidth}.items():
            if not value > 0:
                raise ValueError(f"searcher.{name}={value} must be positive")
        self._random = RandomSearcher(space, seed=seed, default_first=default_first)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self._coordinates = UnitCoordinates(self._encoding)
        self._categorical, self._keep_all_budgets, self._seed = categorical, keep_all_budgets, seed
        self._random_fraction, self._good_percent, self._num_candidates = random_fraction, good_percent, num_candidates
        self._bandwidth_factor, self._min_bandwidth = bandwidth_factor, min_bandwidth
        self._coins = Uniforms(seed, "kde random")

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        self._tried.update(history)
        split = None
        if self._coins[slot.trial_id] >= self._random_fraction:
            split = good_and_bad(history, self._coordinates.dim, self._good_percent, self._keep_all_budgets)
        if split is None:
            return self._random.suggest(history, slot)
        rng = generator(self._seed, "kde", slot.trial_id)
        good, bad = (self._estimate(trials, rng) for trials in (split.good, split.bad))
        candidates = self._candidates(good, rng)
        ratio = np.maximum(bad.density(candidates), FLOOR) / np.maximum(good.density(candidates), FLOOR)
        vectors = self._encoding.deactivate(self._coordinates.vectors(candidates, self._encoding))
        usable = np.flatnonzero(self._encoding.is_legal(vectors) & self._tried.is_new(vectors))
        if len(usable) == 0:
            log.info("trial %d: all that the model proposed is forbidden or was tried before; drawing at random", slot.trial_id)
            return self._random.suggest(history, slot)
        best = usable[np.argmin(ratio[usable])]
        note = f"{len(split.good)} good and {len(split.bad)} bad at r={split.r}, ratio of densities {1 / ratio[best]:.3g}"
        return Proposal(self._encoding.configs(vectors[best][None])[0], "model", split.r, note)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _estimate(self, trials: np.ndarray, rng: np.random.Generator) -> ProductKDE:
        points = impute(self._coordinates.points(self._tried.vectors()[trials]), self._coordinates.num_choices, rng)
        return ProductKDE.fit(points, self._coordinates.num_choices, self._categorical, self._min_bandwidth)

    def _candidates(self, good: ProductKDE, rng: np.random.Generator) -> np.ndarray:
        """[num_candidates, D] each around a random good point: numbers by a truncated normal, categories kept or drawn anew."""
        centres = good.points[rng.integers(len(good.points), size=self._num_candidates)]
        drawn = np.empty_like(centres)
        for j, num in enumerate(good.num_choices):
            centre, uniform = centres[:, j], rng.random(len(centres))
            if num:
                anew = rng.integers(num, size=len(centres))
                drawn[:, j] = np.where(uniform < 1 - good.bandwidths[j], centre, anew)
            else:
                std = self._bandwidth_factor * good.bandwidths[j]
                low, high = ndtr(-centre / std), ndtr((1 - centre) / std)
                drawn[:, j] = np.clip(centre + std * ndtri(low + uniform * (high - low)), 0.0, 1.0)
        return drawn


class UnitCoordinates:
    """The D coordinates of the model: all hyperparameters but constants; numbers in [0, 1], categories as indices, nan where inactive."""

    def __init__(self, encoding: Encoding) -> None:
        self._columns = [column for column in encoding.columns if column.num_categories != 1]
        self.num_choices = np.array([column.num_categories for column in self._columns])  # 0: a number
        self.dim = len(self._columns)

    def points(self, vectors: np.ndarray) -> np.ndarray:
        points = np.full((len(vectors), self.dim), np.nan)
        for j, column in enumerate(self._columns):
            active = ~np.isnan(vectors[:, column.index])
            entries = vectors[active, column.index]
            points[active, j] = entries if column.num_categories else column.encode(entries)[:, 0]
        return points

    def vectors(self, points: np.ndarray, encoding: Encoding) -> np.ndarray:
        """[n, P] without nan: conditions are the caller's to apply."""
        vectors = np.empty((len(points), len(encoding.columns)))
        for column in encoding.columns:
            vectors[:, column.index] = column.default
        for j, column in enumerate(self._columns):
            vectors[:, column.index] = points[:, j] if column.num_categories else column.decode(points[:, j : j + 1])
        return vectors


class Split(NamedTuple):
    """Trial ids, best first, and the resource of the model."""

    good: np.ndarray
    bad: np.ndarray
    r: int


def good_and_bad(history: History, dim: int, good_percent: int, keep_all_budgets: bool) -> Split | None:
    """The results at the largest level with enough of them, split; None if no level has enough.

    Of N >= D + 1 the best max(D + 1, N good_percent // 100) are good, the next max(D + 1, N (100 - good_percent) // 100) bad, and either
    set must have more than D. A metric that is not finite ranks last.
    """
    trials, resources = np.asarray(history.observed_trials, int), np.asarray(history.observed_resources, int)
    metrics = np.asarray(history.observed_metrics, float)
    metrics = np.where(np.isfinite(metrics), metrics, np.inf)
    at_level = np.isin(resources, history.levels)
    if keep_all_budgets:
        furthest = np.zeros(len(history.trials), int)
        np.maximum.at(furthest, trials[at_level], resources[at_level])
        chosen = np.flatnonzero(at_level & (resources == furthest[trials]))
        return _split(trials[chosen[np.lexsort((metrics[chosen], -resources[chosen]))]], int(furthest.max(initial=0)), dim, good_percent)
    for level in reversed(history.levels):
        chosen = np.flatnonzero(resources == level)
        split = _split(trials[chosen[np.argsort(metrics[chosen], kind="stable")]], level, dim, good_percent)
        if split is not None:
            return split
    return None


def _split(best_first: np.ndarray, r: int, dim: int, good_percent: int) -> Split | None:
    n = len(best_first)
    num_good, num_bad = max(dim + 1, n * good_percent // 100), max(dim + 1, n * (100 - good_percent) // 100)
    good, bad = best_first[:num_good], best_first[num_good : num_good + num_bad]
    return Split(good, bad, r) if min(len(good), len(bad)) > dim else None


def impute(points: np.ndarray, num_choices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """nan replaced by the value of a random other row that has one, by a uniform draw where none has."""
    filled = points.copy()
    for j, num in enumerate(num_choices):
        missing = np.flatnonzero(np.isnan(points[:, j]))
        present = points[~np.isnan(points[:, j]), j]
        if len(missing) and len(present):
            filled[missing, j] = rng.choice(present, size=len(missing))
        elif len(missing):
            filled[missing, j] = rng.integers(num, size=len(missing)) if num else rng.random(len(missing))
    return filled


@dataclass(frozen=True)
class ProductKDE:
    """A product of one kernel per coordinate around each point: Gaussian for numbers (no correction at the borders), Aitchison and
    Aitken's for categories, 1 - h for the same one and h / (c - 1) for another.
    """

    points: np.ndarray  # [n, D]
    num_choices: np.ndarray  # [D] of the domain, 0: a number
    bandwidths: np.ndarray  # [D]
    num_levels: np.ndarray  # [D] c of the kernel

    @classmethod
    def fit(cls, points: np.ndarray, num_choices: np.ndarray, rule: CategoricalRule, min_bandwidth: float) -> ProductKDE:
        """Bandwidths 1.06 std n^(-1 / (4 + D)), not below `min_bandwidth`.

        With `hpbandster` c counts the categories that occur among the points; with `clipped` it is the domain's, the variance of the
        category is half the sum of its indicators' (which for two categories is that of the index), and h stays at or below
        (c - 1) / c, where the kernel is flat.
        """
        n, dim = points.shape
        variance, levels = points.var(0), np.array([len(np.unique(column)) for column in points.T])
        limit = np.full(dim, np.inf)
        if rule == "clipped":
            is_category = num_choices > 0
            frequencies = [
                np.bincount(column.astype(int), minlength=c) / n
                for column, c in zip(points.T[is_category], num_choices[is_category], strict=True)
            ]
            variance[is_category] = [0.5 * np.sum(f * (1 - f)) for f in frequencies]
            levels = num_choices
            limit[is_category] = (num_choices[is_category] - 1) / num_choices[is_category]
        bandwidths = np.minimum(np.maximum(1.06 * np.sqrt(variance) * n ** (-1 / (4 + dim)), min_bandwidth), limit)
        return cls(points, num_choices, bandwidths, levels)

    def density(self, queries: np.ndarray) -> np.ndarray:
        """[m] at [m, D]; with `hpbandster` it can be negative."""
        product = np.ones((len(queries), len(self.points)))
        for j, h in enumerate(self.bandwidths):
            difference = queries[:, j, None] - self.points[None, :, j]
            if self.num_choices[j]:
                # One category among the points would divide by zero in HpBandSter (its issue 100).
                product *= np.where(difference == 0, 1 - h, h / max(self.num_levels[j] - 1, 1))
            else:
                product *= np.exp(-0.5 * (difference / h) ** 2) / (h * np.sqrt(2 * np.pi))
        return product.mean(1)
