"""Random numbers by name: a draw is a function of (seed, purpose, index), not of how many draws came before."""

import numpy as np

BLOCK = 1024


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """An independent generator for this purpose and index (of a trial, say)."""
    return np.random.default_rng([seed, *purpose.encode(), index])


class Uniforms:
    """The i-th uniform number in [0, 1) of a purpose; drawn in blocks, because making a generator costs more than a draw."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._seed, self._purpose, self._number = seed, purpose, -1
        self._block = np.empty(0)

    def __getitem__(self, index: int) -> float:
        number, offset = divmod(index, BLOCK)
        if number != self._number:
            self._block, self._number = generator(self._seed, self._purpose, number).random(BLOCK), number
        return float(self._block[offset])
