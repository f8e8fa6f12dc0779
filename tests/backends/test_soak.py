"""Many short trials on real workers: no process, file handle or checkpoint is left behind, and memory does not grow."""

import gc
import os
from pathlib import Path

import pytest

from schedulers.backends.local import LocalBackend
from schedulers.journal import Journal
from schedulers.run import run
from tests.backends.trials import Curve, scheduler_of


class Short(Curve):
    r_max = 2

    def step(self, job, r, checkpoint_dir):
        if job.trial_id % 50 == 49 and r == 2:
            os._exit(3)  # now and then a worker is replaced


def memory(pid):
    """The resident set in kilobytes."""
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))


def children():
    """The processes that this one has started and not waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def handles(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def soak(folder, num_trials):
    """Run that many trials; compare what a tenth of them had taken with what all of them did."""
    benchmark = Short()
    gc.collect()  # what earlier tests left to be closed some time
    before, journal = (children(), handles()), Journal(folder)
    backend, seen = LocalBackend(benchmark, 2, folder), {}
    scheduler = scheduler_of(benchmark, num_trials, "promotion")
    for event in run(scheduler, backend, journal):
        if event.kind == "job" and event.job.r_from == 0 and event.job.trial_id in (num_trials // 10 + 5, num_trials - 2):
            workers = [worker.process.pid for worker in backend._workers]
            seen[event.job.trial_id] = memory(os.getpid()), handles(), max(map(memory, workers)), max(map(handles, workers))
            assert len(children() - before[0]) == 2
    early, late = seen.values()
    backend.close()
    journal.close()
    assert len(scheduler.history.trials) == num_trials and not scheduler.history.pending
    assert children() <= before[0] and handles() <= before[1]  # fewer, where an earlier test's are gone meanwhile
    # A leak would be one for each of the trials between; a worker may just have a file open.
    assert late[1] <= early[1] + 2 and late[3] <= early[3] + 2
    assert len(os.listdir(folder / "workers")) == 2
    print(f"{num_trials} trials: driver {early[0]} -> {late[0]} kB, worker {early[2]} -> {late[2]} kB, {late[1]} handles")
    assert late[0] < 1.1 * early[0] and late[2] < 1.1 * early[2]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_hundred_short_trials_leave_nothing_behind(tmp_path):
    soak(tmp_path, 100)


@pytest.mark.soak
def test_two_thousand_short_trials_leave_nothing_behind(tmp_path):
    soak(tmp_path, 2000)
