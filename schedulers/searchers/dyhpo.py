"""DyHPO (Wistuba et al. 2022): whether to go on with a paused trial by one step, and with which, or to begin another.

Every paused trial is scored at its next level, a new configuration at its first one, by expected improvement on the best value observed
at that level. The surrogate is any of `mfgp`, where the paper learns a deep kernel. Its hyperparameters are fitted to a prefix of the
observations (see `refits`), so that scores are a function of the history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from mfgp.query import Known, believe, learn, log_expected_improvement, targets
from schedulers.draws import generator
from schedulers.history import History
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.refits import checkpoint
from schedulers.types import Proposal, Slot

MIN_OBSERVED = 4


class DyHPOSearcher:
    """Scores for `scheduler=stepwise`; with another scheduler it suggests only, improving on the trial's first milestone.

    In `score` the trial id that follows the last trial stands for the next new configuration; until `num_init_random` trials have
    begun its score is inf.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        surrogate: Any,
        seed: int = 0,
        num_init_random: int = 5,
        default_first: bool = True,
        num_fantasies: int = 20,
        num_candidates: int = 500,
    ) -> None:
        for name, value in {"num_init_random": num_init_random, "num_fantasies": num_fantasies, "num_candidates": num_candidates}.items():
            if value < 1:
                raise ValueError(f"searcher.{name}={value} must be at least 1")
        self._random = RandomSearcher(space, seed=seed, default_first=default_first)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self._surrogate, self._seed = surrogate.over(self._encoding.owners()), seed
        self._num_init_random, self._num_fantasies, self._num_candidates = num_init_random, num_fantasies, num_candidates
        self._fitted: tuple[int, Mapping[str, Any]] = (0, {})

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        if self._is_initial(history):
            return self._random.suggest(history, slot)
        self._tried.update(history)
        pool = self._pool(history)
        if len(pool) == 0:
            return None
        values = self._improvement(history, self._encoding.rows(pool), np.full(len(pool), slot.milestone))
        best = int(np.argmax(values))
        note = f"log expected improvement {values[best]:.3g} at r={slot.milestone}"
        return Proposal(self._encoding.configs(pool[best][None])[0], "model", slot.milestone, note)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        if not paused:
            return []
        num = len(history.trials)
        if self._is_initial(history):
            return [np.inf if trial == num else 0.0 for trial, _ in paused]
        self._tried.update(history)
        rows = self._encoding.rows(self._tried.vectors())
        pool = self._encoding.rows(self._pool(history)) if any(trial == num for trial, _ in paused) else rows[:0]
        queries = [(pool if trial == num else rows[trial][None], r) for trial, r in paused]
        resources = np.concatenate([np.full(len(x), r) for x, r in queries])
        values = self._improvement(history, np.concatenate([x for x, _ in queries]), resources) if len(resources) else np.empty(0)
        ends = np.cumsum([len(x) for x, _ in queries])
        return [float(np.max(part, initial=-np.inf)) for part in np.split(values, ends[:-1])]

    def _is_initial(self, history: History) -> bool:
        return len(history.trials) < self._num_init_random or int(np.isfinite(history.observed_metrics).sum()) < MIN_OBSERVED

    def _pool(self, history: History) -> np.ndarray:
        """[<= num_candidates, P] new configurations; all that are left of a finite space."""
        if self._encoding.size <= self._num_candidates:
            pool = self._encoding.enumerate()
        else:
            pool = self._encoding.sample(self._num_candidates, generator(self._seed, "candidates", len(history.trials)))
        pool = pool[self._tried.is_new(pool)]
        if len(pool) == 0 and (left := self._tried.draw(generator(self._seed, "redraw", len(history.trials)))) is not None:
            return left[None]
        return pool

    def _improvement(self, history: History, rows: np.ndarray, resources: np.ndarray) -> np.ndarray:
        """[n] log expected improvement of each row at its resource on the best observed there, on the best anywhere if none was."""
        known, r_max = self._known(history), history.levels[-1]
        num = checkpoint(len(known.y), MIN_OBSERVED)
        if num != self._fitted[0]:
            prefix = known._replace(x=known.x[:num], r=known.r[:num], y=known.y[:num])
            self._fitted = num, learn(self._surrogate, (self._seed, num), prefix)
        at = (resources - 0.5) / r_max
        seed = (self._seed, len(history.trials))
        belief = believe(self._surrogate, self._fitted[1], seed, known, rows, at, num_fantasies=self._num_fantasies)
        z = targets(self._surrogate, known)
        best = np.array([z[known.r == u].min(initial=np.inf) for u in at])
        return log_expected_improvement(belief, np.where(np.isfinite(best), best, z.min())[None])

    def _known(self, history: History) -> Known:
        metrics = np.asarray(history.observed_metrics, float)
        resources = np.asarray(history.observed_resources, int)
        seen = np.isfinite(metrics) & np.isin(resources, history.levels)
        rows, r_max = self._encoding.rows(self._tried.vectors()), history.levels[-1]
        pending = sorted(history.pending.items())
        size = 1 << max(2, (len(pending) - 1).bit_length())
        x = rows[np.asarray(history.observed_trials, int)[seen]]
        pending_r = (np.array([r for _, r in pending], float) - 0.5) / r_max
        return Known(x, (resources[seen] - 0.5) / r_max, metrics[seen], rows[[trial for trial, _ in pending]], pending_r, size)
