"""The watchdog: a searcher that fails or hangs costs a random draw, and compiling ahead costs nothing."""

import threading

import pytest

from experiments.deadline import Deadline
from schedulers.asha import AsyncHyperband
from schedulers.searchers.random import RandomSearcher
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
    scheduler.searcher._thread.join(10)
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


def test_a_timeout_must_be_positive():
    with pytest.raises(ValueError, match="suggest_timeout=0"):
        Deadline(Numbered(), fallback(), 0)
