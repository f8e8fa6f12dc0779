"""The median rule against brute force, and hand-played examples."""

import math
import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.asha import AsyncHyperband
from schedulers.history import State
from schedulers.hyperband import Hyperband
from schedulers.median import MedianRule
from schedulers.types import Decision, Report
from tests.streams import Numbered, play

fifo = partial(AsyncHyperband, r_min=9, r_max=9)


class BruteForce:
    """Every report so far in one list; the rule is evaluated from its definition at each report."""

    def __init__(self, is_mean, population, grace, cutoff):
        self.is_mean, self.population, self.grace, self.cutoff = is_mean, population, grace, cutoff
        self.reports = []  # (trial, r, metric)

    def check_job(self, job):
        assert job.until == job.r_from + 1, "every report waits for its answer"

    def check_idle(self):
        pytest.fail("there is always a trial to start")

    def value(self, trial, r):
        own = [metric for t, at, metric in self.reports if t == trial and at <= r]
        return sum(own) / len(own) if self.is_mean else own[-1]

    def check_verdict(self, report, verdict):
        if report.error or report.r == 9:
            assert verdict.decision is Decision.STOP
            if report.error:
                return
        self.reports.append((report.trial_id, report.r, report.metric))
        values = [self.value(trial, r) for trial, r, _ in self.reports if r == report.r]
        rank = sum(value < values[-1] for value in values) / len(values)
        ends = len(values) >= self.population and report.r >= self.grace and rank > self.cutoff
        if report.r < 9:
            assert verdict.decision is (Decision.STOP if ends else Decision.CONTINUE)


@settings(max_examples=60, deadline=None)
@given(
    is_mean=st.booleans(),
    population=st.integers(1, 6),
    grace=st.integers(1, 4),
    cutoff=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    sparse=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 10**6),
)
def test_every_answer_is_that_of_brute_force(is_mean, population, grace, cutoff, sparse, seed):
    options = {"running_mean": is_mean, "grace_population": population, "grace_time": grace, "rank_cutoff": cutoff}
    rule = MedianRule(Numbered(), inner=fifo, **options)
    oracle = BruteForce(is_mean, population, grace, cutoff)
    play(rule, 200, random.Random(seed), 4, oracle=oracle, sparse=sparse, num_metrics=5)


def test_the_brute_force_catches_a_mutated_rule(monkeypatch):
    monkeypatch.setattr("schedulers.median.bisect_left", lambda values, value: 1 + sum(v < value for v in values))
    with pytest.raises(AssertionError):
        play(MedianRule(Numbered(), inner=fifo), 500, random.Random(0), 4, oracle=BruteForce(True, 5, 1, 0.5))


def test_the_fifth_and_worst_of_five_ends_and_says_why():
    rule = MedianRule(Numbered(), inner=fifo)
    for _ in range(6):
        rule.ask()
    for trial in range(4):
        assert rule.tell(Report(trial, 1, 0.1 * trial)).decision is Decision.CONTINUE  # too few to judge
    verdict = rule.tell(Report(4, 1, 0.9))
    assert verdict.decision is Decision.STOP
    assert str(verdict.why) == "running mean 0.9 at resource 1: 4 of 5 trials are better there"
    assert rule.history.trials[4].state is State.STOPPED and 4 not in rule.history.pending
    assert rule.tell(Report(5, 1, 0.15)).decision is Decision.CONTINUE
    assert rule.tell(Report(5, 2, 0.15)).until == 3


def test_a_trial_that_the_rule_ends_does_not_block_its_synchronous_rung():
    rule = MedianRule(Numbered(), inner=partial(Hyperband, r_min=3, r_max=9, max_brackets=1), grace_population=2)
    assert [rule.ask().r_to for _ in range(3)] == [3, 3, 3] and rule.ask() is None  # sizes 3 at 3, 1 at 9
    assert rule.tell(Report(0, 1, 0.1)).decision is Decision.CONTINUE
    assert rule.tell(Report(1, 1, 0.2)).decision is Decision.CONTINUE  # half of the two are better, no more
    assert rule.tell(Report(2, 1, 0.3)).decision is Decision.STOP
    for trial in (0, 1):
        rule.tell(Report(trial, 2, 0.1))
        rule.tell(Report(trial, 3, 0.1))
    assert rule.ask().trial_id == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [({"grace_population": 0}, "grace_population=0"), ({"grace_time": 0.5}, "grace_time=0.5"), ({"rank_cutoff": 2}, "rank_cutoff=2")],
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        MedianRule(Numbered(), inner=fifo, **options)


def test_a_scheduler_whose_trials_cannot_be_ended_from_outside_is_refused():
    class Plain:
        def __init__(self, searcher): ...

    with pytest.raises(ValueError, match=r"scheduler.inner=plain cannot be ended"):
        MedianRule(Numbered(), inner=Plain)


def test_a_metric_that_is_no_number_is_behind_every_number():
    rule = MedianRule(Numbered(), inner=fifo, grace_population=1)
    rule.ask(), rule.ask()
    assert rule.tell(Report(0, 1, 0.1)).decision is Decision.CONTINUE
    assert rule.tell(Report(1, 1, math.nan, error="the metric is nan")).decision is Decision.STOP
