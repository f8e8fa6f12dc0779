"""How far learning curves differ by noise alone: the automatic epsilon of PASHA (Bohdal et al. 2023), kept up to date report by report.

Two curves that cross at least twice changed places for no lasting reason, so the distance of such a pair is noise. Epsilon is the 90th
percentile of these distances, each taken at the pair's last common resource in the window (low, high]. A pair's state is the sign of its
difference, the number of times that the sign changed, and the distance; a report updates one row of these. Resources that only one of
the two reported do not matter, so reports may be sparse; equal values keep the order that was.

Exact for up to MAX_TRIALS trials in the window. Beyond, it keeps MAX_TRIALS of them, a uniform sample that the seed draws as they come
(Vitter's reservoir), and the pairs among these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from schedulers.draws import Uniforms

MAX_TRIALS = 512
PERCENTILE = 90


class Crossings:
    """The trials that reported in the window (low, high], in slots, and their pairs."""

    def __init__(self, low: int, high: int, seed: int, epsilon: float) -> None:
        self.low, self.high = low, high
        self._epsilon, self._is_stale = epsilon, False
        self._draws = Uniforms(seed, f"window {high}")
        self._num_seen = 0
        self._slots: dict[int, int | None] = {}  # None: the sample does not hold this trial
        self._trials = np.empty(0, int)
        self._columns: dict[int, int] = {}  # resource -> column of `_values`
        self._values = np.empty((0, 0))  # [slot, column], nan: not reported
        self._sign = np.empty((0, 0), np.int8)  # of (row - column) at the last common resource where they differ
        self._changes = np.empty((0, 0), np.uint8)  # of sign, up to 2
        self._distance = np.empty((0, 0))  # nan: no common resource in the window yet
        self._low_high = np.empty((0, 2))  # the values at `low` and `high`; inf: diverged

    def report(self, trial_id: int, curve: Sequence[tuple[int, float]]) -> bool:
        """Take in the last entry of `curve`, (resource, metric), all of this trial's; returns whether anything changed."""
        r = curve[-1][0]
        if not self.low < r <= self.high:
            return False
        if trial_id in self._slots:
            slot = self._slots[trial_id]
            new: Sequence[tuple[int, float]] = curve[-1:]
        else:
            slot = self._slots[trial_id] = self._enter(trial_id)
            new = curve
        if slot is None:
            return False
        for resource, value in new:
            self._update(slot, resource, value)
        return True

    def disagreement(self) -> float:
        """The least epsilon with which the rankings at `low` and `high` agree, over the trials that reported at both.

        They agree when the trial at each position of the ranking at `high` differs, at `low`, by at most epsilon from the trial at that
        position there.
        """
        known = ~np.isnan(self._low_high).any(axis=1)
        low, high = self._low_high[known].T
        order = np.lexsort((self._trials[known], high))
        return float(np.abs(low[order] - np.sort(low)).max(initial=0.0))

    def epsilon(self) -> float:
        """The 90th percentile (linear) of the distances of pairs that crossed twice; while there are none, what it was before."""
        if self._is_stale:
            upper = np.triu(self._changes >= 2, 1) & ~np.isnan(self._distance)
            if upper.any():
                self._epsilon = float(np.percentile(self._distance[upper], PERCENTILE))
            self._is_stale = False
        return self._epsilon

    def _enter(self, trial_id: int) -> int | None:
        """A slot for a trial that is new in the window; None: the sample does without it."""
        number, self._num_seen = self._num_seen, self._num_seen + 1
        if number < MAX_TRIALS:
            if number == len(self._trials):
                self._grow(max(8, 2 * number))
            self._trials[number] = trial_id
            return number
        slot = int(self._draws[number] * self._num_seen)
        if slot >= MAX_TRIALS:
            return None
        self._slots[int(self._trials[slot])] = None
        self._trials[slot] = trial_id
        self._values[slot], self._low_high[slot] = math.nan, math.nan
        for pairs, empty in ((self._sign, 0), (self._changes, 0), (self._distance, math.nan)):
            pairs[slot], pairs[:, slot] = empty, empty
        return slot

    def _update(self, slot: int, r: int, value: float) -> None:
        if r == self.low or r == self.high:
            self._low_high[slot, int(r == self.high)] = value
        if not math.isfinite(value):
            return
        column = self._column(r)
        difference = value - self._values[:, column]  # nan where the other has not reported r
        self._values[slot, column] = value
        before = self._sign[slot]
        sign = np.sign(difference)
        moved = np.isfinite(sign) & (sign != 0)
        after = np.where(moved, sign, before).astype(np.int8)
        self._changes[slot] = np.minimum(2, self._changes[slot] + (after * before == -1))
        self._changes[:, slot] = self._changes[slot]
        self._sign[slot], self._sign[:, slot] = after, -after
        if r > self.low:
            self._distance[slot] = np.where(np.isnan(difference), self._distance[slot], np.abs(difference))
            self._distance[:, slot] = self._distance[slot]
            self._is_stale = True

    def _column(self, r: int) -> int:
        column = self._columns.setdefault(r, len(self._columns))
        if column == self._values.shape[1]:
            self._values = _padded(self._values, (len(self._trials), max(8, 2 * column)), math.nan)
        return column

    def _grow(self, num: int) -> None:
        self._trials = np.concatenate([self._trials, np.zeros(num - len(self._trials), int)])
        self._values = _padded(self._values, (num, self._values.shape[1]), math.nan)
        self._low_high = _padded(self._low_high, (num, 2), math.nan)
        self._sign = _padded(self._sign, (num, num), 0)
        self._changes = _padded(self._changes, (num, num), 0)
        self._distance = _padded(self._distance, (num, num), math.nan)


def _padded(array: np.ndarray, shape: tuple[int, int], fill: float) -> np.ndarray:
    larger = np.full(shape, fill, array.dtype)
    larger[: array.shape[0], : array.shape[1]] = array
    return larger
