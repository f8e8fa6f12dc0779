"""PASHA against a brute-force oracle on random event streams, and hand-played examples."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers import crossings
from schedulers.asha import AsyncHyperband
from schedulers.pasha import Pasha
from schedulers.types import Report
from tests.oracle import PashaOracle
from tests.streams import Numbered, play

LEVELS = [(1, 27, 3), (1, 81, 3), (1, 9, 2), (2, 17, 4), (1, 9, 2.5), (3, 3, 3), (1, 3, 3), (1, 9, 3)]


def pair(levels, rule="paper", limit=10**6, variant="code", epsilon=None, resume_from="checkpoint"):
    r_min, r_max, eta = levels
    options = {"variant": variant, "pass_rule": rule, "epsilon": epsilon, "resume_from": resume_from}
    scheduler = Pasha(Numbered(limit), r_min=r_min, r_max=r_max, eta=eta, **options)
    return scheduler, PashaOracle(r_min, r_max, eta, rule, limit, variant, epsilon)


class Lockstep:
    """Passes every event on to the oracle, and compares caps after each report."""

    def __init__(self, scheduler, oracle):
        self.scheduler, self.oracle, self.caps = scheduler, oracle, []
        self.check_job, self.check_idle = oracle.check_job, oracle.check_idle

    def check_verdict(self, report, verdict):
        self.oracle.check_verdict(report, verdict)
        assert self.scheduler.cap == self.oracle.cap
        self.caps.append(self.oracle.cap)


@settings(max_examples=100, deadline=None)
@given(
    levels=st.sampled_from(LEVELS),
    rule=st.sampled_from(["paper", "quantile"]),
    variant=st.sampled_from(["code", "paper"]),
    epsilon=st.sampled_from([None, None, 0.0, 2.0]),
    limit=st.sampled_from([7, 60, 10**6]),
    workers=st.integers(1, 6),
    resume_from=st.sampled_from(["checkpoint", "scratch"]),
    failures=st.sampled_from([0.0, 0.1]),
    sparse=st.sampled_from([0.0, 0.3, 1.0]),
    num_metrics=st.sampled_from([3, 8, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_every_answer_and_every_cap_is_the_brute_force_oracles(
    levels, rule, variant, epsilon, limit, workers, resume_from, failures, sparse, num_metrics, seed
):
    scheduler, oracle = pair(levels, rule, limit, variant, epsilon, resume_from)
    options = {"failures": failures, "sparse": sparse, "num_metrics": num_metrics}
    play(scheduler, 150, random.Random(seed), workers, oracle=Lockstep(scheduler, oracle), **options)


@pytest.mark.parametrize("mutant", ["epsilon", "disagreement"])
def test_the_oracle_catches_a_mutated_rule(monkeypatch, mutant):
    right = getattr(crossings.Crossings, mutant)
    monkeypatch.setattr(crossings.Crossings, mutant, lambda window: 0.5 * right(window))
    with pytest.raises(AssertionError):
        for seed in range(30):
            scheduler, oracle = pair((1, 81, 3))
            play(scheduler, 300, random.Random(seed), 4, oracle=Lockstep(scheduler, oracle), num_metrics=10**6)


def drive(scheduler, metric, num_trials, dense=True):
    """One worker trains trial by trial; metric(trial, r). Returns the highest resource that anything was trained to."""
    while (job := scheduler.ask()) is not None:
        for r in range(job.r_from + 1 if dense else job.r_to, job.r_to + 1):
            scheduler.tell(Report(job.trial_id, r, metric(job.trial_id, r)))
    assert len(scheduler.history.trials) == num_trials
    return max(scheduler.history.observed_resources)


@pytest.mark.parametrize(("variant", "highest"), [("code", 3), ("paper", 9)])
def test_a_ranking_that_holds_never_raises_the_cap(variant, highest):
    pasha = Pasha(Numbered(200), r_min=1, r_max=81, variant=variant)
    assert drive(pasha, lambda trial, r: (trial * 37 % 101) + 1 / r, 200) == highest


def test_a_ranking_that_turns_over_at_every_rung_goes_to_r_max():
    pasha = Pasha(Numbered(200), r_min=1, r_max=81)
    assert drive(pasha, lambda trial, r: (trial * 37 % 101) * (-1) ** round(math.log(r, 3)), 200) == 81


def test_curves_that_differ_by_noise_alone_are_not_taken_for_a_changing_ranking():
    """Forty equal trials with noise: rankings change all the time, epsilon says that this is noise, and the study stays short."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 82))
    estimated = Pasha(Numbered(120), r_min=1, r_max=81)
    strict = Pasha(Numbered(120), r_min=1, r_max=81, epsilon=0)
    assert drive(estimated, lambda trial, r: noise[trial, r], 120) < drive(strict, lambda trial, r: noise[trial, r], 120) == 81


