"""The journal: what is written comes back exactly, and a replay ends where the study was."""

import itertools
import math
import sqlite3

import pytest

from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.journal import FILE_NAME, Checked, Journal, JournalError, dumps, loads, read, replay
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import Recorded, TrialLimit
from schedulers.types import Decision, Event, Job, Proposal, Recording, Report, Verdict
from tests.test_backends import Sphere


def make(variant, recording=None, limit=30):
    searcher = Recorded(TrialLimit(RandomSearcher(Sphere().space, seed=3), limit), recording or Recording([]))
    return AsyncHyperband(searcher, r_min=1, r_max=8, eta=2, brackets=2, variant=variant, seed=1)


def play(folder, variant, num_events=None, batch=1):
    journal = Journal(folder, batch)
    scheduler = make(variant)
    events = list(itertools.islice(run(scheduler, SimulatedBackend(Sphere(), 3), journal), num_events))
    journal.close()
    return scheduler, events


def test_an_event_survives_json_exactly():
    job = Job(3, {"x": 0.1 + 0.2, "n": 4, "act": "relu", "bias": True}, 1, 9, 2, 3)
    proposal = Proposal(job.config, "model", 9, "log expected improvement -1.2", {"hyperparameters": {"noise": 1e-300}, "refitted": True})
    report = Report(3, 3, 1 / 3, 12.25, 0.1, "")
    for event in (
        Event("job", job, 1.5, proposal, worker=1, decide_seconds=0.25),
        Event("report", job, 2.5, report=report, verdict=Verdict(Decision.CONTINUE, "within the best of 3 at rung 3", 9), worker=0),
    ):
        assert loads(event.kind, dumps(event)) == event
    lost = loads(
        "report", dumps(Event("report", job, 2.5, report=Report(3, None, math.nan, error="x"), verdict=Verdict(Decision.STOP, "y")))
    )
    assert math.isnan(lost.report.metric) and lost.report.r is None


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
@pytest.mark.parametrize("num_events", [0, 1, 7, 40, 90])
def test_a_replayed_scheduler_goes_on_exactly_as_the_one_that_died(tmp_path, variant, num_events):
    original, events = play(tmp_path, variant, num_events)
    recording = Recording(list(read(tmp_path)))
    assert [dumps(event) for event in recording.events] == [dumps(event) for event in events]
    copy = make(variant, recording)
    restarts = replay(copy, recording)
    assert copy.history.__dict__ == original.history.__dict__
    assert {job.trial_id for job in restarts} == set(original.history.pending)
    assert all(job.r_from == original.history.trials[job.trial_id].r for job in restarts)
    for _ in range(5):  # and both go on alike
        assert copy.ask() == original.ask()


@pytest.mark.parametrize("num_events", [1, 13, 60])
def test_a_simulation_cut_anywhere_ends_like_an_uninterrupted_one(tmp_path, num_events):
    (tmp_path / "whole").mkdir()
    _, whole = play(tmp_path / "whole", "promotion")
    play(tmp_path, "promotion", num_events, batch=7)
    recording = Recording(list(read(tmp_path)))
    journal = Journal(tmp_path)
    list(run(make("promotion", recording), SimulatedBackend(Sphere(), 3), Checked(journal, recording)))
    journal.close()
    assert [dumps(event) for event in read(tmp_path)] == [dumps(event) for event in whole]


def test_a_changed_scheduler_is_noticed(tmp_path):
    play(tmp_path, "stopping", 40)
    recording = Recording(list(read(tmp_path)))
    with pytest.raises(JournalError, match="event 1 of the journal does not repeat"):
        replay(make("promotion", recording), recording)


def test_a_journal_has_one_writer_at_a_time(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="being written by another process"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_damaged_or_missing_journal_is_named(tmp_path):
    with pytest.raises(JournalError, match="there is no journal"):
        list(read(tmp_path))
    (tmp_path / FILE_NAME).write_bytes(b"this is not a database, but it is long enough to look like one" * 20)
    with pytest.raises(JournalError, match="damaged"):
        list(read(tmp_path))
    with pytest.raises(JournalError, match="damaged"):
        Journal(tmp_path)


def test_a_truncated_journal_is_named(tmp_path):
    play(tmp_path, "stopping")
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(JournalError, match="damaged"):
        list(read(tmp_path))


def test_every_event_is_on_disk_before_it_takes_effect(tmp_path):
    class Watching(SimulatedBackend):
        def start(self, job, worker):
            assert next(reversed(list(read(tmp_path)))).job == job
            super().start(job, worker)

        def resume(self, trial_id, until):
            assert next(reversed(list(read(tmp_path)))).report.trial_id == trial_id
            super().resume(trial_id, until)

        def release(self, trial_id, keep_checkpoint):
            assert next(reversed(list(read(tmp_path)))).report.trial_id == trial_id
            super().release(trial_id, keep_checkpoint)

    journal = Journal(tmp_path)
    assert len(list(itertools.islice(run(make("promotion"), Watching(Sphere(), 2), journal), 60))) == 60
    journal.close()


def test_a_simulation_whose_budget_was_raised_twice_still_repeats(tmp_path):
    """Where the first part asked in vain, the repetition must not hand out what only the second part got."""
    recording = Recording([])
    for limit in (4, 9, 15):
        journal = Journal(tmp_path)
        list(run(make("promotion", recording, limit), SimulatedBackend(Sphere(), 3), Checked(journal, recording)))
        journal.close()
        recording = Recording(list(read(tmp_path)))
    assert len({event.job.trial_id for event in recording.events}) == 15
