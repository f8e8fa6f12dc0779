"""A disk that is full, a journal that is damaged or in other hands, and a quota for checkpoints: what is said and what is kept."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schedulers.backends.checkpoints import Checkpoints
from schedulers.backends.local import LocalBackend
from schedulers.history import State
from schedulers.journal import FILE_NAME, Journal, JournalError, read, replay
from schedulers.run import run
from schedulers.types import Decision, Event, Job, Recording, Report, Verdict
from tests.backends.trials import Curve, Nothing, Once, scheduler_of, study
from tests.test_main import ROOT, check_accounts, resume

LIGHT = ["benchmark=function", "benchmark.target=tests/backends/target.py:train", "benchmark.space=examples/space.yaml"]
LIGHT += ["benchmark.r_max=9", "searcher=random", "scheduler=promotion", "brackets=1", "workers=2", "budget.trials=20"]


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many kilobytes, or gives the one that is mounted another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(kilobytes):
        options = f"size={kilobytes}k" + (",remount" if os.path.ismount(folder) else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield make
    subprocess.run(["umount", str(folder)], capture_output=True)


# Kilobytes of the disk and of a checkpoint, and the sentence. Where checkpoints fill the disk, either writer may find it full first.
DISKS = [(1200, 400, "the disk is full: OSError|cannot take event"), (200, 0, "cannot take event")]


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
@pytest.mark.parametrize(("disk", "checkpoint", "sentence"), DISKS)
def test_a_full_disk_ends_the_command_with_one_sentence_and_nothing_is_lost(disk, checkpoint, sentence, small_disk, monkeypatch):
    monkeypatch.setenv("KILOBYTES", str(checkpoint))
    folder = small_disk(disk) / "study"
    arguments = [sys.executable, "-m", "experiments.main", f"hydra.run.dir={folder}", *LIGHT]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert re.search(sentence, done.stderr) and f"resume={folder}" in done.stderr and "kept" in done.stderr
    before = [event.job for event in read(folder)]
    assert before
    small_disk(20_000)
    resume(folder)
    assert [event.job for event in read(folder)][: len(before)] == before
    check_accounts(folder, 20)


def test_a_worker_that_finds_the_disk_full_stops_the_study_and_its_trial_goes_on_later(tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(tmp_path / "marks", "full")
    journal = Journal(tmp_path)
    with pytest.raises(RuntimeError, match="the disk is full: .*No space left.*journal and the checkpoints saved so far are kept"):
        study(LocalBackend(benchmark, 1, tmp_path), benchmark, log=journal, retries=3)
    journal.close()
    recording = Recording(list(read(tmp_path)))
    assert not any(event.report and event.report.error for event in recording.events), "a full disk is nobody's failure"
    scheduler = scheduler_of(benchmark, 8, recording=recording)
    restarts = replay(scheduler, recording)
    assert [job.r_from for job in restarts] == [2]


def test_an_event_that_finds_no_room_is_named_and_those_before_it_are_kept(tmp_path):
    journal = Journal(tmp_path)
    event = Event("job", Job(0, {"x": 0.5}, 0, 4), 0.0)
    journal.append(event)
    journal._db.execute("PRAGMA max_page_count = 4")  # what SQLite says then is what it says of a full disk
    with pytest.raises(JournalError, match=r"cannot take event (\d+) \(database or disk is full\): the \d+ events before it") as caught:
        for _ in range(1000):
            journal.append(event)
    journal.close()
    assert f"cannot take event {1 + len(list(read(tmp_path)))} " in str(caught.value)


def test_a_batch_that_finds_no_room_is_lost_as_a_whole_and_said_so(tmp_path):
    journal, event = Journal(tmp_path, batch=50), Event("job", Job(0, {"x": 0.5}, 0, 4), 0.0)
    for _ in range(50):
        journal.append(event)
    journal._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(JournalError, match="database or disk is full") as caught:
        for _ in range(1000):
            journal.append(event)
    journal.close()
    num = len(list(read(tmp_path)))
    assert num >= 50 and num % 50 == 0 and f"cannot take event {num + 1} " in str(caught.value)


def test_the_command_leaves_a_journal_alone_that_another_process_writes(tmp_path):
    code = f"import sys, time; from schedulers.journal import Journal; j = Journal({str(tmp_path)!r}); print(1, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with pytest.raises(JournalError, match="is being written by another process: wait for that study, or end it; nothing"):
            Journal(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    Journal(tmp_path).close()  # the lock died with its process


def fill(folder, num=400):
    journal = Journal(folder, batch=50)
    for number in range(num):
        journal.append(Event("job", Job(number, {"x": number / 7}, 0, 4), float(number)))
    journal.close()
    with sqlite3.connect(folder / FILE_NAME) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / FILE_NAME


def test_a_journal_with_a_damaged_page_says_how_many_events_can_be_read(tmp_path):
    path = fill(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 // 4096 * 4096 :] = os.urandom(len(content) - len(content) // 2 // 4096 * 4096)
    path.write_bytes(content)
    events = []
    with pytest.raises(JournalError, match=r"is damaged; its first (\d+) events can be read, tables and checkpoints") as caught:
        for event in read(tmp_path):
            events.append(event)
    assert 50 < len(events) < 400 and f"first {len(events)} events" in str(caught.value)
    assert [event.job.trial_id for event in events] == list(range(len(events)))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_log_that_a_power_cut_truncated_leaves_the_events_before(share, tmp_path):
    """SQLite's write-ahead log: what was not written whole never happened."""
    journal = Journal(tmp_path)
    for number in range(60):
        journal.append(Event("job", Job(number, {"x": number / 7}, 0, 4), float(number)))
    (tmp_path / "copy").mkdir()
    for name in (FILE_NAME, f"{FILE_NAME}-wal"):
        shutil.copy(tmp_path / name, tmp_path / "copy" / name)
    journal.close()
    wal = tmp_path / "copy" / f"{FILE_NAME}-wal"
    wal.write_bytes(wal.read_bytes()[: int(share * wal.stat().st_size)])
    kept = [event.job.trial_id for event in read(tmp_path / "copy")]
    assert kept == list(range(len(kept))) and len(kept) < 60
    again = Journal(tmp_path / "copy")
    again.append(Event("job", Job(99, {"x": 1.0}, 0, 4), 99.0))
    again.close()
    assert [event.job.trial_id for event in read(tmp_path / "copy")] == [*kept, 99]


