"""The watchdog: a searcher that fails or hangs costs a random draw, and compiling ahead costs nothing."""

import threading
from functools import partial

import pytest

from experiments.deadline import Deadline
from schedulers.asha import AsyncHyperband
from schedulers.pasha import Pasha
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Proposal, Report
from tests.test_asha import Numbered
from tests.test_backends import Sphere


class Failing(Numbered):
    def suggest(self, history, slot):
        if slot.trial_id == 1:
            raise FloatingPointError("no finite likelihood")
        return super().suggest(history, slot)


class Hanging(Numbered):
    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def suggest(self, history, slot):
        if slot.trial_id == 1:
            self.release.wait(30)
        return super().suggest(history, slot)


def fallback():
    return RandomSearcher(Sphere().space, seed=0, default_first=False)


def test_a_failing_searcher_is_replaced_for_that_suggestion_and_says_so():
    scheduler = AsyncHyperband(Deadline(Failing(), fallback(), 20), r_min=1, r_max=3)
    for _ in range(3):
        scheduler.ask()
    proposals = [trial.proposal for trial in scheduler.history.trials]
    assert [proposal.config.get("x") for proposal in proposals][::2] == [0, 2]
    assert proposals[1].source == "random" and "no finite likelihood" in proposals[1].note


def test_a_hanging_searcher_is_not_asked_again_while_it_hangs():
    searcher = Hanging()
    scheduler = AsyncHyperband(Deadline(searcher, fallback(), 0.2), r_min=1, r_max=3)
    for _ in range(3):
        scheduler.ask()
    notes = [trial.proposal.note for trial in scheduler.history.trials]
    assert notes == ["", "the searcher took more than 0.2 s", "an earlier suggestion still hangs"]
    searcher.release.set()
    scheduler.searcher._task.ends_within(10)
    assert scheduler.ask() and scheduler.history.trials[3].proposal.config == {"x": 3}


class Compiling(Numbered):
    def __init__(self):
        super().__init__()
        self.compiled, self.may_go_on = [], threading.Event()

    def asks_the_model(self, history, slot):
        return True

    def upcoming(self, history):
        return [(16, 8), (32, 8)]

    def compile(self, history, size):
        if size[0] == 32:
            self.may_go_on.wait(30)
        self.compiled.append(size[0])


def test_a_suggestion_waits_only_for_the_program_that_it_needs():
    searcher = Compiling()
    scheduler = AsyncHyperband(Deadline(searcher, fallback(), 20), r_min=1, r_max=3)
    scheduler.ask()  # starts to compile 16
    scheduler.ask()  # waits for it, then starts to compile 32
    assert searcher.compiled == [16] and len(scheduler.history.trials) == 2
    scheduler.ask()  # does not wait for 32, which would hang
    assert searcher.compiled == [16] and len(scheduler.history.trials) == 3
    searcher.may_go_on.set()
    scheduler.searcher._compiler.join(10)
    assert searcher.compiled == [16, 32]


class StartingAtRandom(Compiling):
    def asks_the_model(self, history, slot):
        return False

    def compile(self, history, size):
        self.may_go_on.wait(30)
        self.compiled.append(size[0])


def test_a_random_start_does_not_wait_for_the_model():
    searcher = StartingAtRandom()
    scheduler = AsyncHyperband(Deadline(searcher, fallback(), 20), r_min=1, r_max=3)
    for _ in range(3):
        scheduler.ask()
    assert searcher.compiled == [] and len(scheduler.history.trials) == 3
    searcher.may_go_on.set()
    scheduler.searcher._compiler.join(10)


class Model(Numbered):
    """Proposes how many observations it was shown, each suggestion when it is let."""

    def __init__(self):
        super().__init__()
        self.may_answer, self.num_asked = threading.Semaphore(0), 0

    def asks_the_model(self, history, slot):
        return slot.trial_id > 0

    def suggest(self, history, slot):
        self.num_asked += 1
        if slot.trial_id > 0:
            self.may_answer.acquire(timeout=30)
        return Proposal({"x": slot.trial_id}, "model", note=f"{len(history.observed_metrics)} observations, {len(history.pending)} pending")


def ahead(searcher, seconds=20.0):
    deadline = Deadline(searcher, fallback(), seconds)
    return deadline, AsyncHyperband(deadline, r_min=1, r_max=9, brackets=2)


def test_a_suggestion_made_in_advance_knows_what_was_known_when_it_began_whenever_it_ends():
    for ends_early in (True, False):
        searcher = Model()
        deadline, scheduler = ahead(searcher)
        first = scheduler.ask()
        deadline.prepare(scheduler.history, scheduler.next_slot())
        if ends_early:
            searcher.may_answer.release()
            deadline.finish()
        scheduler.tell(Report(first.trial_id, 1, 0.5))
        deadline.prepare(scheduler.history, scheduler.next_slot())  # has begun: nothing to do
        if not ends_early:
            searcher.may_answer.release()
        scheduler.ask()
        assert scheduler.history.trials[1].proposal.note == "0 observations, 1 pending"
        assert searcher.num_asked == 2


def test_a_suggestion_made_in_advance_for_another_slot_is_not_used():
    searcher = Model()
    deadline, scheduler = ahead(searcher)
    scheduler.ask()
    slot = scheduler.next_slot()
    deadline.prepare(scheduler.history, slot._replace(bracket=1 - slot.bracket))
    searcher.may_answer.release(2)
    scheduler.ask()
    assert searcher.num_asked == 3 and scheduler.history.trials[1].proposal.config == {"x": 1}


def test_cheap_suggestions_are_not_made_in_advance():
    deadline, scheduler = ahead(searcher := Model())
    deadline.prepare(scheduler.history, scheduler.next_slot())
    assert searcher.num_asked == 0
    Deadline(Numbered(), fallback(), 1.0).prepare(scheduler.history, scheduler.next_slot())  # nor those of searchers without a model


def test_a_suggestion_in_advance_that_hangs_costs_one_wait_and_then_none():
    searcher = Model()
    deadline, scheduler = ahead(searcher, seconds=0.2)
    scheduler.ask()
    deadline.prepare(scheduler.history, scheduler.next_slot())
    scheduler.ask()
    scheduler.ask()
    notes = [trial.proposal.note for trial in scheduler.history.trials[1:]]
    assert notes == ["the searcher took more than 0.2 s", "an earlier suggestion still hangs"]
    searcher.may_answer.release(3)


def test_the_slot_foreseen_is_the_one_that_is_asked_for():
    class Remembers(Numbered):
        def suggest(self, history, slot):
            self.slot = slot
            return super().suggest(history, slot)

    for make in (
        partial(AsyncHyperband, brackets=4, bracket_law="drawn"),
        partial(AsyncHyperband, brackets=4, bracket_law="parallel"),
        Pasha,
    ):
        searcher = Remembers()
        scheduler = make(searcher, r_min=1, r_max=27)
        for _ in range(20):
            foreseen = scheduler.next_slot()
            scheduler.ask()
            assert searcher.slot == foreseen


def test_a_copy_of_the_history_does_not_follow_it():
    scheduler = AsyncHyperband(Numbered(), r_min=1, r_max=9)
    job = scheduler.ask()
    copy = scheduler.history.copy()
    scheduler.ask()
    scheduler.tell(Report(job.trial_id, 1, 0.5))
    assert (len(copy.trials), copy.pending, copy.observed_metrics, copy.trials[0].r) == (1, {0: 1}, [], 0)


def test_a_timeout_must_be_positive():
    with pytest.raises(ValueError, match="suggest_timeout=0"):
        Deadline(Numbered(), fallback(), 0)
