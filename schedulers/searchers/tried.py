"""What was suggested so far, as vectors and keys; derived from the history, never edited by hand."""

import numpy as np

from schedulers.encoding import MAX_ENUMERATED, Encoding
from schedulers.history import History

REDRAWS = 100


class Tried:
    """The vectors of all trials, in order of their ids, and the keys that a new configuration must not have."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._vectors: list[np.ndarray] = []
        self._keys: set[bytes] = set()

    def update(self, history: History) -> None:
        """Take in the trials that began since the last call."""
        new = [self._encoding.vector(trial.proposal.config) for trial in history.trials[len(self._vectors) :]]
        if new:
            self._vectors += new
            self._keys.update(self._encoding.keys(np.array(new)))

    def vectors(self) -> np.ndarray:
        """[trials, P]."""
        return np.array(self._vectors).reshape(len(self._vectors), len(self._encoding.space))

    def is_new(self, vectors: np.ndarray) -> np.ndarray:
        """[n] True where the configuration was not suggested before."""
        return np.array([key not in self._keys for key in self._encoding.keys(vectors)], bool)

    def draw(self, rng: np.random.Generator) -> np.ndarray | None:
        """[P] a random configuration that was not tried; None when the space is exhausted.

        A hundred draws first; then, in a space that can be enumerated, any of those left.
        """
        for pool in self._pools(rng):
            fresh = pool[self.is_new(pool)] if len(pool) else pool
            if len(fresh):
                return fresh[0]
        return None

    def _pools(self, rng: np.random.Generator):  # type: ignore[no-untyped-def]
        yield self._encoding.sample(REDRAWS, rng)
        if self._encoding.size <= MAX_ENUMERATED:
            yield rng.permutation(self._encoding.enumerate())
