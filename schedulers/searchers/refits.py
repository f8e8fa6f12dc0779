"""When a model is fitted anew, as a function of the number of observations alone: what depends on it can be computed again any time."""

import math

GROWTH = 1.25


def checkpoint(n: int, first: int) -> int:
    """The largest of first, ⌈1.25 first⌉, ⌈1.25 of that⌉, ... that is at most n; 0 below `first`.

    A model is fitted to the first `checkpoint(n)` observations, so that every history that begins alike gives the same model.
    """
    if n < first:
        return 0
    point = first
    while (following := math.ceil(GROWTH * point)) <= n:
        point = following
    return point
