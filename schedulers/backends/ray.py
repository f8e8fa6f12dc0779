"""Workers as actors on a Ray cluster: one setting, `backend.address`, spreads a study over many nodes.

The study's folder must be shared by the nodes: a trial whose node is lost goes on elsewhere from its checkpoint, unknown to the
scheduler. An actor is asked for one report at a time, so a trial can always be stopped where it waits.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schedulers.backends import failures
from schedulers.backends.actor import Trainer, actor_environment
from schedulers.backends.cluster import connect, disconnect
from schedulers.backends.driver import Driver, check
from schedulers.types import Benchmark, Job, Report

PROBE_SECONDS = 0.2


@dataclass
class _Worker:
    number: int
    actor: Any
    arrival: Any  # the reference of the node that it is on, there once the actor runs
    job: Job | None = None
    call: Any = None  # the reference of the report that it trains for; None: it waits for a verdict
    is_doubtful: bool = False  # `call` only asks whether the actor is still there
    is_stranded: bool = False  # its actor takes the place of a lost one, and has not been seen running yet
    r: int = 0
    until: int = 0
    heard: float = 0.0


class RayBackend:
    """`num_workers` actors; `folder` must be on a file system that all nodes share.

    address: of a running cluster ("auto": the one on this machine, "host:6379"); None: Ray is started here. gpus_per_worker may be a
    fraction. settings: of the `Driver`.
    An actor that dies with its node is replaced, and its trial goes on from its last report; one that dies otherwise fails its trial.
    """

    is_simulated = False

    def __init__(
        self,
        benchmark: Benchmark,
        num_workers: int,
        folder: str | Path,
        *,
        address: str | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._driver = Driver(benchmark, folder, **settings)
        self._checkpoints = self._driver.checkpoints
        self._ray = connect(address)
        self._environment = actor_environment(os.environ if environment is None else environment, gpus_per_worker)
        options = {"num_cpus": cpus_per_worker, "num_gpus": gpus_per_worker, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self._actor_class = self._ray.remote(**options)(Trainer)
        self._reports: deque[tuple[_Worker, Report]] = deque()
        self._workers = [_Worker(number, *self._create()) for number in range(num_workers)]

    @staticmethod
    def num_workers(
        asked: int | None,
        environment: Mapping[str, str],
        *,
        address: str | None = None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        **settings: Any,
    ) -> int:
        """How many workers there will be (None: as many as the cluster has room for now). Raises ValueError where that is too few."""
        check(**settings)
        wanted = {"CPU": ("cpus_per_worker", cpus_per_worker), "GPU": ("gpus_per_worker", gpus_per_worker)}
        for name, share in wanted.values():
            if not share >= 0:
                raise ValueError(f"backend.{name}={share} must not be negative")
        if not cpus_per_worker + gpus_per_worker > 0:
            raise ValueError("backend.cpus_per_worker and backend.gpus_per_worker are both 0: a worker needs a share of something")
        has = connect(address).cluster_resources()
        room = {kind: math.floor(has.get(kind, 0) / share + 1e-9) for kind, (_, share) in wanted.items() if share > 0}
        kind = min(room, key=lambda each: room[each])
        if room[kind] < (asked or 1):
            name, share = wanted[kind]
            raise ValueError(
                f"workers={asked or 1} with backend.{name}={share:g} need {(asked or 1) * share:g} {kind}s, but the Ray cluster has "
                f"{has.get(kind, 0):g}: there is room for {room[kind]}"
            )
        return room[kind] if asked is None else asked

    def idle(self) -> Sequence[int]:
        free = [worker for worker in self._workers if worker.job is None]
        # With nothing running, there is nothing to do but to wait for actors: what they are told before they run is not lost.
        return [worker.number for worker in free if len(free) == len(self._workers) or self._is_there(worker)]

    def start(self, job: Job, worker: int) -> None:
        target = self._workers[worker]
        self._checkpoints.start(job.trial_id)
        target.job, target.r, target.until = job, job.r_from, job.until
        self._begin(target)

    def next_report(self) -> Report | None:
        while not self._reports:
            patience = self._driver.patience()
            calls = {worker.call: worker for worker in self._workers if worker.call is not None}
            if patience == 0 or not calls:
                return None
            done, _ = self._ray.wait(list(calls), timeout=patience)
            for call in done:
                self._receive(calls[call])
            self._check_time()
            self._driver.waited()
        worker, report = self._reports.popleft()
        if self._driver.is_too_late(report):
            return None
        self._checkpoints.report(report)
        # Up to `until` the next resource is begun before the verdict: no decision falls before it.
        if not report.error and report.r is not None and report.r < worker.until:
            self._ask(worker)
        return report

    def resume(self, trial_id: int, until: int) -> None:
        worker = self._of(trial_id)
        worker.until = max(worker.until, until)
        if worker.call is None:
            self._ask(worker)

    def release(self, trial_id: int, keep_checkpoint: bool) -> None:
        worker = self._of(trial_id)
        worker.job = worker.call = None
        if worker.is_stranded:  # it died: its actor knows of no trial
            if not keep_checkpoint:
                self._checkpoints.remove(trial_id)
        else:
            worker.actor.end.remote(None if keep_checkpoint else str(self._checkpoints.path(trial_id)))
        self._driver.let_go(trial_id, worker.number, keep_checkpoint)
        self._take_in(worker)

    def now(self) -> float:
        return self._driver.now()

    def decided(self, began: float, suggested: bool) -> float:
        return self.now() - began

    def close(self) -> None:
        """End all actors, and Ray where it was started for this study."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        disconnect()

    def _of(self, trial_id: int) -> _Worker:
        return next(worker for worker in self._workers if worker.job is not None and worker.job.trial_id == trial_id)

    def _create(self) -> tuple[Any, Any]:
        actor = self._actor_class.remote(self._driver.pickled, self._environment, [entry or os.getcwd() for entry in sys.path])
        return actor, actor.node.remote()

    def _begin(self, worker: _Worker) -> None:
        """Train what is left of the worker's job, from the last report on."""
        assert worker.job is not None
        job = replace(worker.job, r_from=worker.r)
        worker.actor.start.remote(job, str(self._checkpoints.path(job.trial_id)))
        self._ask(worker)

    def _ask(self, worker: _Worker) -> None:
        worker.call, worker.heard = worker.actor.next.remote(), time.monotonic()

    def _is_there(self, worker: _Worker) -> bool:
        if worker.is_stranded and self._ray.wait([worker.arrival], timeout=0)[0]:
            worker.is_stranded, worker.heard = False, time.monotonic()
        return not worker.is_stranded

    def _receive(self, worker: _Worker) -> None:
        try:
            answer = self._ray.get(worker.call)
        except self._ray.exceptions.ActorUnavailableError:  # dead, or out of reach for a moment: the cluster will know
            time.sleep(PROBE_SECONDS)
            worker.is_doubtful, worker.call = True, worker.actor.node.remote()
            return
        except self._ray.exceptions.RayError as error:
            return self._lost(worker, error)
        if worker.is_doubtful:  # it answers again, but its report is lost
            return self._move(worker, "was out of reach")
        worker.call, (report, notes) = None, answer
        for _, text, extra in notes:
            self._driver.on_note(worker.number, text, extra)
        failures.raise_if_disk_full(report, self._driver.folder)
        worker.r = report.r if report.r is not None else worker.r
        worker.is_stranded = False
        self._reports.append((worker, replace(report, time=self.now())))
        if failures.is_out_of_memory(report.error):  # what the process still holds would be missing in its next trial
            self._replace(worker)

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """The actor is gone: with its node, which is nobody's failure, or alone."""
        said = " ".join(str(error).split())
        if getattr(error, "actor_init_failed", False):
            raise RuntimeError(f"worker {worker.number} could not start on the Ray cluster ({failures.last_line(str(error))})")
        if self._is_node_lost(worker):
            return self._move(worker, "is lost")
        self._replace(worker)
        cause = failures.OUT_OF_MEMORY if "low on memory" in said or "OutOfMemory" in type(error).__name__ else ""
        self._fail(worker, f"{cause}{failures.DIED[1]}during resource {worker.r + 1}: {said[:500]}")

    def _move(self, worker: _Worker, fate: str) -> None:
        """Through no fault of its own the trial goes on in another actor, from its last report."""
        assert worker.job is not None
        text = f"its node {fate}: trial {worker.job.trial_id} goes on from resource {worker.r} where there is room"
        self._driver.on_note(worker.number, text, {})
        self._replace(worker)
        self._begin(worker)
        for free in self._workers:
            if free.job is None:
                self._take_in(free)

    def _is_node_lost(self, worker: _Worker) -> bool:
        if not self._ray.wait([worker.arrival], timeout=0)[0]:
            return True  # it never got to run
        try:
            node = self._ray.get(worker.arrival)
        except self._ray.exceptions.RayError:
            return True
        return not any(each["NodeID"] == node and each["Alive"] for each in self._ray.nodes())

    def _check_time(self) -> None:
        timeout = self._driver.report_timeout
        if timeout is None:
            return
        for worker in self._workers:
            if worker.call is None or not self._is_there(worker) or time.monotonic() - worker.heard < timeout:
                continue
            self._replace(worker)
            self._fail(worker, failures.of_hang(timeout, worker.r + 1, Path("the logs of the Ray session")))

    def _replace(self, worker: _Worker) -> None:
        self._ray.kill(worker.actor)
        worker.actor, worker.arrival = self._create()
        worker.is_stranded, worker.is_doubtful, worker.call = True, False, None

    def _fail(self, worker: _Worker, error: str) -> None:
        assert worker.job is not None
        self._reports.append((worker, Report(worker.job.trial_id, None, math.nan, self.now(), 0.0, error)))

    def _take_in(self, free: _Worker) -> None:
        """A trial whose new actor finds no room in the smaller cluster goes on in the actor that has just become free."""
        stranded = next((each for each in self._workers if each.call is not None and not self._is_there(each)), None)
        if stranded is None or not self._is_there(free):
            return
        self._ray.kill(stranded.actor)
        stranded.actor, stranded.arrival, stranded.is_stranded = free.actor, free.arrival, False
        free.actor, free.arrival = self._create()
        free.is_stranded = True
        self._begin(stranded)