def test_reports_at_the_rungs_alone_are_enough():
    """The authors' code stops with an error when an epoch is missing."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(400, 82))
    assert drive(Pasha(Numbered(120), r_min=1, r_max=81), lambda trial, r: noise[trial, r], 120, dense=False) >= 9


@pytest.mark.parametrize("levels", [(3, 3, 3), (1, 3, 3)])
def test_with_fewer_than_two_rungs_it_is_asha(levels):
    r_min, r_max, eta = levels
    pasha = Pasha(Numbered(40), r_min=r_min, r_max=r_max, eta=eta)
    asha = AsyncHyperband(Numbered(40), r_min=r_min, r_max=r_max, eta=eta, variant="promotion")
    assert play(pasha, 200, random.Random(0), 3) == play(asha, 200, random.Random(0), 3)


def test_the_verdict_says_why_the_cap_was_raised():
    pasha = Pasha(Numbered(6), r_min=1, r_max=27)
    values = {(0, 1): 0.1, (1, 1): 0.2, (0, 3): 0.9, (1, 3): 0.5}
    reasons = []
    while (job := pasha.ask()) is not None:
        verdict = pasha.tell(Report(job.trial_id, job.r_to, values.get((job.trial_id, job.r_to), 1.0)))
        reasons.append(str(verdict.why))
    raised = [reason for reason in reasons if "may now reach" in reason]
    assert raised and raised[0].endswith("the rankings at 1 and 3 differ by 0.1, more than epsilon 0: trials may now reach 9")


def test_beyond_its_capacity_the_estimate_is_that_of_a_sample(monkeypatch):
    """2,000 noisy curves: epsilon from a sample of 128 is close to the one from all pairs, and the same again with the same seed."""
    rng = np.random.default_rng(2)
    curves = rng.normal(size=(2000, 9))

    def epsilon(seed):
        window = crossings.Crossings(3, 9, seed, 0.0)
        seen = [[] for _ in curves]
        for r in range(1, 10):
            for trial, curve in enumerate(curves):
                seen[trial].append((r, curve[r - 1]))
                window.report(trial, seen[trial])
        return window.epsilon()

    monkeypatch.setattr(crossings, "MAX_TRIALS", 128)
    sampled = epsilon(0)
    assert sampled == epsilon(0) != epsilon(1)
    # At the last resource the noisy pairs' distances are those of two independent normal values that keep to no order.
    final = np.abs(curves[:700, None, 8] - curves[None, :700, 8])
    signs = np.sign(curves[:700, None] - curves[None, :700])
    noisy = (signs[..., 1:] != signs[..., :-1]).sum(-1) >= 2
    exact = np.percentile(final[np.triu(noisy, 1)], 90)
    assert sampled == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize(
    ("options", "named"), [({"variant": "both"}, "variant=both"), ({"epsilon": -1.0}, "epsilon=-1"), ({"epsilon": math.nan}, "epsilon=nan")]
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        Pasha(Numbered(), r_min=1, r_max=9, **options)
