"""The median stopping rule (Golovin et al. 2017, as in syne-tune): a trial worse than half of the others at its resource ends there.

A wrapper of any scheduler: what the rule spares, the scheduler inside decides.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from schedulers.history import History
from schedulers.settings import check_whole
from schedulers.types import Decision, Job, Report, Scheduler, Searcher, Verdict


class Withdrawing(Scheduler, Protocol):
    """A scheduler whose running trials may be ended by a rule outside."""

    levels: tuple[int, ...]

    def withdraw(self, trial_id: int) -> None: ...


class BehindMedian(NamedTuple):
    """Why the rule ended a trial; str() is the sentence for the log."""

    r: int
    value: float
    better: int
    n: int
    is_mean: bool

    def __str__(self) -> str:
        what = "running mean" if self.is_mean else "metric"
        return f"{what} {self.value:.6g} at resource {self.r}: {self.better} of {self.n} trials are better there"


class MedianRule:
    """Judges every report that the scheduler inside lets pass with CONTINUE; one at which it pauses or ends the trial is left to it.

    inner: makes the scheduler inside from a searcher (`functools.partial` of its class).
    running_mean: compare the mean of a trial's metrics up to here instead of the metric.
    grace_population: below so many results at a resource nothing is judged there; grace_time: nor below that resource.
    rank_cutoff: the share of better results, among all at that resource, above which a trial ends.
    """

    def __init__(
        self,
        searcher: Searcher,
        *,
        inner: Callable[..., Withdrawing],
        running_mean: bool = True,
        grace_population: int = 5,
        grace_time: int = 1,
        rank_cutoff: float = 0.5,
    ) -> None:
        check_whole("grace_population", grace_population)
        check_whole("grace_time", grace_time)
        if not 0 <= rank_cutoff <= 1:
            raise ValueError(f"scheduler.rank_cutoff={rank_cutoff} must be between 0 and 1 (0.5: the median)")
        self.inner = inner(searcher)
        if not hasattr(self.inner, "withdraw"):
            name = type(self.inner).__name__.lower()
            raise ValueError(f"scheduler.inner={name} cannot be ended between its levels: the median rule needs another scheduler inside")
        self._is_mean = running_mean
        self._grace_population, self._grace_time, self._rank_cutoff = grace_population, grace_time, rank_cutoff
        self._values: dict[int, list[float]] = {}  # resource -> what was compared there, sorted
        self._sums: dict[int, tuple[float, int]] = {}  # running trial -> sum and number of its metrics

    @property
    def history(self) -> History:
        return self.inner.history

    @property
    def levels(self) -> tuple[int, ...]:
        return self.inner.levels

    def ask(self) -> Job | None:
        job = self.inner.ask()
        return None if job is None else replace(job, until=job.r_from + 1)  # each report waits for its answer

    def tell(self, report: Report) -> Verdict:
        is_news = report.r is not None and not self.inner.history.is_repeat(report)
        verdict = self.inner.tell(report)
        behind = self._judge(report) if is_news and not report.error else None
        if verdict.decision is Decision.STOP:
            self._sums.pop(report.trial_id, None)
        if verdict.decision is not Decision.CONTINUE:
            return verdict
        assert report.r is not None
        if behind is None:
            return verdict._replace(until=report.r + 1)
        self.withdraw(report.trial_id)
        return Verdict(Decision.STOP, behind)

    def withdraw(self, trial_id: int) -> None:
        self._sums.pop(trial_id, None)
        self.inner.withdraw(trial_id)

    def _judge(self, report: Report) -> BehindMedian | None:
        """File the report; not None: its trial is behind."""
        assert report.r is not None
        total, num = self._sums.get(report.trial_id, (0.0, 0))
        self._sums[report.trial_id] = total, num = total + report.metric, num + 1
        value = total / num if self._is_mean else report.metric
        if not math.isfinite(value):
            value = math.inf
        values = self._values.setdefault(report.r, [])
        insort(values, value)
        better = bisect_left(values, value)
        if len(values) < self._grace_population or report.r < self._grace_time or better <= self._rank_cutoff * len(values):
            return None
        return BehindMedian(report.r, value, better, len(values), self._is_mean)