def report(trial, r, metric):
    return Report(trial, r, metric)


def kept(checkpoints):
    return sorted(int(path.name.split("-")[1]) for path in checkpoints.folder.iterdir())


def pause(checkpoints, trial, r, metric, kilobytes=400):
    checkpoints.path(trial).mkdir(parents=True, exist_ok=True)
    (checkpoints.path(trial) / "state").write_bytes(b"x" * 1000 * kilobytes)
    checkpoints.report(report(trial, r, metric))
    return checkpoints.pause(trial)


def test_the_least_promising_paused_trials_lose_their_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, quota_mb=1.0)  # room for two
    #                   trial, r, metric -> evicted          better at its rung
    assert pause(checkpoints, 0, 1, 0.5) == []
    assert pause(checkpoints, 1, 1, 0.3) == []
    assert pause(checkpoints, 2, 1, 0.4) == [0]  #           2 of 3
    checkpoints.start(1)  # promoted: no longer counted
    assert pause(checkpoints, 3, 1, 0.1) == []
    assert pause(checkpoints, 1, 3, 0.25) == [2]  #          trial 2: 2 of 4, trial 3: 0 of 4, trial 1: 0 of 1 at rung 3
    assert pause(checkpoints, 4, 1, float("nan")) == [4]  #  4 of 5: behind every number
    assert kept(checkpoints) == [1, 3]
    assert pause(checkpoints, 5, 1, 0.05) == [3]  #          1 of 6
    assert pause(checkpoints, 6, 1, 0.01, kilobytes=1200) == [5, 6]  # too large by itself; of equal shares (0) the lower rung goes first
    assert kept(checkpoints) == [1]


