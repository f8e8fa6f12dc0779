"""Synchronous successive halving and Hyperband against published tables, a brute-force oracle, and hand-played examples."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.history import State
from schedulers.hyperband import Hyperband, table
from schedulers.rungs import rung_levels
from schedulers.types import Decision, Job, Report
from tests.oracle import SyncOracle
from tests.streams import Numbered, play


def sizes(r_min, r_max, eta, rule):
    levels = rung_levels(r_min, r_max, eta)
    return [list(bracket) for bracket in table(levels, eta, len(levels), rule)]


def test_bracket_sizes_are_the_hyperband_papers():
    assert sizes(1, 27, 3, "ceil") == [[27, 9, 3, 1], [12, 4, 2], [6, 2], [4]]
    assert sizes(1, 81, 3, "ceil") == [[81, 27, 9, 3, 1], [34, 12, 4, 2], [15, 5, 2], [8, 3], [5]]
    assert sizes(1, 200, 3, "ceil")[0] == [243, 81, 27, 9, 3, 1] and len(sizes(1, 200, 3, "ceil")) == 6


def test_bracket_sizes_are_hpbandsters():
    assert sizes(1, 27, 3, "hpbandster") == [[27, 9, 3, 1], [9, 3, 1], [6, 2], [4]]
    assert sizes(1, 81, 3, "hpbandster") == [[81, 27, 9, 3, 1], [27, 9, 3, 1], [9, 3, 1], [6, 2], [5]]


@pytest.mark.parametrize("rule", ["ceil", "hpbandster"])
@pytest.mark.parametrize(("r_max", "eta", "num"), [(243, 3, 6), (1000, 10, 4)])
def test_no_rung_is_lost_or_empty_where_floating_point_logarithms_lose_one(r_max, eta, num, rule):
    assert [len(bracket) for bracket in sizes(1, r_max, eta, rule)] == list(range(num, 0, -1))
    assert all(size >= 1 for bracket in sizes(1, r_max, eta, rule) for size in bracket)


settings_of_hyperband = {
    "levels": st.sampled_from([(1, 27, 3), (1, 9, 2), (2, 17, 4), (1, 9, 2.5), (3, 3, 3), (1, 28, 3)]),
    "rule": st.sampled_from(["ceil", "hpbandster"]),
    "brackets": st.integers(1, 4),
    "early": st.booleans(),
    "max_brackets": st.sampled_from([None, 1, 3]),
    "limit": st.sampled_from([1, 7, 40, 10**6]),
}


def pair(levels, rule, brackets, early, max_brackets, limit, resume_from="checkpoint"):
    r_min, r_max, eta = levels
    options = {"brackets": brackets, "bracket_sizes": rule, "early_next_bracket": early, "max_brackets": max_brackets}
    scheduler = Hyperband(Numbered(limit), r_min=r_min, r_max=r_max, eta=eta, resume_from=resume_from, **options)
    return scheduler, SyncOracle(*levels, rule, brackets, early, max_brackets, limit)


@settings(max_examples=100, deadline=None)
@given(
    **settings_of_hyperband,
    workers=st.sampled_from([1, 3, 10, 40]),
    resume_from=st.sampled_from(["checkpoint", "scratch"]),
    failures=st.sampled_from([0.0, 0.1, 0.6]),
    sparse=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_every_answer_is_the_brute_force_oracles(
    levels, rule, brackets, early, max_brackets, limit, workers, resume_from, failures, sparse, seed
):
    scheduler, oracle = pair(levels, rule, brackets, early, max_brackets, limit, resume_from)
    play(scheduler, 300, random.Random(seed), workers, oracle=oracle, failures=failures, sparse=sparse)


@pytest.mark.parametrize(("rule", "early"), [("ceil", True), ("hpbandster", False)])
def test_five_thousand_events_agree_with_the_oracle(rule, early):
    scheduler, oracle = pair((1, 27, 3), rule, 4, early, None, 10**6)
    play(scheduler, 5000, random.Random(2), 8, oracle=oracle)


@pytest.mark.parametrize("mutant", ["one fewer", "one more", "worst first"])
def test_the_oracle_catches_a_mutated_rule(monkeypatch, mutant):
    from schedulers.hyperband import _Bracket

    right = _Bracket.survivors
    wrong = {
        "one fewer": lambda bracket: right(bracket)[:-1],
        "one more": lambda bracket: [trial for _, _, trial in sorted(bracket.records)][: len(right(bracket)) + 1] if right(bracket) else [],
        "worst first": lambda bracket: right(bracket)[::-1],
    }
    monkeypatch.setattr(_Bracket, "survivors", wrong[mutant])
    scheduler, oracle = pair((1, 27, 3), "ceil", 4, True, None, 10**6)
    with pytest.raises(AssertionError):
        play(scheduler, 1000, random.Random(0), 4, oracle=oracle)


def tell(scheduler, trial, r, metric):
    return scheduler.tell(Report(trial, r, metric)).decision


def test_a_hand_played_bracket_of_successive_halving():
    halving = Hyperband(Numbered(), r_min=1, r_max=9, max_brackets=1)
    assert [halving.ask().trial_id for _ in range(9)] == list(range(9))
    assert halving.ask() is None  # the only bracket is full, and its lowest rung waits
    for trial in range(8):
        assert tell(halving, trial, 1, 0.1 * trial) is Decision.PAUSE
        assert halving.ask() is None
    verdict = halving.tell(Report(8, 1, 0.05))
    assert str(verdict.why) == "rung 1 is complete: rank 2 of 9, within the best 3"
    assert [halving.ask() for _ in range(4)] == [Job(t, {"x": t}, 1, 3, until=3) for t in (0, 8, 1)] + [None]
    for trial, metric in ((0, 0.3), (8, 0.2), (1, 0.4)):
        assert tell(halving, trial, 3, metric) is Decision.PAUSE
    assert halving.ask() == Job(8, {"x": 8}, 3, 9, until=9)
    assert tell(halving, 8, 9, 0.1) is Decision.STOP
    assert halving.history.trials[8].state is State.COMPLETED
    assert halving.ask() is None


def test_the_next_bracket_begins_early_or_waits_behind_the_barrier():
    early = Hyperband(Numbered(), r_min=1, r_max=9, brackets=3)
    barrier = Hyperband(Numbered(), r_min=1, r_max=9, brackets=3, early_next_bracket=False)
    for _ in range(9):
        assert early.ask().bracket == barrier.ask().bracket == 0
    assert early.ask() == Job(9, {"x": 9}, 0, 3, bracket=1, until=3)
    assert barrier.ask() is None


def test_a_bracket_does_not_wait_for_dead_trials():
    """Six of nine die, so the next rung has three slots' worth of room but two survivors; with none left the bracket is over."""
    halving = Hyperband(Numbered(), r_min=1, r_max=9, max_brackets=2)
    for _ in range(9):
        halving.ask()
    for trial in range(7):
        r = None if trial % 2 else 1
        assert halving.tell(Report(trial, r, math.nan, error="killed")).decision is Decision.STOP
    tell(halving, 7, 1, 0.2)
    tell(halving, 8, 1, 0.1)
    assert [halving.ask().trial_id, halving.ask().trial_id] == [8, 7]
    assert halving.ask().trial_id == 9  # of the second bracket
    halving.tell(Report(8, None, math.nan, error="killed"))
    halving.tell(Report(7, None, math.nan, error="killed"))
    assert halving.ask().trial_id == 10


def test_when_the_space_is_exhausted_open_slots_are_closed_and_the_study_ends():
    halving = Hyperband(Numbered(5), r_min=1, r_max=9)
    for _ in range(5):
        halving.ask()
    assert halving.ask() is None
    for trial in range(5):
        assert halving.ask() is None  # the five that did start are not all through
        tell(halving, trial, 1, float(trial))
    assert [halving.ask().trial_id for _ in range(3)] == [0, 1, 2]  # of nine slots, three go on
    for trial in range(3):
        tell(halving, trial, 3, float(trial))
    assert halving.ask().trial_id == 0
    assert tell(halving, 0, 9, 0.0) is Decision.STOP
    assert halving.ask() is None and not halving.history.pending


@pytest.mark.parametrize(
    ("options", "named"),
    [({"bracket_sizes": "floor"}, "bracket_sizes=floor"), ({"brackets": 0}, "brackets=0"), ({"max_brackets": 0}, "max_brackets=0")],
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        Hyperband(Numbered(), r_min=1, r_max=9, **options)
