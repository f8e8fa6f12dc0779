"""What was suggested so far, as vectors and keys; derived from the history, never edited by hand."""

from __future__ import annotations

import numpy as np

from schedulers.encoding import MAX_ENUMERATED, Encoding
from schedulers.history import History
from schedulers.types import Config

REDRAWS = 100


class Tried:
    """The vectors of all trials, in order of their ids, and the keys that a new configuration must not have."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._keys: set[bytes] = set()
        self._num = 0  # trials whose keys are taken in
        self._vectors = np.empty((0, len(encoding.space)))
        self._unencoded: list[Config] = []  # of the trials after those in `_vectors`, which few searchers ask for
        self._offered: tuple[Config, bytes] | None = None
        self._grid: tuple[np.ndarray, list[bytes]] | None = None  # a finite space, and the keys of its configurations
        self._is_exhausted = False

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def offer(self, config: Config, key: bytes) -> None:
        """Spares `update` the encoding of a configuration whose key is known, should it become the next trial."""
        self._offered = config, key

    def update(self, history: History) -> None:
        """Take in the trials that began since the last call."""
        if self._num == len(history.trials):
            return
        new = [trial.proposal.config for trial in history.trials[self._num :]]
        self._num += len(new)
        self._unencoded += new
        if len(new) == 1 and self._offered is not None and self._offered[0] is new[0]:
            self._keys.add(self._offered[1])
        else:
            self._keys.update(self._encoding.keys(np.array([self._encoding.vector(config) for config in new])))

    def vectors(self) -> np.ndarray:
        """[trials, P]."""
        if self._unencoded:
            new = [self._encoding.vector(config) for config in self._unencoded]
            self._vectors, self._unencoded = np.concatenate([self._vectors, np.array(new)]), []
        return self._vectors

    def is_new(self, vectors: np.ndarray) -> np.ndarray:
        """[n] True where the configuration was not suggested before."""
        return np.array([key not in self._keys for key in self._encoding.keys(vectors)], bool)

    def draw(self, rng: np.random.Generator) -> np.ndarray | None:
        """[P] a random configuration that was not tried; None when the space is exhausted.

        A hundred draws first; then, in a space that can be enumerated, any of those left.
        """
        if self._is_exhausted:
            return None
        pool = self._encoding.sample(REDRAWS, rng)
        fresh = pool[self.is_new(pool)] if len(pool) else pool
        if len(fresh):
            return np.asarray(fresh[0])
        if self._encoding.size > MAX_ENUMERATED:
            return None
        if self._grid is None:
            vectors = self._encoding.enumerate()
            self._grid = vectors, self._encoding.keys(vectors)
        left = [place for place, key in enumerate(self._grid[1]) if key not in self._keys]
        self._is_exhausted = not left
        return None if self._is_exhausted else np.asarray(self._grid[0][rng.choice(left)])
