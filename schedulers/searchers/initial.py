"""The first trials by design, before any other searcher takes over: the default, points of the user's, quasi-random points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from scipy.stats import qmc

from schedulers.draws import generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.types import Proposal, Searcher, Slot


class InitialDesign:
    """Trial i gets the i-th point of the design; `inner`, made for the space, chooses from then on.

    The design: the space's default if `default_first`, then `initial_points`, each completed by the defaults, then `num_sobol` points
    of a scrambled Sobol sequence, uniform in the encoding. What repeats is dropped; Sobol points that are forbidden are replaced by
    later ones. A searcher that counts its random trials counts these.
    Raises ValueError when a point is not of the space.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        inner: Callable[..., Searcher],
        initial_points: Sequence[Mapping[str, Any]] = (),
        num_sobol: int = 0,
        default_first: bool = True,
        seed: int = 0,
    ) -> None:
        if num_sobol < 0:
            raise ValueError(f"searcher.num_sobol={num_sobol} must not be negative")
        self._encoding = Encoding(space)
        self._searcher = inner(space=space)
        default = [("default", self._encoding.default())] if default_first else []
        own = [("initial", completed(self._encoding, point)) for point in initial_points]
        distinct = self._distinct([*default, *own])
        design = self._distinct([*distinct, *(("initial", vector) for vector in self._sobol(num_sobol, seed))])
        self._design = design[: len(distinct) + num_sobol]

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        if slot.trial_id >= len(self._design):
            return self._searcher.suggest(history, slot)
        source, vector = self._design[slot.trial_id]
        return Proposal(self._encoding.configs(vector[None])[0], source, note=f"initial design, {slot.trial_id + 1} of {len(self._design)}")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)

    def _distinct(self, design: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
        keys = self._encoding.keys(np.array([vector for _, vector in design])) if design else []
        first: dict[bytes, tuple[str, np.ndarray]] = {}
        for key, point in zip(keys, design, strict=True):
            first.setdefault(key, point)
        return list(first.values())

    def _sobol(self, num: int, seed: int) -> np.ndarray:
        """[>= num, P] legal points if the space has them; some more than asked for, because some may repeat others."""
        if num == 0:
            return np.empty((0, len(self._encoding.columns)))
        movable = [column for column in self._encoding.columns if column.num_categories != 1]
        unit = qmc.Sobol(len(movable), rng=generator(seed, "sobol")).random_base2(int(np.ceil(np.log2(16 * num))))
        full = np.empty((len(unit), len(self._encoding.columns)))
        for column in self._encoding.columns:
            full[:, column.index] = column.default
        for column, u in zip(movable, unit.T, strict=True):
            full[:, column.index] = np.floor(u * column.num_categories) if column.num_categories else column.decode(u[:, None])
        vectors = self._encoding.deactivate(full)
        return vectors[self._encoding.is_legal(vectors)]


def completed(encoding: Encoding, point: Mapping[str, Any]) -> np.ndarray:
    """[P] a partial configuration with the defaults of what it does not name. Raises ValueError with one sentence."""
    if not isinstance(point, Mapping):
        raise ValueError(f"initial_points: {point!r} is no mapping from hyperparameters to values")
    point = dict(point)
    try:
        given = encoding.vector(point)
    except ValueError as error:
        raise ValueError(f"initial_points: in {point}, {error}") from error
    defaults = np.empty(len(encoding.columns))
    for column in encoding.columns:
        defaults[column.index] = column.default
    vector = encoding.deactivate(np.where(np.isnan(given), defaults, given)[None])[0]
    for column in encoding.columns:
        if np.isnan(vector[column.index]) and not np.isnan(given[column.index]):
            raise ValueError(f"initial_points: in {point}, {column.hp.name} is inactive: give what it depends on too, or leave it out")
    if not encoding.is_legal(vector[None])[0]:
        raise ValueError(f"initial_points: {point}, completed by the defaults, is forbidden by the space")
    return vector