def test_a_resumed_study_ranks_its_checkpoints_as_before_and_sweeps_up(tmp_path):
    whole = Checkpoints(tmp_path / "whole", quota_mb=1.0)
    events = []
    for trial, metric in enumerate((0.5, 0.3, 0.4)):
        job = Job(trial, {}, 0, 1)
        events.append(Event("job", job, 0.0))
        decision = Decision.STOP if trial == 0 else Decision.PAUSE
        events.append(Event("report", job, 1.0, report=report(trial, 1, metric), verdict=Verdict(decision)))
        pause(whole, trial, 1, metric)
    again = Checkpoints(tmp_path / "again", quota_mb=1.0)
    for trial in range(3):  # trial 0 ended, but the driver was killed before its checkpoint was removed
        again.path(trial).mkdir(parents=True)
        (again.path(trial) / "state").write_bytes(b"x" * 400_000)
    again.restore(events)
    assert kept(again) == [1, 2]
    assert pause(again, 3, 1, 0.35) == pause(whole, 3, 1, 0.35) == [2]


class Heavy(Curve):
    """Saves 100 kB, and counts in `folder` how often each resource is trained."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def step(self, job, r, checkpoint_dir):
        Path(checkpoint_dir, "weights").write_bytes(b"x" * 100_000)
        with open(Path(self.folder, f"{job.trial_id}"), "a") as file:
            file.write(f"{r} ")


def test_an_evicted_trial_starts_from_scratch_when_it_is_promoted(tmp_path):
    (tmp_path / "counts").mkdir()
    benchmark, notes = Heavy(tmp_path / "counts"), []
    backend = LocalBackend(benchmark, 2, tmp_path, checkpoint_quota_mb=0.15, on_note=lambda worker, text, extra: notes.append(text))
    largest = 0

    class Watching:
        def append(self, event):
            nonlocal largest
            paused = [t.trial_id for t in scheduler.history.trials if t.state is State.PAUSED and t.trial_id != event.job.trial_id]
            sizes = [path.stat().st_size for trial in paused for path in Path(tmp_path, "checkpoints", f"trial-{trial:05d}").glob("*")]
            largest = max(largest, sum(sizes))

    scheduler = scheduler_of(benchmark, 16, "promotion")
    history, _ = study(backend, benchmark, log=Watching(), scheduler=scheduler)
    assert 100_000 < largest <= 150_000
    assert any("backend.checkpoint_quota_mb is used up" in note for note in notes)
    assert not any(trial.state is State.FAILED for trial in history.trials)
    trained = {int(path.name): [int(r) for r in path.read_text().split()] for path in (tmp_path / "counts").iterdir()}
    assert any(rs.count(1) > 1 for rs in trained.values()), "somebody was evicted and promoted, and began again at 1"
    reference, _ = study(LocalBackend(Curve(), 1, tmp_path / "reference"), Curve(), limit=16, variant="promotion")
    pairs = sorted(zip(history.observed_trials, history.observed_resources, history.observed_metrics, strict=True))
    assert len({pair[:2] for pair in pairs}) == len(pairs)
    assert {trial.r for trial in reference.trials} == {trial.r for trial in history.trials}


def test_a_stopped_study_leaves_no_checkpoint_of_a_trial_that_ended(tmp_path):
    class Fleeting(Nothing):
        """The driver dies between the verdict and its effect."""

        def append(self, event):
            journal.append(event)
            if event.kind == "report" and event.verdict.decision is Decision.STOP:
                raise KeyboardInterrupt

    journal, benchmark = Journal(tmp_path), Curve()
    backend = LocalBackend(benchmark, 1, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(run(scheduler_of(benchmark, 9), backend, Fleeting()))
    backend.close()
    journal.close()
    left = list((tmp_path / "checkpoints").iterdir())
    assert left
    again = LocalBackend(benchmark, 1, tmp_path, earlier=list(read(tmp_path)))
    began = time.monotonic()
    again.close()
    assert time.monotonic() - began < 5 and not any(path.exists() for path in left)
