"""The command as a person uses it: bad input, the README's example, identical repeats, and kill -9 followed by resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from experiments import cli
from experiments.build import build
from schedulers.journal import read
from schedulers.types import Decision, Recording

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ["benchmark=function", "benchmark.target=examples/train_sgd.py:train", "benchmark.space=examples/space.yaml", "benchmark.r_max=9"]
SIMULATED = ["benchmark=curves", "backend=simulated", "budget.seconds=null"]


def attempt(folder, *overrides):
    """What `main` does before anything runs."""
    arguments = cli.prepare([*overrides, f"hydra.run.dir={folder}"])
    with initialize_config_dir(str(cli.CONFIG_DIR), version_base="1.3"):
        build(compose("main", arguments), Path(folder), Recording([]))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["sede=1"], "there is no setting sede; did you mean seed?"),
        (["searcher=gpp"], "searcher=gpp: there is no such searcher; choose .*gp.*random"),
        (["eta=1.5"], "eta=1.5 is too small"),
        (["r_min=50"], "r_min=50 must not exceed r_max=27"),
        (["suggest_ahead=maybe"], "suggest_ahead=maybe must be true or false"),
        (["surrogate_device=tpu"], "surrogate_device=tpu is unknown; valid are cpu, gpu"),
        (["workers=0"], "workers=0 must be a whole number of at least 1"),
        (["workers=two"], "workers=two must be a whole number"),
        (["budget.trials=0"], "budget.trials=0 must be a whole number of at least 1"),
        (["budget.seconds=0"], "budget.seconds=0 must be a positive number"),
        (["r_min=3", "budget.reports=2"], "budget.reports=2 ends before the first milestone: it must be at least r_min=3"),
        (["benchmark=function"], "benchmark.space is missing"),
        ([*EXAMPLE, "benchmark.target=no.such:train"], "there is no module 'no'"),
        ([*EXAMPLE, "benchmark.target=examples/train_sgd.py:fit"], "fit"),
        (["benchmark.dataset=mnist"], "dataset='mnist' is unknown; valid are digits"),
        ([*EXAMPLE, "benchmark.space={hyperparameters: {}}"], "empty|no hyperparameters"),
        (["benchmark.space.hyperparameters.learning_rate.lower=2"], "learning_rate.*lower=2"),
        (["benchmark.space.hyperparameters.learning_rate.lower=0"], "learning_rate.*positive"),
        (["+benchmark.space.hyperparameters.dropout_1.default_value=3"], "dropout_1.*3"),
        (["hydra.run.dir=/proc/nowhere"], "cannot be written"),
        (["resume=no_such_folder"], "is not the folder of a study"),
    ],
)
def test_bad_input_gets_one_clear_sentence_before_anything_runs(overrides, sentence, tmp_path):
    with pytest.raises((cli.UserError, ValueError), match=sentence) as caught:
        attempt(tmp_path, *overrides) if "hydra.run.dir" not in overrides[0] else cli.prepare(overrides)
    assert "\n" not in str(caught.value)


def command(folder, *overrides):
    return [sys.executable, "-m", "experiments.main", f"hydra.run.dir={folder}", *overrides]


def study(folder, *overrides, timeout=200):
    done = subprocess.run(command(folder, *overrides), cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def resume(folder, *overrides):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.main", f"resume={folder}", *overrides], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def kill_after(folder, num_events, *arguments):
    """Run the command, and kill it with SIGKILL once the journal holds that many events."""
    process = subprocess.Popen([sys.executable, "-m", "experiments.main", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        if (Path(folder) / "journal.sqlite").exists() and sum(1 for _ in read(folder)) >= num_events:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the study ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def check_accounts(folder, num_trials):
    """Every trial ended, each (trial, r) was observed once, jobs and reports belong together."""
    trials = pq.read_table(Path(folder) / "trials.parquet").to_pylist()
    reports = pq.read_table(Path(folder) / "reports.parquet").to_pylist()
    assert [trial["trial_id"] for trial in trials] == list(range(num_trials))
    assert {trial["state"] for trial in trials} <= {"paused", "stopped", "completed"}
    observed = [(report["trial_id"], report["r"]) for report in reports]
    assert len(observed) == len(set(observed))
    for trial in trials:
        assert sorted(r for t, r in observed if t == trial["trial_id"]) == list(range(1, trial["r"] + 1))
    running = set()
    for event in read(folder):
        if event.kind == "job":
            assert event.job.trial_id not in running
            running.add(event.job.trial_id)
        elif event.kind == "report" and event.verdict.decision is not Decision.CONTINUE:
            running.remove(event.job.trial_id)
    assert not running


def test_the_readmes_example_script_is_tuned(tmp_path):
    output = study(tmp_path, *EXAMPLE, "budget.trials=14", "workers=2")
    check_accounts(tmp_path, 14)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["trials_by_source"]["model"] == 4
    assert summary["run"]["processor"] and set(summary["run"]["threads"]) == {
        "NPROC",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "XLA_FLAGS",
    }
    assert summary["run"]["threads"]["OPENBLAS_NUM_THREADS"]
    assert summary["best"]["metric"] < 0.1
    assert "Best metric" in output and "Next: " in output and "\x1b" not in output
    for name in ("figures/regret.png", "figures/trace.png", "journal.sqlite", "study.log", ".hydra/config.yaml"):
        assert (tmp_path / name).stat().st_size > 0
    log = (tmp_path / "study.log").read_text()
    assert "new in bracket" in log and "from the model at r_acq=" in log and "too few to judge" in log


def test_a_simulated_study_repeats_to_the_byte(tmp_path):
    for name in "ab":
        study(tmp_path / name, *SIMULATED, "budget.trials=16", "scheduler=promotion")
    for table in ("trials.parquet", "reports.parquet"):
        assert (tmp_path / "a" / table).read_bytes() == (tmp_path / "b" / table).read_bytes()


@pytest.mark.parametrize("scheduler", ["stopping", "promotion"])
def test_a_study_killed_three_times_goes_on_where_it_was(scheduler, tmp_path):
    overrides = [*EXAMPLE, f"scheduler={scheduler}", "budget.trials=24", "searcher.num_init_random=20", "workers=2"]
    kill_after(tmp_path, 15, f"hydra.run.dir={tmp_path}", *overrides)
    kill_after(tmp_path, 40, f"resume={tmp_path}")
    kill_after(tmp_path, 60, f"resume={tmp_path}")
    before = [event.job for event in read(tmp_path)]
    resume(tmp_path)
    after = list(read(tmp_path))
    assert [event.job for event in after][: len(before)] == before
    assert any(event.kind == "restart" for event in after)
    check_accounts(tmp_path, 24)


def test_a_killed_simulation_ends_with_the_tables_of_an_uninterrupted_one(tmp_path):
    overrides = [*SIMULATED, "budget.trials=400", "searcher=random", "benchmark.r_max=81", "workers=3"]
    study(tmp_path / "whole", *overrides)
    kill_after(tmp_path / "cut", 1000, f"hydra.run.dir={tmp_path / 'cut'}", *overrides)
    resume(tmp_path / "cut")
    for table in ("trials.parquet", "reports.parquet"):
        assert (tmp_path / "whole" / table).read_bytes() == (tmp_path / "cut" / table).read_bytes()


def test_a_finished_study_takes_a_larger_budget_and_nothing_else(tmp_path):
    study(tmp_path, *SIMULATED, "budget.trials=5")
    resume(tmp_path, "budget.trials=8")
    assert pq.read_table(tmp_path / "trials.parquet").num_rows == 8
    with pytest.raises(cli.UserError, match="searcher=random cannot change while a study is resumed"):
        cli.prepare([f"resume={tmp_path}", "searcher=random"])


def test_ctrl_c_keeps_everything_and_names_the_resume_command(tmp_path):
    process = subprocess.Popen(command(tmp_path, *EXAMPLE, "searcher=random"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "journal.sqlite").exists() or sum(1 for _ in read(tmp_path)) < 10:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"resume={os.path.relpath(tmp_path, ROOT)}" in output
    resume(tmp_path, "budget.trials=12")
    check_accounts(tmp_path, pq.read_table(tmp_path / "trials.parquet").num_rows)
