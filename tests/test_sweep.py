"""A sweep through one of Hydra's launchers: launched again, it skips what is finished, goes on with what is not, and destroys nothing."""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from schedulers.journal import hold

ROOT = Path(__file__).resolve().parent.parent
STUDY = ["backend=simulated", "benchmark=curves", "searcher=random", "budget.trials=12"]


def launch(*arguments):
    command = [sys.executable, "-m", "experiments.main", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["-m", *STUDY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", f"hydra.sweep.dir={folder}"]
    assert launch(*arguments).returncode == 0
    return folder, arguments


def events(folder):
    return list(sqlite3.connect(folder / "journal.sqlite").execute("SELECT kind, time, payload FROM events ORDER BY id"))


def test_a_sweep_that_is_launched_again_finishes_what_is_not_finished(sweep):
    folder, arguments = sweep
    whole, table = [events(folder / seed) for seed in "01"], pq.read_table(folder / "1" / "reports.parquet")
    assert whole[0] != whole[1] and len(whole[1]) > 30
    with sqlite3.connect(folder / "1" / "journal.sqlite") as db:  # as if it had been killed in the middle
        db.execute("DELETE FROM events WHERE id > 20")
    for name in ("summary.json", "reports.parquet"):
        (folder / "1" / name).unlink()
    again = launch(*arguments)
    assert again.returncode == 0 and f"{folder / '0'} holds this study already: nothing is run" in again.stdout
    assert [events(folder / seed) for seed in "01"] == whole
    assert pq.read_table(folder / "1" / "reports.parquet").equals(table)
    assert json.loads((folder / "1" / "summary.json").read_text())["run"]["interrupted"] is False


def test_a_sweep_goes_through_submitit_as_it_does_through_joblib(sweep, tmp_path):
    folder, _ = sweep
    # Its executor for one machine: jobs are sent, waited for and read as Slurm's are.
    arguments = ["-m", *STUDY, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    for _ in range(2):
        assert launch(*arguments).returncode == 0
        assert [events(tmp_path / seed) for seed in "01"] == [events(folder / seed) for seed in "01"]
    logs = "".join(path.read_text() for path in (tmp_path / ".submitit").glob("*/*_log.out"))
    assert logs.count("holds this study already: nothing is run") == 2


def test_a_folder_with_another_study_is_left_alone(sweep):
    folder, arguments = sweep
    before = events(folder / "0")
    other = launch(*arguments, "budget.trials=13")
    assert re.search(rf"error: {folder}/[01] holds a study with other settings: choose another hydra.sweep.dir", other.stderr)
    assert other.returncode != 0
    single = launch(*STUDY, "seed=5", f"hydra.run.dir={folder / '0'}")
    assert single.returncode == 2
    assert f"error: hydra.run.dir={folder / '0'} holds a study already: go on with it (resume={folder / '0'})" in single.stderr
    assert events(folder / "0") == before
    # Hydra has written the other settings over those of the study, which keeps its own.
    with closing(hold(folder / "0")):  # nor do those of a launch while the study runs
        busy = launch(*STUDY, "seed=5", f"hydra.run.dir={folder / '0'}")
    assert "is being written by another process" in busy.stderr
    assert "seed: 0" in (folder / "0" / "settings.yaml").read_text()
    assert launch(f"resume={folder / '0'}", "budget.trials=14").returncode == 0
    assert events(folder / "0")[: len(before)] == before and len(events(folder / "0")) > len(before)
    assert "trials: 14" in (folder / "0" / "settings.yaml").read_text()
    odd = launch(f"resume={folder / '0'}", "backend.pol_interval=5")
    assert odd.returncode == 2 and "this study has no setting backend.pol_interval; did you mean backend.poll_interval?" in odd.stderr
