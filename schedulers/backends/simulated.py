"""Workers on a virtual clock: deterministic to the bit, and as fast as the benchmark's iterators."""

from __future__ import annotations

import heapq
import math
import time
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schedulers.backends.trial import Segment
from schedulers.types import Benchmark, Job, Report

ROUNDING = 1e-9  # of an interval: a result that is due at a look is seen then, whatever its sum of seconds was rounded to
RESULT, FREE = 0, 1  # at the same time a result comes first, so that who asks for a job knows of it


@dataclass(slots=True)
class _Running:
    segment: Segment
    job: Job
    worker: int
    start: int  # the how-manieth of this trial
    until: int  # the resource from which on it waits for an answer to every report
    trained: float = 0.0  # when the training for the last report ended; the report may have come later
    r: int = 0
    has_failed: bool = False


class SimulatedBackend:
    """`num_workers` workers whose trials take the seconds that the benchmark yields. Source: algorithms.md section 4.2.

    Events come in the order of (time, results before workers that get free, number of trial or worker), and a free worker is given a
    job when all results of that time are known. A trial's next event exists only once it was told to go on, so a stopped trial leaves
    nothing behind. After `deadline` seconds nothing is delivered and no decision begins; one that was begun is finished, and its trial
    started in vain. Every delay is in seconds:

    start_cost      before a new trial begins to train; resume_cost: before one that was paused or has died does (None: as start_cost)
    stop_latency    until the worker of a trial that was stopped on its way is free; one that has ended or died leaves at once
    report_latency  from a result until the scheduler hears of it; training goes on meanwhile but where an answer is waited for
    poll_interval   results are looked at whenever so many seconds have passed; 0: at once
    worker_speed    how many times as fast as the benchmark says each worker is, one number for each (None: all 1)
    failure_prob    the probability that a trial dies on its way to any one result, at some moment of it; a function of `seed`, trial,
                    start and result, so that a retry may succeed
    decision_time   what deciding takes, while trials train on: `zero`; `measured`, by the host's clock, then no longer deterministic; or
                    [c0, c1, ...], c0 + c1 n + ... seconds for every new configuration, after n reports; that there is no job takes none
    recorded_decisions  what deciding took in an earlier process, which is repeated instead of measured

    Raises ValueError naming the setting for a value out of its range.
    """

    is_simulated = True
    default_workers = 4

    def __init__(
        self,
        benchmark: Benchmark,
        num_workers: int,
        *,
        deadline: float | None = None,
        start_cost: float = 0.0,
        resume_cost: float | None = None,
        stop_latency: float = 0.0,
        report_latency: float = 0.0,
        poll_interval: float = 0.0,
        worker_speed: Sequence[float] | None = None,
        failure_prob: float = 0.0,
        decision_time: str | Sequence[float] = "zero",
        seed: int = 0,
        recorded_decisions: Iterable[float] = (),
    ) -> None:
        resume_cost = start_cost if resume_cost is None else resume_cost
        delays = {"start_cost": start_cost, "resume_cost": resume_cost, "stop_latency": stop_latency}
        _check(delays | {"report_latency": report_latency, "poll_interval": poll_interval}, worker_speed, num_workers, failure_prob)
        self._benchmark, self._deadline = benchmark, deadline
        self._start_cost, self._resume_cost, self._stop_latency = start_cost, resume_cost, stop_latency
        self._report_latency, self._poll_interval = report_latency, poll_interval
        self._speed = [1.0] * num_workers if worker_speed is None else [float(speed) for speed in worker_speed]
        self._failure_prob, self._seed = failure_prob, seed
        self._is_measured, self._coefficients = _decision_time(decision_time)
        self._recorded = iter(recorded_decisions)
        self._idle = list(range(num_workers))
        self._clock = self._asked = 0.0
        self._events: list[tuple[float, int, int, Report | None]] = []
        self._running: dict[int, _Running] = {}
        self._starts: dict[int, int] = {}
        self._num_reports = 0

    @classmethod
    def num_workers(cls, asked: int | None, environment: Mapping[str, str], **settings: Any) -> int:
        """How many workers there will be; any number will do, on any machine."""
        return cls.default_workers if asked is None else asked

    def idle(self) -> Sequence[int]:
        """None while a result is due. The clock moves to when the next worker gets free, if all are busy and nothing comes before."""
        while self._events and not self._is_late(self._events[0][0]):
            at, kind, number, _ = self._events[0]
            if kind == RESULT or (at > self._clock and self._idle):
                break
            heapq.heappop(self._events)
            self._clock = max(self._clock, at)
            insort(self._idle, number)
        is_due = bool(self._events) and self._events[0][0] <= self._clock
        return () if is_due or self._is_late(self._clock) else self._idle

    def start(self, job: Job, worker: int) -> None:
        self._take(worker)
        start = self._starts[job.trial_id] = self._starts.get(job.trial_id, -1) + 1
        begin = self._clock + (self._resume_cost if start else self._start_cost)
        self._running[job.trial_id] = _Running(Segment(self._benchmark, job, None), job, worker, start, job.until, r=job.r_from)
        self._pull(job.trial_id, begin)

    def next_report(self) -> Report | None:
        while self._events:
            if self._is_late(max(self._clock, self._events[0][0])):
                return None
            at, _, number, report = heapq.heappop(self._events)
            self._clock = max(self._clock, at)
            if report is not None:
                self._num_reports += 1
                if report.r is not None:
                    self._running[number].r = report.r
                return Report(number, report.r, report.metric, self._clock, report.seconds, report.error)
            insort(self._idle, number)
        return None

    def resume(self, trial_id: int, until: int) -> None:
        run = self._running[trial_id]
        has_waited = run.r >= run.until  # as the processes of the local backend do
        run.until = until
        self._pull(trial_id, self._clock if has_waited else run.trained)

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        run = self._running.pop(trial_id)
        run.segment.close()
        is_over = run.r >= run.job.r_to or run.has_failed
        heapq.heappush(self._events, (self._clock + (0.0 if is_over else self._stop_latency), FREE, run.worker, None))

    def now(self) -> float:
        if self._is_measured:
            self._asked = time.perf_counter()
        return self._clock

    def decided(self, began: float, suggested: bool) -> float:
        if self._is_measured:
            measured = time.perf_counter() - self._asked
            seconds = next(self._recorded, measured)
        else:
            seconds = sum(c * self._num_reports**k for k, c in enumerate(self._coefficients)) if suggested else 0.0
        self._clock += seconds
        return seconds

    def close(self) -> None:
        for run in self._running.values():
            run.segment.close()

    def _take(self, worker: int) -> None:
        """A retry takes the worker that it has just given back, before that is idle."""
        if worker in self._idle:
            self._idle.remove(worker)
            return
        self._events = [entry for entry in self._events if entry[1:3] != (FREE, worker)]
        heapq.heapify(self._events)

    def _pull(self, trial_id: int, begin: float) -> None:
        """Train from `begin` on for the next report."""
        run = self._running[trial_id]
        report = run.segment.next()
        # What the host took is not simulated time: a failure without a time of its own happens at once.
        seconds = 0.0 if report.error and report.r is None else report.seconds / self._speed[run.worker]
        if self._failure_prob and not report.error:
            fate, moment = np.random.default_rng([self._seed, trial_id, run.start, report.r, *b"failure"]).random(2)
            if fate < self._failure_prob:
                seconds *= moment
                report = Report(trial_id, None, math.nan, error=f"a simulated failure on the way to resource {report.r}")
        if seconds != report.seconds:
            report = replace(report, seconds=seconds)
        run.has_failed = bool(report.error)
        run.trained = begin + seconds
        at = run.trained + self._report_latency
        if self._poll_interval:
            at = max(at, self._poll_interval * math.ceil(at / self._poll_interval - ROUNDING))
        heapq.heappush(self._events, (at, RESULT, trial_id, report))

    def _is_late(self, at: float) -> bool:
        return self._deadline is not None and at > self._deadline


