"""Workers on a virtual clock: deterministic to the bit, and as fast as the benchmark's iterators."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from schedulers.backends.trial import Segment
from schedulers.types import Benchmark, Job, Report


class SimulatedBackend:
    """`num_workers` workers whose trials take the seconds that the benchmark yields; deciding takes no time.

    A trial's next event exists only once it was told to go on, so a stopped trial leaves nothing behind. Events at the same time are
    delivered in the order in which they were made. After `deadline` seconds nothing is delivered any more.
    """

    is_simulated = True
    default_workers = 4

    def __init__(self, benchmark: Benchmark, num_workers: int, *, deadline: float | None = None, start_cost: float = 0.0) -> None:
        if start_cost < 0:
            raise ValueError(f"backend.start_cost={start_cost} must not be negative")
        self._benchmark, self._deadline, self._start_cost = benchmark, deadline, start_cost
        self._idle = list(range(num_workers))
        self._clock = 0.0
        self._order = count()
        self._events: list[tuple[float, int, Report]] = []
        self._running: dict[int, tuple[Segment, int]] = {}

    @classmethod
    def num_workers(cls, asked: int | None, environment: Mapping[str, str], **settings: Any) -> int:
        """How many workers there will be; any number will do, on any machine."""
        return cls.default_workers if asked is None else asked

    def idle(self) -> Sequence[int]:
        return self._idle

    def start(self, job: Job, worker: int) -> None:
        self._idle.remove(worker)
        self._running[job.trial_id] = Segment(self._benchmark, job, None), worker
        self._pull(job.trial_id, self._start_cost)

    def next_report(self) -> Report | None:
        if not self._events or (self._deadline is not None and self._events[0][0] > self._deadline):
            return None
        self._clock, _, report = heapq.heappop(self._events)
        return Report(report.trial_id, report.r, report.metric, self._clock, report.seconds, report.error)

    def resume(self, trial_id: int, until: int) -> None:
        self._pull(trial_id)

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        segment, worker = self._running.pop(trial_id)
        segment.close()
        insort(self._idle, worker)

    def now(self) -> float:
        return self._clock

    def close(self) -> None:
        for segment, _ in self._running.values():
            segment.close()

    def _pull(self, trial_id: int, delay: float = 0.0) -> None:
        report = self._running[trial_id][0].next()
        # What the host took is not simulated time: a failure without a time of its own happens at once.
        seconds = 0.0 if report.error and report.r is None else report.seconds
        heapq.heappush(self._events, (self._clock + delay + seconds, next(self._order), report))
