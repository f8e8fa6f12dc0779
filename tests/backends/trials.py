"""Benchmarks that go wrong on purpose, and a study of them in a few lines. No heavy imports: each is loaded by worker processes."""

import errno
import math
import os
import signal
import time
from pathlib import Path


class Curve:
    """1/r + x, saved as the number r; checks that it goes on where it stopped."""

    mode, metric_name = "min", "loss"
    r_max = 8

    def __init__(self):
        from ConfigSpace import ConfigurationSpace

        self.space = ConfigurationSpace({"x": (0.0, 1.0)})

    def __getstate__(self):
        return self.__dict__ | {"space": None}  # a worker has no use for it, and would import ConfigSpace first

    def train(self, job, checkpoint_dir):
        saved = Path(checkpoint_dir, "r") if checkpoint_dir else None
        start = job.r_from
        if job.r_from and saved:
            start = int(saved.read_text())
            assert start >= job.r_from, f"the checkpoint holds {start}, asked for was {job.r_from}"
        for r in range(job.r_from + 1, job.r_to + 1):
            self.step(job, r, checkpoint_dir)
            if saved and r > start:
                saved.with_suffix(".part").write_text(str(r))
                saved.with_suffix(".part").replace(saved)
            yield r, job.config["x"] + 1 / r, 1.0

    def step(self, job, r, checkpoint_dir): ...


class Once(Curve):
    """Fails once per trial in `num_bad` trials at resource 3, and remembers in `marks` that it did."""

    def __init__(self, marks, way, times=1, every=2):
        super().__init__()
        self.marks, self.way, self.times, self.every = marks, way, times, every

    def step(self, job, r, checkpoint_dir):
        if r != 3 or job.trial_id % self.every:
            return
        for attempt in range(self.times):
            mark = Path(self.marks, f"{job.trial_id}-{attempt}")
            if not mark.exists():
                mark.touch()
                misbehave(self.way)
                return


def misbehave(way):
    if way == "raise":
        raise KeyError("learning_rate")
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "exit":
        os._exit(7)
    if way == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(3600)
    if way == "memory":
        raise MemoryError("cannot allocate 1 TB")
    if way == "xla":
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 137438953472 bytes.")
    if way == "torch":
        try:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        except RuntimeError as error:
            raise ValueError("the step failed") from error
    if way == "full":
        with open("/dev/full", "w") as file:
            file.write("a checkpoint")
    if way == "quota":
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    if way == "nan":
        return math.nan
    return None


class Nothing:
    """A log that keeps nothing."""

    def append(self, event): ...


def scheduler_of(benchmark, limit, variant="stopping", recording=None, seed=3):
    from schedulers.asha import AsyncHyperband
    from schedulers.searchers.random import RandomSearcher
    from schedulers.searchers.wrappers import Recorded, TrialLimit
    from schedulers.types import Recording

    searcher = Recorded(TrialLimit(RandomSearcher(benchmark.space, seed=seed), limit), recording or Recording([]))
    return AsyncHyperband(searcher, r_min=1, r_max=benchmark.r_max, eta=2, variant=variant, seed=1)


def study(backend, benchmark, limit=8, variant="stopping", retries=0, log=None, scheduler=None):
    """Run to the end; returns the scheduler's history and the events."""
    from schedulers.run import run

    scheduler = scheduler or scheduler_of(benchmark, limit, variant)
    try:
        events = list(run(scheduler, backend, log or Nothing(), retries=retries))
    finally:
        backend.close()
    return scheduler.history, events
