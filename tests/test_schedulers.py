"""The contract, for every scheduler on random event streams; oracles for each are in the scheduler's own test."""

import math
import pickle
import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.asha import AsyncHyperband
from schedulers.history import ENDED, State
from schedulers.hyperband import Hyperband
from schedulers.median import MedianRule
from schedulers.pasha import Pasha
from schedulers.stepwise import Stepwise
from schedulers.types import Scheduler
from tests.oracle import AsyncOracle, PashaOracle, SyncOracle
from tests.streams import Numbered, play, replay


def fifo(searcher, r_max, **levels):
    return AsyncHyperband(searcher, r_min=r_max, r_max=r_max)


def median(inner):
    return lambda searcher, **levels: MedianRule(searcher, inner=partial(inner, **levels))


class Scoring(Numbered):
    """Scores as good as random, but a function of the history alone."""

    def score(self, history, paused):
        return [math.sin(7 * trial + 3 * r + len(history.observed_trials)) for trial, r in paused]


def stepwise(searcher, **levels):
    return Stepwise(Scoring(searcher.limit), **levels)


SCHEDULERS = {
    "fifo": fifo,
    "stopping": partial(AsyncHyperband, brackets=3),
    "stopping raytune": partial(AsyncHyperband, pass_rule="raytune"),
    "promotion": partial(AsyncHyperband, variant="promotion", brackets=3),
    "promotion shared": partial(AsyncHyperband, variant="promotion", brackets=4, rung_system="shared", pass_rule="quantile"),
    "promotion scratch": partial(AsyncHyperband, variant="promotion", resume_from="scratch", placement="top_down"),
    "promotion neps": partial(AsyncHyperband, variant="promotion", pass_rule="neps"),
    "parallel hyperband": partial(AsyncHyperband, variant="promotion", brackets=4, bracket_law="parallel"),
    "successive halving": Hyperband,
    "hyperband": partial(Hyperband, brackets=4, bracket_sizes="hpbandster"),
    "hyperband barrier": partial(Hyperband, brackets=4, early_next_bracket=False, resume_from="scratch"),
    "pasha": Pasha,
    "pasha paper": partial(Pasha, variant="paper", pass_rule="quantile", resume_from="scratch"),
    "stepwise": stepwise,
    "median fifo": median(fifo),
    "median stopping": median(partial(AsyncHyperband, brackets=3)),
    "median promotion": median(partial(AsyncHyperband, variant="promotion", resume_from="scratch")),
    "median hyperband": median(partial(Hyperband, brackets=4)),
    "median hyperband barrier": median(partial(Hyperband, brackets=2, early_next_bracket=False)),
    "median pasha": median(Pasha),
}
EVERY = pytest.mark.parametrize("name", SCHEDULERS)


def make(name, limit=10**9, r_min=1, r_max=27, eta=3):
    return SCHEDULERS[name](Numbered(limit), r_min=r_min, r_max=r_max, eta=eta)


streams = {
    "r_min": st.integers(1, 4),
    "ratio": st.integers(0, 60),
    "eta": st.sampled_from([2, 2.5, 3, 4]),
    "workers": st.sampled_from([1, 2, 5, 30]),
    "limit": st.sampled_from([1, 6, 50, 10**6]),
    "failures": st.sampled_from([0.0, 0.12, 0.9]),
    "sparse": st.sampled_from([0.0, 0.4]),
    "num_metrics": st.sampled_from([1, 8, 10**6]),
    "seed": st.integers(0, 10**6),
}


@EVERY
@settings(max_examples=25, deadline=None)
@given(**streams)
def test_the_contract_holds_on_every_stream(name, r_min, ratio, eta, workers, limit, failures, sparse, num_metrics, seed):
    scheduler = make(name, limit, r_min, r_min + ratio, eta)
    assert isinstance(scheduler, Scheduler)
    play(scheduler, 200, random.Random(seed), workers, failures=failures, sparse=sparse, num_metrics=num_metrics)


@EVERY
def test_the_contract_holds_for_five_thousand_events(name):
    play(make(name), 5000, random.Random(3), 10, sparse=0.1)


@EVERY
@settings(max_examples=8, deadline=None)
@given(limit=st.sampled_from([12, 60, 10**6]), seed=st.integers(0, 10**6))
def test_decisions_depend_on_the_event_sequence_alone(name, limit, seed):
    """The same events give the same jobs and decisions when the scheduler is pickled half way, and an ask that finds nothing changes
    nothing: in the first run there are many, in the second none."""
    trace = play(make(name, limit), 200, random.Random(seed), 4, sparse=0.1, idle_asks=3)
    second = make(name, limit)
    half = len(trace) // 2
    replay(second, trace[:half])
    replay(pickle.loads(pickle.dumps(second)), trace[half:])


@EVERY
@settings(max_examples=8, deadline=None)
@given(workers=st.sampled_from([1, 4, 40]), failures=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 10**6))
def test_a_study_of_thirty_trials_ends_with_every_trial_accounted_for(name, workers, failures, seed):
    """No trial is lost and no scheduler waits for ever: all thirty begin, the study ends, and nothing is left running."""
    scheduler = make(name, limit=30, r_max=9)
    trace = play(scheduler, 10_000, random.Random(seed), workers, failures=failures)
    assert len(trace) < 10_000 and scheduler.ask() is None
    assert len(scheduler.history.trials) == 30
    assert not scheduler.history.pending
    assert all(trial.state is State.PAUSED or trial.state in ENDED for trial in scheduler.history.trials)
    if failures == 0 and not name.startswith(("pasha", "median")):  # PASHA stops below r_max, the rule may end anything
        assert any(trial.state is State.COMPLETED for trial in scheduler.history.trials)


def soak_pairs():
    yield "stopping", lambda: (make("stopping"), AsyncOracle(1, 27, 3, brackets=3))
    yield "promotion", lambda: (make("promotion"), AsyncOracle(1, 27, 3, promotes=True, brackets=3))
    yield "promotion shared", lambda: (make("promotion shared"), AsyncOracle(1, 27, 3, "quantile", True, True, brackets=4))
    yield "hyperband", lambda: (make("hyperband"), SyncOracle(1, 27, 3, "hpbandster", 4))
    yield "hyperband barrier", lambda: (make("hyperband barrier"), SyncOracle(1, 27, 3, "ceil", 4, early=False))
    yield "pasha", lambda: (make("pasha", r_max=81), PashaOracle(1, 81, 3))


@pytest.mark.soak
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_contract_holds_for_a_hundred_thousand_events(name):
    play(make(name), 100_000, random.Random(4), 50, sparse=0.05)


@pytest.mark.soak
@pytest.mark.parametrize("make_pair", [pytest.param(pair, id=name) for name, pair in soak_pairs()])
def test_a_hundred_thousand_events_agree_with_the_oracles(make_pair):
    for seed in range(500):  # an oracle's cost grows with the square of a stream's length, or worse
        scheduler, oracle = make_pair()
        play(scheduler, 200, random.Random(seed), 8, oracle=oracle, num_metrics=10**6 if seed % 2 else 8)
