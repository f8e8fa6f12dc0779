"""From a distribution to one configuration that is legal and new."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from schedulers.encoding import Encoding
from schedulers.searchers.tried import Tried


def first_new(
    encoding: Encoding, tried: Tried, draw: Callable[[int], np.ndarray], *, block: int = 50, rounds: int = 20
) -> np.ndarray | None:
    """[P] the first of at most block * rounds draws that is legal and was not tried; None if there is none.

    draw(num): [<= num, P] vectors without nan, of which conditions then make inactive what must be.
    """
    for _ in range(rounds):
        vectors = encoding.deactivate(draw(block))
        usable = np.flatnonzero(encoding.is_legal(vectors) & tried.is_new(vectors))
        if len(usable):
            return vectors[usable[0]]
    return None
