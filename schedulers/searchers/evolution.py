"""Regularised evolution (Real et al. 2019): mutate the best of a random sample of the population, from which the oldest leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ConfigSpace import ConfigurationSpace

from schedulers.draws import generator
from schedulers.history import History
from schedulers.searchers.drawing import first_new
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Proposal, Slot


class EvolutionSearcher:
    """Random until `population_size` trials have a result; then a child of the best of `sample_size` members, drawn with replacement.

    A trial joins with its first result at a rung, so that pending trials are no members and with scheduler=fifo members are finished
    runs, as published. Under early stopping the member that reached the higher rung is the better one, and the metric decides
    between equals. The child has one active hyperparameter drawn anew, and what becomes active by it.
    """

    def __init__(
        self, space: ConfigurationSpace, *, population_size: int = 100, sample_size: int = 10, default_first: bool = True, seed: int = 0
    ) -> None:
        for name, value in {"population_size": population_size, "sample_size": sample_size}.items():
            if value < 1:
                raise ValueError(f"searcher.{name}={value} must be at least 1")
        self._random = RandomSearcher(space, seed=seed, default_first=default_first)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self._population_size, self._sample_size, self._seed = population_size, sample_size, seed

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        members = population(history, self._population_size)
        if len(members) < self._population_size:
            return self._random.suggest(history, slot)
        self._tried.update(history)
        rng = generator(self._seed, "evolution", slot.trial_id)
        sample = rng.choice(len(members), size=self._sample_size)
        parent, r, metric = min((members[i] for i in sample), key=lambda member: (-member[1], member[2]))
        vector = self._tried.vectors()[parent]
        child = first_new(self._encoding, self._tried, lambda num: self._children(vector, num, rng))
        if child is None:
            return self._random.suggest(history, slot)
        note = f"child of trial {parent} ({metric:.6g} at r={r})"
        return Proposal(self._encoding.configs(child[None])[0], "model", note=note)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _children(self, parent: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
        full = np.empty((num, len(parent)))
        mutable = [c for c in self._encoding.columns if c.num_categories != 1 and not np.isnan(parent[c.index])]
        chosen = rng.integers(len(mutable), size=num)
        for column in self._encoding.columns:
            drawn = column.sample(num, rng)
            keep = np.full(num, not np.isnan(parent[column.index]))
            if column in mutable:
                keep &= chosen != mutable.index(column)
            full[:, column.index] = np.where(keep, parent[column.index], drawn)
        return full


def population(history: History, size: int) -> list[tuple[int, int, float]]:
    """The `size` youngest members as (trial, largest rung with a result, metric there); what diverged is none.

    Age counts from a trial's first result at a rung, in order of arrival.
    """
    members: dict[int, tuple[int, int, float]] = {}
    for trial, r, metric in zip(history.observed_trials, history.observed_resources, history.observed_metrics, strict=True):
        if r in history.levels and np.isfinite(metric):
            members[trial] = (trial, r, metric)  # a key keeps its first place
    return list(members.values())[-size:]
