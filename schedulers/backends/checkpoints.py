"""The folders in which trials keep their state, and how much of the disk those of paused trials may take."""

from __future__ import annotations

import math
import shutil
from bisect import bisect_left, insort
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from schedulers.types import Decision, Event, Report


class _Paused(NamedTuple):
    size: int  # bytes
    r: int
    metric: float


class Checkpoints:
    """`folder`/checkpoints/trial-<number>, one each. With `quota_mb`, those of paused trials take no more than so many megabytes.

    When they do, the least promising go first: those behind the largest share of all results at the resource where they pause, and of
    equal ones the one that is easiest to repeat. A trial whose checkpoint went starts again from scratch if it is promoted.
    """

    def __init__(self, folder: Path, quota_mb: float | None = None) -> None:
        self.folder = folder / "checkpoints"
        self._quota = math.inf if quota_mb is None else quota_mb * 1e6
        self._paused: dict[int, _Paused] = {}
        self._last: dict[int, tuple[int, float]] = {}  # trial -> resource and metric of its last report
        self._results: dict[int, list[float]] = {}  # resource -> the metrics there, sorted

    def path(self, trial_id: int) -> Path:
        return self.folder / f"trial-{trial_id:05d}"

    def remove(self, trial_id: int) -> None:
        shutil.rmtree(self.path(trial_id), ignore_errors=True)

    def report(self, report: Report) -> None:
        """Rank the trial among those that reached its resource (a metric that is no number behind all others)."""
        if report.r is None or report.r <= self._last.get(report.trial_id, (0, 0.0))[0]:
            return
        metric = report.metric if math.isfinite(report.metric) else math.inf
        self._last[report.trial_id] = report.r, metric
        insort(self._results.setdefault(report.r, []), metric)

    def start(self, trial_id: int) -> None:
        self._paused.pop(trial_id, None)

    def end(self, trial_id: int) -> None:
        self._last.pop(trial_id, None)

    def pause(self, trial_id: int) -> list[int]:
        """Count the trial's folder; returns the trials whose checkpoints had to go."""
        r, metric = self._last[trial_id]
        self._paused[trial_id] = _Paused(_size(self.path(trial_id)), r, metric)
        used = sum(paused.size for paused in self._paused.values())
        evicted: list[int] = []
        if used <= self._quota:
            return evicted
        for number in sorted(self._paused, key=self._promise):
            evicted.append(number)
            used -= self._paused.pop(number).size
            self.remove(number)
            if used <= self._quota:
                break
        return evicted

    def restore(self, events: Sequence[Event]) -> None:
        """Take over from an interrupted study; what it did not get round to removing is removed."""
        paused: dict[int, None] = {}  # in the order in which they paused
        for event in events:
            trial_id = event.job.trial_id
            if event.kind != "report":
                paused.pop(trial_id, None)
                continue
            assert event.report is not None and event.verdict is not None
            self.report(event.report)
            if event.verdict.decision is Decision.STOP:
                self.end(trial_id)
                self.remove(trial_id)
            elif event.verdict.decision is Decision.PAUSE:
                paused[trial_id] = None
        for trial_id in paused:
            if self.path(trial_id).is_dir():
                self.pause(trial_id)

    def _promise(self, trial_id: int) -> tuple[float, int, int]:
        """Sorts the least promising first."""
        paused = self._paused[trial_id]
        results = self._results[paused.r]
        return -bisect_left(results, paused.metric) / len(results), paused.r, trial_id


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