def _check(delays: Mapping[str, float], worker_speed: Sequence[float] | None, num_workers: int, failure_prob: float) -> None:
    for name, value in delays.items():
        if not (_is_number(value) and value >= 0):
            raise ValueError(f"backend.{name}={value} must be a number of seconds, 0 or more")
    if worker_speed is not None:
        if isinstance(worker_speed, str) or not isinstance(worker_speed, Sequence) or len(worker_speed) != num_workers:
            raise ValueError(f"backend.worker_speed={worker_speed} must be a list of {num_workers} numbers, one for each worker")
        if not all(_is_number(speed) and speed > 0 for speed in worker_speed):
            raise ValueError(f"backend.worker_speed={list(worker_speed)} must be positive numbers: 2 trains twice as fast")
    if not (_is_number(failure_prob) and 0 <= failure_prob < 1):
        raise ValueError(f"backend.failure_prob={failure_prob} must be a probability, from 0 to below 1")


def _decision_time(value: Any) -> tuple[bool, list[float]]:
    """Whether it is measured, and else its coefficients."""
    if value in ("zero", "measured"):
        return value == "measured", []
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(_is_number(c) and c >= 0 for c in value):
        raise ValueError(f"backend.decision_time={value} is unknown: choose zero, measured or a list of numbers [c0, c1, ...], 0 or more")
    return False, [float(c) for c in value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
