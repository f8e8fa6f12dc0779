"""A worker process: runs one job after another and keeps what it compiled. Started as `python -m schedulers.backends.worker FD`.

From the driver: the pickled benchmark, then ("job", Job, checkpoint folder), ("go", until), ("end", keep_checkpoint).
To the driver: ("ready",), ("report", Report, monotonic time), ("log", text, extra).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from schedulers.backends import failures
from schedulers.backends.process import end_with_parent
from schedulers.backends.trial import Segment
from schedulers.types import Benchmark, Job, Report

OOM_SCORE = "500"  # of 1000: if memory runs out, the kernel is to take the trial that needs so much, not the driver


class Forward(logging.Handler):
    """Sends log records of our packages (such as compile notices) to the driver."""

    def __init__(self, send: Callable[[tuple[Any, ...]], None]) -> None:
        super().__init__(logging.INFO)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: getattr(record, name) for name in ("compile_seconds", "cache_hit") if hasattr(record, name)}
        self._send(("log", record.getMessage(), extra))


def main(fd: int) -> None:
    # Ctrl-C is the driver's to handle, and a worker must not outlive a driver that was killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    connection = Connection(fd)
    forward_notes(connection.send)
    benchmark = pickle.loads(connection.recv_bytes())
    connection.send(("ready",))
    while True:
        try:
            kind, *content = connection.recv()
        except EOFError:
            return
        assert kind == "job"
        job, folder = content
        if not serve(connection, benchmark, job, folder):
            shutil.rmtree(folder, ignore_errors=True)


def forward_notes(send: Callable[[tuple[Any, ...]], None]) -> None:
    """Hand the notices of what runs in this process to `send`, as ("log", text, extra)."""
    logger = logging.getLogger("experiments")
    logger.setLevel(logging.INFO)
    logger.addHandler(Forward(send))


def serve(connection: Connection, benchmark: Benchmark, job: Job, folder: str) -> bool:
    """Train until the driver ends the job; returns whether to keep the checkpoint."""
    segment, problem = prepare(benchmark, job, folder)
    until = max(job.until, job.r_from + 1)
    while True:
        report = problem or segment.next()
        connection.send(("report", report, time.monotonic()))
        blocked = bool(report.error) or report.r is None
        while blocked or connection.poll() or (report.r or 0) >= until:
            kind, value = connection.recv()
            if kind == "end":
                segment.close()
                return bool(value)
            until = max(until, min(value, job.r_to))


def prepare(benchmark: Benchmark, job: Job, folder: str) -> tuple[Segment, Report | None]:
    """The training of `job`, and what to report instead of training if its folder cannot be made."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        return Segment(benchmark, job, folder), Report(job.trial_id, None, float("nan"), error=failures.describe(error))
    if job.r_from > 0 and not os.listdir(folder):  # a script that saves nothing, or an evicted checkpoint: again from scratch
        job = dataclasses.replace(job, r_from=0)
    return Segment(benchmark, job, folder), None


if __name__ == "__main__":
    main(int(sys.argv[1]))
