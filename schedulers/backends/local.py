"""Worker processes on this machine, one trial each at a time, reused from trial to trial."""

from __future__ import annotations

import heapq
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from schedulers.types import Benchmark, Job, Report

Note = Callable[[int, str, Mapping[str, Any]], None]
TICK = 1.0  # seconds
PATIENCE = 5.0  # seconds


def ignore_note(worker: int, text: str, extra: Mapping[str, Any]) -> None:
    """For a driver that does not want its workers' notices."""


def ignore_wait(now: float) -> None:
    """For a driver with nothing to do while it waits."""


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    log: IO[bytes]
    ready: bool = False
    job: Job | None = None
    r: int = 0  # of the last report received
    delivered: int = 0  # of the last report given to the scheduler


class LocalBackend:
    """`num_workers` processes; checkpoints in `folder`/checkpoints/<trial>, what workers print in `folder`/workers.

    threads_per_worker: CPU threads of a worker's numerical libraries (None: the cores divided among the workers).
    deadline: seconds after which nothing is delivered any more. elapsed: seconds an interrupted study had already taken.
    on_wait: called about once a second, with the time, while nothing is reported.
    A worker that dies fails its trial (a report without a resource) and is started again.
    """

    is_simulated = False

    def __init__(
        self,
        benchmark: Benchmark,
        num_workers: int,
        folder: str | Path,
        *,
        deadline: float | None = None,
        elapsed: float = 0.0,
        on_note: Note = ignore_note,
        on_wait: Callable[[float], None] = ignore_wait,
        environment: Mapping[str, str] | None = None,
        threads_per_worker: int | None = None,
    ) -> None:
        if threads_per_worker is not None and threads_per_worker < 1:
            raise ValueError(f"backend.threads_per_worker={threads_per_worker} must be at least 1, or null for an even share")
        self._folder = Path(folder).resolve()
        self._deadline, self._on_note, self._on_wait = deadline, on_note, on_wait
        self._pickled = pickle.dumps(benchmark)
        threads = threads_per_worker or max(1, (os.cpu_count() or 1) // num_workers)
        self._environment = dict(os.environ if environment is None else environment) | _thread_limits(threads)
        self._began = time.monotonic() - elapsed
        self._order = count()
        self._reports: list[tuple[float, int, Report]] = []
        (self._folder / "workers").mkdir(parents=True, exist_ok=True)
        self._workers = [self._spawn(number) for number in range(num_workers)]

    def idle(self) -> Sequence[int]:
        return [worker.number for worker in self._workers if worker.job is None]

    def start(self, job: Job, worker: int) -> None:
        if self._workers[worker].process.poll() is not None:
            self._respawn(worker)
        target = self._workers[worker]
        target.job, target.r = job, job.r_from
        self._send(target, ("job", job, str(self._folder / "checkpoints" / f"trial-{job.trial_id:05d}")))

    def next_report(self) -> Report | None:
        while not self._reports:
            busy = [worker for worker in self._workers if worker.job is not None]
            left = TICK if self._deadline is None else self._deadline - self.now()
            if not busy or left <= 0:
                return None
            ready = wait([worker.connection for worker in busy], min(TICK, left))
            for worker in busy:
                if worker.connection in ready:
                    self._receive(worker)
            self._on_wait(self.now())
        if self._deadline is not None and self._reports[0][0] > self._deadline:
            return None
        report = heapq.heappop(self._reports)[2]
        self._of(report.trial_id).delivered = report.r or 0
        return report

    def resume(self, trial_id: int, until: int) -> None:
        worker = self._of(trial_id)
        self._send(worker, ("go", max(until, worker.delivered + 1)))

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        worker = self._of(trial_id)
        worker.job = None
        self._send(worker, ("end", keep_checkpoint))

    def now(self) -> float:
        return time.monotonic() - self._began

    def close(self) -> None:
        """End all workers at once: checkpoints are saved before a resource is reported, so nothing that was reported is lost."""
        for worker in self._workers:
            worker.connection.close()
            if worker.job is not None:
                worker.process.kill()
        for worker in self._workers:
            try:
                worker.process.wait(PATIENCE)  # an idle one finds its pipe closed, after it has cleaned up behind its last trial
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.log.close()

    def _of(self, trial_id: int) -> _Worker:
        return next(worker for worker in self._workers if worker.job is not None and worker.job.trial_id == trial_id)

    def _spawn(self, number: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        log = (self._folder / "workers" / f"worker-{number}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "schedulers.backends.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=self._environment | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        theirs.close()
        worker = _Worker(number, process, ours, log)
        self._send(worker, self._pickled)
        return worker

    def _respawn(self, number: int) -> None:
        dead = self._workers[number]
        dead.connection.close()
        dead.log.close()
        self._workers[number] = self._spawn(number)

    def _send(self, worker: _Worker, message: Any) -> None:
        try:
            if isinstance(message, bytes):
                worker.connection.send_bytes(message)
            else:
                worker.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker died: `_receive` finds the closed pipe and reports it

    def _receive(self, worker: _Worker) -> None:
        try:
            while worker.connection.poll():
                kind, *content = worker.connection.recv()
                if kind == "ready":
                    worker.ready = True
                elif kind == "log":
                    self._on_note(worker.number, *content)
                else:
                    self._queue(worker, *content)
        except (EOFError, ConnectionResetError):
            self._died(worker)

    def _queue(self, worker: _Worker, report: Report, moment: float) -> None:
        at = moment - self._began
        worker.r = report.r if report.r is not None else worker.r
        stamped = Report(report.trial_id, report.r, report.metric, at, report.seconds, report.error)
        heapq.heappush(self._reports, (at, next(self._order), stamped))

    def _died(self, worker: _Worker) -> None:
        code = worker.process.wait()
        log = self._folder / "workers" / f"worker-{worker.number}.log"
        if not worker.ready:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise RuntimeError(f"worker {worker.number} could not start ({tail[0]}); all it printed is in {log}")
        assert worker.job is not None
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        error = f"the worker process {how} during resource {worker.r + 1}; what it printed is in {log}"
        report = Report(worker.job.trial_id, None, float("nan"), self.now(), 0.0, error)
        heapq.heappush(self._reports, (self.now(), next(self._order), report))
        job = worker.job
        self._respawn(worker.number)
        self._workers[worker.number].job = job  # until the scheduler has heard of it and releases the worker


def _thread_limits(threads: int) -> dict[str, str]:
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(threads))
