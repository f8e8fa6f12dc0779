"""The loop: free workers ask, reports are judged. A generator, so that journal, records and display are its consumers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from schedulers.types import Backend, Decision, Event, Job, Report, Scheduler


class Log(Protocol):
    """Where an event is made durable before it takes effect (`schedulers.journal.Journal`)."""

    def append(self, event: Event) -> None: ...


def run(
    scheduler: Scheduler,
    backend: Backend,
    log: Log,
    restarts: Iterable[Job] = (),
    retries: int = 0,
    retried: Mapping[int, int] | None = None,
) -> Iterator[Event]:
    """Run the study until nothing is running and nothing can be started, or the consumer stops iterating.

    Each event is appended to `log` before its effect (a job starts, a trial goes on or gives its worker back). `restarts` are jobs of
    an interrupted study that were running when it ended: they take workers before anything new is asked for. A trial that dies without
    a number is started again from its checkpoint, up to `retries` times (`retried`: how often it was before the interruption); the
    scheduler hears of the last failure only.
    """
    jobs: dict[int, tuple[Job, int, int]] = {}  # trial -> job, worker, the last resource that it reported
    num_retries = Counter(retried or {})
    waiting = deque(restarts)
    while True:
        while idle := backend.idle():
            event = _next_job(scheduler, backend, waiting)
            if event is None:
                break
            event.worker = idle[0]
            log.append(event)
            jobs[event.job.trial_id] = event.job, idle[0], event.job.r_from
            backend.start(event.job, idle[0])
            yield event
        report = backend.next_report()
        if report is None:
            return
        job, worker, r = jobs[report.trial_id]
        if report.error and report.r is None and num_retries[job.trial_id] < retries:
            event = Event("retry", again(job, r), report.time, report=report)
        else:
            event = _judge(scheduler, backend, job, report)
        event.worker = worker
        log.append(event)
        if event.verdict is None:
            num_retries[job.trial_id] += 1
            jobs[job.trial_id] = event.job, worker, r
            backend.release(job.trial_id, keep_checkpoint=True)
            backend.start(event.job, worker)
        elif event.verdict.decision is Decision.CONTINUE:
            assert report.r is not None
            jobs[job.trial_id] = job, worker, report.r
            backend.resume(report.trial_id, event.verdict.until)
        else:
            del jobs[report.trial_id]
            backend.release(report.trial_id, keep_checkpoint=event.verdict.decision is Decision.PAUSE)
        yield event


def again(job: Job, r: int) -> Job:
    """What is left of `job`, which has reported up to `r`, when it has to start again: each report waits for its answer at first."""
    return replace(job, r_from=r, until=0)


def retries_used(events: Iterable[Event]) -> Counter[int]:
    """How often each trial was started again after a failure."""
    return Counter(event.job.trial_id for event in events if event.kind == "retry")


def _next_job(scheduler: Scheduler, backend: Backend, waiting: deque[Job]) -> Event | None:
    began = backend.now()
    if waiting:
        return Event("restart", waiting.popleft(), began)
    job = scheduler.ask()
    if job is None:
        return None
    trial = scheduler.history.trials[job.trial_id]
    proposal = trial.proposal if trial.num_jobs == 1 else None
    seconds = backend.decided(began, suggested=proposal is not None)
    return Event("job", job, backend.now(), proposal=proposal, decide_seconds=seconds)


def _judge(scheduler: Scheduler, backend: Backend, job: Job, report: Report) -> Event:
    began = backend.now()
    verdict = scheduler.tell(report)
    seconds = backend.decided(began, suggested=False)
    return Event("report", job, report.time, report=report, verdict=verdict, decide_seconds=seconds)
