"""Random search: the i-th configuration is a function of (seed, i), so that searchers with one seed start from the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ConfigSpace import ConfigurationSpace

from schedulers.draws import generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.tried import Tried
from schedulers.types import Proposal, Slot

BLOCK = 64


class RandomSearcher:
    """Draws from the space (from its priors, where it has some), never the same configuration twice; the default one comes first."""

    def __init__(self, space: ConfigurationSpace, *, seed: int = 0, default_first: bool = True) -> None:
        self.encoding = Encoding(space)
        self.tried = Tried(self.encoding)
        self._seed, self._default_first = seed, default_first
        self._number, self._block = -1, np.empty((0, 0))

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        self.tried.update(history)
        if slot.trial_id == 0 and self._default_first:
            return self._proposal(self.encoding.default(), "default")
        vector: np.ndarray | None = self._drawn(slot.trial_id)
        if vector is None or not self.tried.is_new(vector[None])[0]:
            vector = self.tried.draw(generator(self._seed, "redraw", slot.trial_id))
        return None if vector is None else self._proposal(vector, "random")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _drawn(self, trial_id: int) -> np.ndarray | None:
        number, offset = divmod(trial_id, BLOCK)
        if number != self._number:
            self._block, self._number = self.encoding.sample(BLOCK, generator(self._seed, "random", number)), number
        return self._block[offset] if offset < len(self._block) else None

    def _proposal(self, vector: np.ndarray, source: str) -> Proposal:
        return Proposal(self.encoding.configs(vector[None])[0], source)
