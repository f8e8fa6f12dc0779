"""Worker processes on this machine, one trial each at a time, reused from trial to trial."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from schedulers.backends import failures, slots
from schedulers.backends.driver import Driver, check
from schedulers.backends.process import WorkerProcess
from schedulers.types import Benchmark, Job, Report

STARTUP = 60.0  # seconds that a process may take until it is ready, whatever report_timeout says
EARLY_DEATHS = 3  # of one worker in a row, before it was ready


@dataclass
class _Worker:
    number: int
    process: WorkerProcess
    job: Job | None = None
    num_jobs: int = 0
    is_serving: bool = False  # its process trains the job, or waits for an answer about it; not one in the place of a dead one
    removes: int | None = None  # the trial whose checkpoint the process was told to remove
    r: int = 0  # of the last report received
    delivered: int = 0  # of the last report given to the scheduler
    heard: float = 0.0  # when the process last gave a sign of life, or was told to go on
    num_kills: int = 0  # of the kernel's out-of-memory killer, when the job began
    early_deaths: int = 0
    is_exhausted: bool = False  # its memory ran out: what the process still holds would be missing in its next trial


class LocalBackend:
    """`num_workers` processes; what they print is in `folder`/workers.

    devices, workers_per_device: who sees which accelerator (`slots.plan`). threads_per_worker: CPU threads of a worker's numerical
    libraries (None: the cores divided among the workers). settings: of the `Driver`.
    A worker that dies or hangs fails its trial (a report without a resource) and is replaced. Raises RuntimeError where no trial can
    go on: a worker cannot start, or the disk is full.
    """

    is_simulated = False

    def __init__(
        self,
        benchmark: Benchmark,
        num_workers: int,
        folder: str | Path,
        *,
        devices: Sequence[int | str] | None = None,
        workers_per_device: int = 1,
        threads_per_worker: int | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        _check_threads(threads_per_worker)
        self._driver = Driver(benchmark, folder, **settings)
        self._checkpoints = self._driver.checkpoints
        threads = threads_per_worker or max(1, slots.num_cores() // num_workers)
        base = dict(os.environ if environment is None else environment) | _thread_limits(threads)
        self._environments = [base | slot for slot in slots.plan(num_workers, devices, workers_per_device, base)]
        self._order = count()
        self._reports: list[tuple[float, int, int, int, Report]] = []  # time, order of arrival, worker, its how-manieth job
        (self._driver.folder / "workers").mkdir(parents=True, exist_ok=True)
        self._workers = [_Worker(number, self._spawn(number)) for number in range(num_workers)]

    @staticmethod
    def num_workers(
        asked: int | None, environment: Mapping[str, str], *, devices: Any = None, workers_per_device: int = 1, **settings: Any
    ) -> int:
        """How many workers there will be (None: as many as fit). Raises ValueError where the settings do not fit the machine."""
        _check_threads(settings.get("threads_per_worker"))
        check(**settings)
        return len(slots.plan(asked, devices, workers_per_device, environment))

    def idle(self) -> Sequence[int]:
        return [worker.number for worker in self._workers if worker.job is None]

    def start(self, job: Job, worker: int) -> None:
        target = self._workers[worker]
        if target.process.has_ended:
            target.process.kill()
            self._replace(target)
        target.job, target.is_serving, target.removes = job, True, None
        target.num_jobs += 1
        target.r = target.delivered = job.r_from
        target.heard, target.num_kills = time.monotonic(), failures.num_memory_kills()
        self._checkpoints.start(job.trial_id)
        target.process.send(("job", job, str(self._checkpoints.path(job.trial_id))))

    def next_report(self) -> Report | None:
        while True:
            if self._reports:
                if self._driver.is_too_late(self._reports[0][-1]):
                    return None
                _, _, number, job_number, report = heapq.heappop(self._reports)
                worker = self._workers[number]
                if worker.job is None or worker.num_jobs != job_number:  # it died while it waited for the verdict that ended its job
                    continue
                worker.delivered = report.r or 0
                self._checkpoints.report(report)
                return report
            patience = self._driver.patience()
            if patience == 0 or all(worker.job is None for worker in self._workers):
                return None
            self._listen(patience)
            self._driver.waited()

    def resume(self, trial_id: int, until: int) -> None:
        worker = self._of(trial_id)
        if worker.is_serving:
            worker.heard = time.monotonic()
            worker.process.send(("go", max(until, worker.delivered + 1)))

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        worker = self._of(trial_id)
        worker.job = None
        if worker.is_exhausted:
            worker.process.kill()
            self._replace(worker)
        if worker.is_serving:
            worker.process.send(("end", keep_checkpoint))
            worker.removes = None if keep_checkpoint else trial_id
        elif not keep_checkpoint:
            self._checkpoints.remove(trial_id)
        self._driver.let_go(trial_id, worker.number, keep_checkpoint)

    def now(self) -> float:
        return self._driver.now()

    def decided(self, began: float, suggested: bool) -> float:
        return self.now() - began

    def close(self) -> None:
        """End all workers at once: checkpoints are saved before a resource is reported, so nothing that was reported is lost."""
        idle = [worker for worker in self._workers if worker.job is None]
        for worker in self._workers:
            worker.process.dismiss() if worker in idle else worker.process.kill()
        for worker in idle:
            worker.process.wait()

    def _of(self, trial_id: int) -> _Worker:
        return next(worker for worker in self._workers if worker.job is not None and worker.job.trial_id == trial_id)

    def _spawn(self, number: int) -> WorkerProcess:
        return WorkerProcess(self._driver.pickled, self._environments[number], self._log(number))

    def _log(self, number: int) -> Path:
        return self._driver.folder / "workers" / f"worker-{number}.log"

    def _replace(self, worker: _Worker) -> None:
        """A new process in the place of one that is dead."""
        if worker.removes is not None:
            self._checkpoints.remove(worker.removes)
        worker.process = self._spawn(worker.number)
        worker.is_serving, worker.is_exhausted, worker.removes = False, False, None

    def _listen(self, seconds: float) -> None:
        busy = [worker for worker in self._workers if worker.is_serving and worker.job is not None]
        ready = wait([worker.process.connection for worker in busy], seconds)
        for worker in busy:
            if worker.process.connection in ready:
                self._receive(worker)
            elif worker.process.has_ended:  # though what it forked may still hold its pipe open
                self._died(worker)
            elif (timeout := self._driver.report_timeout) is not None:
                limit = timeout if worker.process.is_ready else max(timeout, STARTUP)
                if time.monotonic() - worker.heard > limit:
                    self._hung(worker, limit)

    def _receive(self, worker: _Worker) -> None:
        worker.heard = time.monotonic()
        try:
            for kind, *content in worker.process.receive():
                if kind == "log":
                    self._driver.on_note(worker.number, *content)
                else:
                    self._reported(worker, *content)
        except EOFError:
            self._died(worker)

    def _reported(self, worker: _Worker, report: Report, moment: float) -> None:
        failures.raise_if_disk_full(report, self._driver.folder)
        worker.r = report.r if report.r is not None else worker.r
        worker.is_exhausted = failures.is_out_of_memory(report.error)
        self._queue(worker, replace(report, time=self._driver.time_of(moment)))

    def _died(self, worker: _Worker) -> None:
        process = worker.process
        worker.early_deaths = 0 if process.is_ready else worker.early_deaths + 1
        code = process.reap()
        if not process.is_ready and (code >= 0 or worker.early_deaths >= EARLY_DEATHS):
            raise RuntimeError(f"worker {worker.number} could not start ({process.last_words()}); all it printed is in {process.log}")
        num_kills = failures.num_memory_kills() - worker.num_kills
        self._replace(worker)
        self._fail(worker, failures.of_process(code, worker.r + 1, process.log, num_kills))

    def _hung(self, worker: _Worker, limit: float) -> None:
        worker.process.kill()
        self._replace(worker)
        self._fail(worker, failures.of_hang(limit, worker.r + 1, self._log(worker.number)))

    def _fail(self, worker: _Worker, error: str) -> None:
        """The trial fails without a resource; it stays the worker's until the scheduler has heard of it."""
        assert worker.job is not None
        self._queue(worker, Report(worker.job.trial_id, None, float("nan"), self.now(), 0.0, error))

    def _queue(self, worker: _Worker, report: Report) -> None:
        heapq.heappush(self._reports, (report.time, next(self._order), worker.number, worker.num_jobs, report))


def _check_threads(threads_per_worker: int | None) -> None:
    if threads_per_worker is not None and threads_per_worker < 1:
        raise ValueError(f"backend.threads_per_worker={threads_per_worker} must be at least 1, or null for an even share")


def _thread_limits(threads: int) -> dict[str, str]:
    names = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, str(threads))
