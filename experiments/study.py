"""The running state of a study, as a left fold of its events: records, figures and the live display are views of it.

Metrics are minimised in here, as they are inside the events; a view gives them the user's sign with `sign_of`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from schedulers.types import Decision, Event, Report

STATES = ("running", "paused", "stopped", "completed", "failed")


@dataclass(slots=True)
class TrialRecord:
    """Where a trial stands. `r` is the highest resource it reported, `seconds` all its training, repeated epochs included."""

    trial_id: int
    config: dict[str, Any]
    bracket: int
    source: str
    r_acq: int | None
    started: float
    state: str = "running"
    r: int = 0
    metric: float | None = None  # the last finite one
    best_metric: float | None = None
    best_r: int | None = None
    best_time: float | None = None
    ended: float | None = None  # None while it runs or may go on
    seconds: float = 0.0
    error: str = ""
    worker: int | None = None
    since: float = 0.0  # time of its last event


class ReportRecord(NamedTuple):
    """One report; r is None if the trial died without reporting, metric is None if it was no finite number."""

    trial_id: int
    bracket: int
    r: int | None
    metric: float | None
    time: float
    seconds: float
    worker: int | None
    decision: str
    why: object  # str() of it is the sentence
    incumbent: float | None


@dataclass(slots=True)
class Study:
    """A left fold of a study's events; `add` is the step. Metrics are minimised."""

    r_max: int
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    reports: list[ReportRecord] = field(default_factory=list)
    best: TrialRecord | None = None
    now: float = 0.0
    training: float = 0.0
    deciding: float = 0.0
    suggestions: dict[str, list[float]] = field(default_factory=dict)  # source -> seconds of each

    def add(self, event: Event) -> None:
        self.now = max(self.now, event.time)
        self.deciding += event.decide_seconds
        if event.kind == "report":
            self._report(event)
        else:
            if event.report is not None:  # a failed attempt of a trial that starts again
                self._spend(event)
            self._start(event)

    def counts(self) -> Counter[str]:
        return Counter(trial.state for trial in self.trials.values())

    def worker_seconds(self, workers: int, now: float) -> dict[str, float]:
        """How `workers` spent the time up to `now`: in training, waiting for a decision about themselves, or in neither.

        What a running trial did since its last event counts as training.
        """
        unreported = sum(max(0.0, now - trial.since) for trial in self.trials.values() if trial.state == "running")
        training = self.training + unreported
        # Training is timed by the workers and the whole by the driver: the rest can come out below zero by a rounding.
        idle = max(0.0, workers * now - training - self.deciding)
        return {"training": training, "deciding": self.deciding, "idle": idle}

    def _start(self, event: Event) -> None:
        job, trial = event.job, self.trials.get(event.job.trial_id)
        if trial is None:
            if event.proposal is None:
                raise ValueError(f"the first job of trial {job.trial_id} has no proposal: events are missing before it")
            source = event.proposal.source
            config = {name: _plain(value) for name, value in job.config.items()}
            trial = TrialRecord(job.trial_id, config, job.bracket, source, event.proposal.r_acq, event.time)
            self.trials[job.trial_id] = trial
            self.suggestions.setdefault(source, []).append(event.decide_seconds)
        trial.state, trial.ended, trial.worker, trial.since = "running", None, event.worker, event.time

    def _report(self, event: Event) -> None:
        report, verdict, trial = event.report, event.verdict, self.trials[event.job.trial_id]
        if report is None or verdict is None:
            raise ValueError(f"a report event of trial {event.job.trial_id} carries no report or no verdict")
        self._spend(event)
        trial.since = event.time
        if event.worker is not None:
            trial.worker = event.worker
        is_repeat = report.r is not None and report.r <= trial.r
        metric = float(report.metric) if report.r is not None and math.isfinite(report.metric) else None
        if not is_repeat:
            self._observe(trial, report, metric, event.time)
        trial.state = _state(report, verdict.decision, self.r_max)
        trial.error = report.error
        trial.ended = event.time if trial.state in ("stopped", "completed", "failed") else None
        if not is_repeat:
            incumbent = None if self.best is None else self.best.best_metric
            seen = (trial.trial_id, trial.bracket, report.r, metric, event.time, report.seconds, trial.worker)
            self.reports.append(ReportRecord(*seen, verdict.decision.value, verdict.why, incumbent))

    def _spend(self, event: Event) -> None:
        assert event.report is not None
        self.training += event.report.seconds
        self.trials[event.job.trial_id].seconds += event.report.seconds

    def _observe(self, trial: TrialRecord, report: Report, metric: float | None, time: float) -> None:
        trial.r = trial.r if report.r is None else report.r
        if metric is None:
            return
        trial.metric = metric
        if trial.best_metric is None or metric < trial.best_metric:
            trial.best_metric, trial.best_r, trial.best_time = metric, report.r, time
        if self.best is None or self.best.best_metric is None or metric < self.best.best_metric:
            self.best = trial


def _state(report: Report, decision: Decision, r_max: int) -> str:
    if report.error:
        return "failed"
    if report.r is not None and report.r >= r_max:
        return "completed"
    return {Decision.CONTINUE: "running", Decision.PAUSE: "paused", Decision.STOP: "stopped"}[decision]


def fold(events: Iterable[Event], r_max: int) -> Study:
    study = Study(r_max)
    for event in events:
        study.add(event)
    return study


def sign_of(mode: str) -> float:
    """The factor between the minimised metric and the user's."""
    if mode not in ("min", "max"):
        raise ValueError(f"mode={mode!r} must be 'min' or 'max'")
    return 1.0 if mode == "min" else -1.0


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
