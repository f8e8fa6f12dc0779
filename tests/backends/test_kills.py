"""kill -9 of the main process at random events, again and again, each time followed by resume: nothing is lost, nothing counted twice.

The processes are forked from one that has imported everything (but started no JAX backend), so that a start costs little; each of them
runs the whole command and shoots itself at the event it was told.
"""

import multiprocessing
import os
import random
import signal
import sys

import pytest

from schedulers.journal import FILE_NAME, read
from tests.backends.test_disk import LIGHT
from tests.test_main import ROOT, check_accounts

SIMULATED = ["benchmark=curves", "backend=simulated", "budget.seconds=null", "benchmark.r_max=27", "workers=4"]
IMPORTS = ["experiments.main", "experiments.build", "experiments.display", "experiments.plots", "experiments.records"]
IMPORTS += ["experiments.benchmarks.synthetic", "experiments.benchmarks.function", "schedulers.backends.local", "schedulers.journal"]
PHASES = ("before the event is recorded", "between record and effect", "while the tables are written")


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    yield context
    multiprocessing.forkserver._forkserver._stop()


def command(arguments, at, phase):
    """The whole command, in a process of its own, which kills itself at its `at`-th new event (0: never)."""
    from experiments import main, plots, records
    from schedulers.journal import Journal

    os.chdir(ROOT)
    os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # as if it had been started by python -m
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    append, write, num = Journal.append, records.write, 0

    def shoot(now):
        if at and phase == now:
            os.kill(os.getpid(), signal.SIGKILL)

    def shooting_append(self, event):
        nonlocal num
        num += 1
        if num == at:
            shoot(PHASES[0])
        append(self, event)
        if num == at:
            shoot(PHASES[1])

    def shooting_write(*content):
        shoot(PHASES[2])
        write(*content)

    Journal.append, records.write = shooting_append, shooting_write
    plots.trace = plots.regret = lambda *content, **settings: None  # to draw hundreds of trials takes longer than all the rest
    sys.argv = ["main", *arguments]
    main.main()


def run_command(processes, arguments, at=0, phase=""):
    """How the process ended."""
    process = processes.Process(target=command, args=(arguments, at, phase))
    process.start()
    process.join(200)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode


def kill_and_resume(processes, folder, overrides, num_kills, reach, rng):
    """Start the study and kill it `num_kills` times, at most `reach` new events on each time; then let it end."""
    num = 0
    while num < num_kills:
        is_begun = (folder / FILE_NAME).exists() and (folder / ".hydra" / "config.yaml").exists()
        arguments = [f"resume={folder}"] if is_begun else [f"hydra.run.dir={folder}", *overrides]
        before = [event.job for event in read(folder)] if is_begun else []
        code = run_command(processes, arguments, rng.randint(1, reach), rng.choice(PHASES[:2]))
        if code == 0:  # it was over before
            break
        assert code == -signal.SIGKILL
        assert [event.job for event in read(folder)][: len(before)] == before
        num += 1
    assert run_command(processes, [f"resume={folder}"], 1, PHASES[2]) == -signal.SIGKILL
    assert run_command(processes, [f"resume={folder}"]) == 0
    return num


def tables(folder):
    return [(folder / name).read_bytes() for name in ("trials.parquet", "reports.parquet")]


def simulated_kills(processes, tmp_path, num_kills, trials, scheduler, searcher, seed):
    overrides = [*SIMULATED, f"budget.trials={trials}", f"scheduler={scheduler}", f"searcher={searcher}", f"seed={seed}"]
    assert run_command(processes, [f"hydra.run.dir={tmp_path / 'whole'}", *overrides]) == 0
    events = sum(1 for _ in read(tmp_path / "whole"))
    # A simulation commits every 1000 events: some kills lose what was not committed yet, some come after.
    reach = max(1500, 2 * events // num_kills)
    done = kill_and_resume(processes, tmp_path / "cut", overrides, num_kills, reach, random.Random(seed))
    assert done >= num_kills // 2
    assert tables(tmp_path / "cut") == tables(tmp_path / "whole")


def local_kills(processes, tmp_path, num_kills, trials, scheduler, seed):
    overrides = [*LIGHT, f"scheduler={scheduler}", f"budget.trials={trials}", "budget.seconds=3000", f"seed={seed}"]
    done = kill_and_resume(processes, tmp_path, overrides, num_kills, max(2, 8 * trials // num_kills), random.Random(seed))
    assert done >= num_kills // 2
    check_accounts(tmp_path, trials)
    assert any(event.kind == "restart" for event in read(tmp_path))


def test_ten_kills_leave_a_simulation_with_the_tables_of_an_uninterrupted_one(processes, tmp_path):
    simulated_kills(processes, tmp_path, 10, 600, "promotion", "random", seed=1)


def test_ten_kills_leave_every_trial_of_real_workers_accounted_for(processes, tmp_path):
    local_kills(processes, tmp_path, 10, 30, "promotion", seed=2)


@pytest.mark.soak
@pytest.mark.parametrize("scheduler", ["stopping", "promotion", "hyperband", "pasha", "median"])
@pytest.mark.parametrize("searcher", ["random", "kde"])
def test_a_hundred_kills_of_simulations(scheduler, searcher, processes, tmp_path):
    simulated_kills(processes, tmp_path, 10, 1000, scheduler, searcher, seed=3)


@pytest.mark.soak
@pytest.mark.parametrize("scheduler", ["stopping", "promotion"])
def test_a_hundred_kills_of_real_workers(scheduler, processes, tmp_path):
    local_kills(processes, tmp_path, 50, 100, scheduler, seed=4)
