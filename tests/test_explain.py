"""The plan before a study, and the reasons after it."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from experiments import explain
from experiments.benchmarks.synthetic import Curves
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.hyperband import Hyperband
from schedulers.journal import Journal
from schedulers.median import MedianRule
from schedulers.pasha import Pasha
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import TrialLimit
from tests.streams import Numbered

LEVELS = {"r_min": 1, "r_max": 9, "eta": 3}
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_forecast_of_a_bracket_of_successive_halving_is_its_table(num_workers):
    """9 @ 1, 3 @ 3, 1 @ 9 with checkpoints: 9 + 3 * 2 + 6 resources."""
    make = partial(Hyperband, **LEVELS, max_brackets=1)
    plan = explain.forecast(make, num_workers, 0)
    assert plan.reached == {1: 9, 3: 3, 9: 1}
    assert plan.trained == 21
    assert plan.span == (21 if num_workers == 1 else 9 / 3 + 2 + 6)


def test_the_forecast_counts_what_is_trained_twice():
    from_scratch = explain.forecast(partial(Hyperband, **LEVELS, max_brackets=1, resume_from="scratch"), 1, 0)
    assert from_scratch.trained == 9 + 3 * 3 + 9


def test_the_forecast_keeps_to_the_budget():
    make = partial(AsyncHyperband, **LEVELS)
    assert sum(explain.forecast(make, 2, 0, trials=17).by_bracket.values()) == 17
    assert explain.forecast(make, 2, 0, duration=20.0).span <= 20
    full = partial(AsyncHyperband, r_min=9, r_max=9)
    assert explain.forecast(full, 4, 0, duration=30.0).reached == {9: 12}  # four workers, three full trainings each


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (AsyncHyperband(Numbered(), **LEVELS, brackets=3), "bracket 0: starts at 1, with probability 0.5455"),
        (AsyncHyperband(Numbered(), **LEVELS, brackets=3, bracket_law="parallel"), "all 3 brackets at once"),
        (Hyperband(Numbered(), **LEVELS, brackets=3), "bracket 1: 5 @ 3, 2 @ 9"),
        (Pasha(Numbered(), **LEVELS), "trials may reach 3, more only if rankings change, up to 9"),
        (MedianRule(Numbered(), inner=partial(Hyperband, **LEVELS)), "bracket 0: 9 @ 1, 3 @ 3, 1 @ 9"),
    ],
)
def test_the_outline_says_what_is_fixed_before_the_study(scheduler, said):
    assert said in "\n".join(explain.outline(scheduler))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    curves = Curves(r_max=9)
    scheduler = AsyncHyperband(TrialLimit(RandomSearcher(curves.space), 12), **LEVELS, variant="promotion", resume_from="scratch")
    journal = Journal(folder, 1000)
    for _ in run(scheduler, SimulatedBackend(curves, 3), journal):
        pass
    journal.close()
    return folder


def test_a_trials_life_is_told_from_the_journal(folder, capsys):
    explain.main([str(folder)])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + 12
    completed = next(int(row.split()[0]) for row in rows[2:] if row.split()[2] == "completed")
    paused = next(int(row.split()[0]) for row in rows[2:] if row.split()[2:4] == ["paused", "1"])
    explain.main([str(folder), str(completed)])
    life = capsys.readouterr().out
    assert "promoted, from r=0 to r=3 (from scratch)" in life and "reached r_max=9" in life
    explain.main([str(folder), str(paused)])
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("it stayed paused: at the end ") and "of the 12 results at r=1 in bracket 0 were better, and 4 went on" in told


@pytest.mark.parametrize("arguments", [["99"], None])
def test_what_is_not_there_is_said_in_one_sentence(folder, tmp_path, capsys, arguments):
    with pytest.raises(SystemExit):
        explain.main([str(tmp_path)] if arguments is None else [str(folder), *arguments])
    error = capsys.readouterr().err
    assert error.startswith("error: there is no ") and error.count("\n") == 1


def explained(*arguments):
    command = [sys.executable, "-m", "experiments.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)


def test_the_command_prints_the_plan_and_starts_nothing(tmp_path):
    settings = ["benchmark=curves", "backend=simulated", "searcher=random", "budget.trials=20", f"hydra.run.dir={tmp_path / 'run'}"]
    done = explained("--explain", "scheduler=hyperband", *settings)
    assert done.returncode == 0, done.stderr
    assert "bracket 0: 27 @ 1, 9 @ 3, 3 @ 9, 1 @ 27" in done.stdout
    assert "trials that begin           20.0" in done.stdout and "wall-clock time" in done.stdout
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_a_time_that_is_none():
    done = explained("--explain=fast")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --explain=fast must be the seconds")


def test_a_plan_says_that_hypertune_will_change_its_brackets():
    plans = [explained(f"searcher={name}", "benchmark=curves", "budget.trials=4", "--explain").stdout for name in ("hypertune", "gp")]
    assert all("bracket 1: starts at 3" in plan for plan in plans)
    assert ["hypertune changes these probabilities" in plan for plan in plans] == [True, False]
