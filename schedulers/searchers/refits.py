"""When a model is fitted anew: at checkpoints of the number of observations alone, or by the skip strategies of Klein et al. 2020, B.1.

What depends on the number of observations alone can be computed again any time; the skip strategies carry what was `Seen`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

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


class Seen(NamedTuple):
    """The data at a suggestion: all observations, those at r_max, and how often there was news without a refit."""

    num_observed: int = 0
    num_final: int = 0
    num_skipped: int = 0


class RefitSchedule(NamedTuple):
    """Below `always_below` observations at every suggestion that brings new data, from then on at every `period`-th that brings news.

    on: what is news: `any` new observation, or one at `r_max`.
    """

    always_below: int
    period: int
    on: Literal["any", "r_max"]

    def is_due(self, last: Seen, num_observed: int, num_final: int) -> bool:
        """Whether to refit to `num_observed` observations; asking again does not use up the period."""
        if num_observed == last.num_observed:
            return False
        return num_observed < self.always_below or last.num_skipped + self._is_news(last, num_observed, num_final) >= self.period

    def after(self, last: Seen, num_observed: int, num_final: int, refitted: bool) -> Seen:
        skipped = last.num_skipped + self._is_news(last, num_observed, num_final)
        return Seen(num_observed, num_final, 0 if refitted else skipped)

    def _is_news(self, last: Seen, num_observed: int, num_final: int) -> bool:
        return num_final != last.num_final if self.on == "r_max" else num_observed != last.num_observed
