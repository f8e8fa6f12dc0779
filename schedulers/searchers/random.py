"""Random search: the i-th configuration is a function of (seed, i), so that searchers with one seed start from the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ConfigSpace import ConfigurationSpace

from schedulers.draws import generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.tried import Tried
from schedulers.types import Config, Proposal, Slot

BLOCK = 256  # drawn, decoded and keyed together: a single configuration costs twenty times its share of a block


class RandomSearcher:
    """Draws from the space (from its priors, where it has some), never the same configuration twice; the default one comes first."""

    def __init__(self, space: ConfigurationSpace, *, seed: int = 0, default_first: bool = True) -> None:
        self.encoding = Encoding(space)
        self.tried = Tried(self.encoding)
        self._seed, self._default_first = seed, default_first
        self._number = -1
        self._configs: list[Config] = []  # of block `_number`
        self._keys: list[bytes] = []
        self._announce: Callable[[Sequence[Config]], None] | None = None

    def announce_to(self, expect: Callable[[Sequence[Config]], None]) -> None:
        """Call `expect` with each block that is drawn: what will be suggested, unless the study ends before."""
        self._announce = expect

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        self.tried.update(history)
        if slot.trial_id == 0 and self._default_first:
            return self._proposal(self.encoding.default(), "default")
        offset = self._find(slot.trial_id)
        if offset < len(self._configs) and self._keys[offset] not in self.tried:
            self.tried.offer(self._configs[offset], self._keys[offset])
            return Proposal(self._configs[offset], "random")
        vector = self.tried.draw(generator(self._seed, "redraw", slot.trial_id))
        return None if vector is None else self._proposal(vector, "random")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _find(self, trial_id: int) -> int:
        """The place of this trial's configuration in its block (where forbidden clauses leave one), which is drawn if need be."""
        number, offset = divmod(trial_id, BLOCK)
        if number != self._number:
            vectors = self.encoding.sample(BLOCK, generator(self._seed, "random", number))
            self._number, self._configs, self._keys = number, self.encoding.configs(vectors), self.encoding.keys(vectors)
            if self._announce is not None:
                self._announce(self._configs)
        return offset

    def _proposal(self, vector: np.ndarray, source: str) -> Proposal:
        return Proposal(self.encoding.configs(vector[None])[0], source)
