"""The loop: free workers ask, reports are judged. A generator, so that journal, records and display are its consumers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from schedulers.types import Backend, Decision, Event, Job, Report, Scheduler


class Log(Protocol):
    """Where an event is made durable before it takes effect (`schedulers.journal.Journal`)."""

    def append(self, event: Event) -> None: ...


def run(scheduler: Scheduler, backend: Backend, log: Log, restarts: Iterable[Job] = ()) -> Iterator[Event]:
    """Run the study until nothing is running and nothing can be started, or the consumer stops iterating.

    Each event is appended to `log` before its effect (a job starts, a trial goes on or gives its worker back). `restarts` are jobs of
    an interrupted study that were running when it ended: they take workers before anything new is asked for.
    """
    jobs: dict[int, tuple[Job, int]] = {}
    waiting = deque(restarts)
    while True:
        while idle := backend.idle():
            event = _next_job(scheduler, backend, waiting)
            if event is None:
                break
            event.worker = idle[0]
            log.append(event)
            jobs[event.job.trial_id] = event.job, idle[0]
            backend.start(event.job, idle[0])
            yield event
        report = backend.next_report()
        if report is None:
            return
        job, worker = jobs[report.trial_id]
        event = _judge(scheduler, backend, job, report)
        event.worker = worker
        log.append(event)
        assert event.verdict is not None
        if event.verdict.decision is Decision.CONTINUE:
            backend.resume(report.trial_id, event.verdict.until)
        else:
            del jobs[report.trial_id]
            backend.release(report.trial_id, keep_checkpoint=event.verdict.decision is Decision.PAUSE)
        yield event


def _next_job(scheduler: Scheduler, backend: Backend, waiting: deque[Job]) -> Event | None:
    began = backend.now()
    if waiting:
        return Event("restart", waiting.popleft(), began)
    job = scheduler.ask()
    if job is None:
        return None
    trial = scheduler.history.trials[job.trial_id]
    now = backend.now()
    proposal = trial.proposal if trial.num_jobs == 1 else None
    return Event("job", job, now, proposal=proposal, decide_seconds=now - began)


def _judge(scheduler: Scheduler, backend: Backend, job: Job, report: Report) -> Event:
    began = backend.now()
    verdict = scheduler.tell(report)
    return Event("report", job, report.time, report=report, verdict=verdict, decide_seconds=backend.now() - began)
