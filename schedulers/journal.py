"""The journal: one SQLite row per event, committed before the event takes effect. A study is resumed by replaying it.

WAL mode, so that others may read while a study writes; one writer at a time, held by a lock that dies with its process.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from schedulers.history import State
from schedulers.run import again
from schedulers.types import Decision, Event, Job, Proposal, Recording, Report, Scheduler, Verdict

FILE_NAME = "journal.sqlite"


class JournalError(RuntimeError):
    """The journal cannot be used; the message says why and what was kept."""


def hold(folder: str | Path) -> IO[str]:
    """The lock of the journal in `folder`, held until it is closed. Raises JournalError when another process has it."""
    lock = (Path(folder) / f"{FILE_NAME}.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        path = Path(folder) / FILE_NAME
        said = f"{path} is being written by another process: wait for that study, or end it; nothing in it was changed"
        raise JournalError(said) from None
    return lock


class Journal:
    """The events of one study in `folder`. With `batch` > 1 commits are rarer, for simulations that can repeat what was lost.

    `lock`: of `hold`, if the caller has it already; it is closed with the journal. Raises JournalError when another process writes it, or
    when it is damaged.
    """

    def __init__(self, folder: str | Path, batch: int = 1, lock: IO[str] | None = None) -> None:
        self.path = Path(folder) / FILE_NAME
        self._batch, self._uncommitted = batch, 0
        self._lock = lock or hold(folder)
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # safe against a killed process; a power cut may lose the last events
            self._db.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, kind TEXT, time REAL, payload TEXT)")
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise _damaged(self.path, error) from error

    def append(self, event: Event) -> None:
        try:
            if self._uncommitted == 0:
                self._db.execute("BEGIN")
            self._db.execute("INSERT INTO events (kind, time, payload) VALUES (?, ?, ?)", (event.kind, event.time, dumps(event)))
            self._uncommitted += 1
            if self._uncommitted >= self._batch:
                self._commit()
        except sqlite3.Error as error:
            raise self._stuck(error) from error

    def flush(self) -> None:
        """Commit what was appended. After an error there is nothing to commit: the loop ended with the event that was not kept."""
        if self._uncommitted:
            try:
                self._commit()
            except sqlite3.Error as error:
                raise self._stuck(error) from error

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._db.close()
            self._lock.close()

    def _commit(self) -> None:
        self._db.execute("COMMIT")
        self._uncommitted = 0

    def _stuck(self, error: sqlite3.Error) -> JournalError:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._uncommitted = 0
        kept, folder = self._db.execute("SELECT COUNT(*) FROM events").fetchone()[0], self.path.parent
        return JournalError(
            f"{self.path} cannot take event {kept + 1} ({error}): the {kept} events before it and all checkpoints are kept; see to that "
            f"(a full disk needs room), then go on with resume={folder}"
        )


class Checked:
    """The log of a simulation that is run again: what was recorded must come out the same, what is new is appended."""

    def __init__(self, journal: Journal, recording: Recording) -> None:
        self._journal, self._recording = journal, recording

    def append(self, event: Event) -> None:
        if self._recording.is_over:
            return self._journal.append(event)
        expected = self._recording.events[self._recording.repeated]
        if dumps(event) != dumps(expected):
            raise JournalError(
                f"event {self._recording.repeated + 1} of {self._journal.path} does not repeat: the code, the benchmark or the workers "
                f"have changed since (recorded {dumps(expected)}, now {dumps(event)})"
            )
        self._recording.repeated += 1


def read(folder: str | Path) -> Iterator[Event]:
    """The committed events of the study in `folder`, in order; also while it runs. Raises JournalError if there are none to read."""
    path, num = Path(folder) / FILE_NAME, 0
    if not path.exists():
        raise JournalError(f"there is no journal in {folder}: expected {path}")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone() is None:
                return  # its writer was killed before the first event
            for kind, payload in db.execute("SELECT kind, payload FROM events ORDER BY id"):
                num += 1
                yield loads(kind, payload)
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error, num) from error


def replay(scheduler: Scheduler, recording: Recording) -> list[Job]:
    """Bring a fresh scheduler (its searcher wrapped in `Recorded`) to the state after `recording`; returns the jobs that were running.

    Each of those goes on from the last resource that it reported in its last job. Raises JournalError where the scheduler decides
    otherwise than recorded, which means that its settings or its code have changed.
    """
    running: dict[int, Job] = {}
    for number, event in enumerate(recording.events, start=1):
        recording.repeated = number - 1
        if event.kind == "job":
            job = scheduler.ask()
            _compare(number, event.job, job)
        if event.kind != "report":  # a restart or a retry concerns the workers only
            running[event.job.trial_id] = event.job
            continue
        assert event.report is not None and event.verdict is not None
        verdict = scheduler.tell(event.report)
        _compare(number, event.verdict.decision, verdict.decision)
        if verdict.decision is not Decision.CONTINUE:
            del running[event.report.trial_id]
        elif event.report.r is not None:
            running[event.report.trial_id] = again(running[event.report.trial_id], event.report.r)
    recording.repeated = len(recording.events)
    trials = scheduler.history.trials
    assert all(trials[trial_id].state is State.RUNNING for trial_id in running)
    return [again(job, job.r_from) for job in running.values()]


def _compare(number: int, recorded: Any, now: Any) -> None:
    if recorded != now:
        raise JournalError(f"event {number} of the journal does not repeat: recorded was {recorded}, the scheduler now gives {now}")


def _damaged(path: Path, error: Exception, num: int = 0) -> JournalError:
    kept = f"its first {num} events can be read, tables" if num else "tables"
    return JournalError(f"{path} cannot be read to its end ({error}): it is damaged; {kept} and checkpoints beside it are untouched")


def dumps(event: Event) -> str:
    """An event as JSON; floats survive exactly."""
    payload: dict[str, Any] = {"job": _fields(event.job), "time": event.time, "worker": event.worker, "decide": event.decide_seconds}
    payload["job"]["config"] = dict(event.job.config)
    if event.proposal is not None:
        payload["proposal"] = event.proposal._asdict() | {"config": dict(event.proposal.config)}
    if event.report is not None:
        payload["report"] = _fields(event.report)
    if event.verdict is not None:
        payload["verdict"] = [event.verdict.decision.value, str(event.verdict.why), event.verdict.until]
    return json.dumps(payload)


def _fields(message: Job | Report) -> dict[str, Any]:
    """As dataclasses.asdict, which copies deeply and takes ten times as long."""
    return {name: getattr(message, name) for name in message.__slots__}


def loads(kind: str, payload: str) -> Event:
    content = json.loads(payload)
    proposal = Proposal(**content["proposal"]) if "proposal" in content else None
    report = Report(**content["report"]) if "report" in content else None
    verdict = None
    if "verdict" in content:
        decision, why, until = content["verdict"]
        verdict = Verdict(Decision(decision), why, until)
    job = Job(**content["job"])
    return Event(kind, job, content["time"], proposal, report, verdict, content["worker"], content["decide"])
