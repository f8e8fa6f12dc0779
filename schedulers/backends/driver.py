"""What the backends with real workers share: their settings, the study's clock and the checkpoints of its trials."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schedulers.backends.checkpoints import Checkpoints
from schedulers.types import Benchmark, Event, Report

Note = Callable[[int, str, Mapping[str, Any]], None]
TICK = 1.0  # seconds


def ignore_note(worker: int, text: str, extra: Mapping[str, Any]) -> None:
    """For a driver that does not want its workers' notices."""


def ignore_wait(now: float) -> None:
    """For a driver with nothing to do while it waits."""


class Driver:
    """A study as the process that runs it sees it, in `folder`: checkpoints are in `folder`/checkpoints/<trial>.

    report_timeout: seconds without a report after which a worker counts as hung and is killed; a first report includes the time to
    compile. checkpoint_quota_mb: see `Checkpoints`. deadline: seconds after which nothing is delivered any more. earlier: the events of
    the interrupted study that goes on. on_note: hears what workers say. on_wait: called about once a second, with the time, while
    nothing is reported.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        folder: str | Path,
        *,
        report_timeout: float | None = None,
        checkpoint_quota_mb: float | None = None,
        deadline: float | None = None,
        earlier: Sequence[Event] = (),
        on_note: Note = ignore_note,
        on_wait: Callable[[float], None] = ignore_wait,
    ) -> None:
        check(report_timeout, checkpoint_quota_mb)
        self.folder = Path(folder).resolve()
        self.pickled = pickle.dumps(benchmark)
        self.checkpoints = Checkpoints(self.folder, checkpoint_quota_mb)
        self.checkpoints.restore(earlier)
        self.report_timeout, self.on_note, self._on_wait, self._deadline = report_timeout, on_note, on_wait, deadline
        self._began = time.monotonic() - max((event.time for event in earlier), default=0.0)

    def now(self) -> float:
        return self.time_of(time.monotonic())

    def time_of(self, moment: float) -> float:
        """On the study's clock, of a moment on the machine's monotonic one."""
        return moment - self._began

    def is_too_late(self, report: Report) -> bool:
        return self._deadline is not None and report.time > self._deadline

    def patience(self) -> float:
        """For how long to wait for a report before `waited`; 0: the study's time is over."""
        return TICK if self._deadline is None else max(0.0, min(TICK, self._deadline - self.now()))

    def waited(self) -> None:
        self._on_wait(self.now())

    def let_go(self, trial_id: int, worker: int, keep_checkpoint: bool) -> None:
        """The trial has left its worker; what does not fit into the disk's quota is removed."""
        if not keep_checkpoint:
            self.checkpoints.end(trial_id)
            return
        for evicted in self.checkpoints.pause(trial_id):
            self.on_note(worker, f"checkpoint of trial {evicted} removed: backend.checkpoint_quota_mb is used up", {})


def check(report_timeout: float | None = None, checkpoint_quota_mb: float | None = None, **others: Any) -> None:
    """Raise ValueError on settings that mean nothing."""
    if report_timeout is not None and not report_timeout > 0:
        raise ValueError(f"backend.report_timeout={report_timeout} must be a positive number of seconds, or null for no limit")
    if checkpoint_quota_mb is not None and not checkpoint_quota_mb > 0:
        raise ValueError(f"backend.checkpoint_quota_mb={checkpoint_quota_mb} must be positive, or null for no limit")
