"""Asynchronous Hyperband against a brute-force oracle on random event streams, and hand-played examples."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.asha import AsyncHyperband
from schedulers.history import State
from schedulers.types import Decision, Job, Report
from tests.oracle import AsyncOracle
from tests.streams import Numbered, play

settings_of_asha = {
    "variant": st.sampled_from(["stopping", "promotion"]),
    "rule": st.sampled_from(["paper", "quantile", "raytune", "neps"]),
    "shared": st.booleans(),
    "levels": st.sampled_from([(1, 27, 3), (1, 9, 2), (2, 17, 4), (1, 9, 2.5), (3, 3, 3), (1, 28, 3)]),
    "brackets": st.integers(1, 4),
    "workers": st.integers(1, 6),
    "limit": st.sampled_from([5, 40, 10**6]),
    "resume_from": st.sampled_from(["checkpoint", "scratch"]),
    "sparse": st.sampled_from([0.0, 0.3]),
    "seed": st.integers(0, 10**6),
}


def make(variant, rule, shared, levels, brackets, limit, seed, resume_from="checkpoint"):
    r_min, r_max, eta = levels
    rung_system = "shared" if shared else "per_bracket"
    options = {"variant": variant, "pass_rule": rule, "rung_system": rung_system, "brackets": brackets, "seed": seed}
    options |= {"resume_from": resume_from}
    return AsyncHyperband(Numbered(limit), r_min=r_min, r_max=r_max, eta=eta, **options)


def oracle_of(scheduler, variant, rule, shared, levels, limit):
    return AsyncOracle(*levels, rule, shared, variant == "promotion", limit, brackets=len(scheduler._weights))


@settings(max_examples=100, deadline=None)
@given(**settings_of_asha)
def test_every_answer_is_the_brute_force_oracles(variant, rule, shared, levels, brackets, workers, limit, resume_from, sparse, seed):
    variant = {"raytune": "stopping", "neps": "promotion"}.get(rule, variant)
    scheduler = make(variant, rule, shared, levels, brackets, limit, seed, resume_from)
    oracle = oracle_of(scheduler, variant, rule, shared, levels, limit)
    play(scheduler, 120, random.Random(seed), workers, oracle=oracle, sparse=sparse)


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
def test_five_thousand_events_agree_with_the_oracle(variant):
    scheduler = make(variant, "paper", False, (1, 27, 3), 4, 10**6, 1)
    play(scheduler, 5000, random.Random(1), 8, oracle=oracle_of(scheduler, variant, "paper", False, (1, 27, 3), 10**6))


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
@pytest.mark.parametrize("mutant", [lambda n: n + 1, lambda n: n - 1])
def test_the_oracle_catches_a_mutated_rule(monkeypatch, variant, mutant):
    import schedulers.rungs

    right = schedulers.rungs.num_passing
    monkeypatch.setattr(schedulers.rungs, "num_passing", lambda n, r, r_next, rule: right(mutant(n), r, r_next, rule))
    scheduler = make(variant, "paper", False, (1, 27, 3), 1, 10**6, 0)
    with pytest.raises(AssertionError):
        play(scheduler, 500, random.Random(0), 4, oracle=oracle_of(scheduler, variant, "paper", False, (1, 27, 3), 10**6))


def test_parallel_brackets_take_turns_when_there_are_fewer_workers_than_brackets():
    scheduler = AsyncHyperband(Numbered(), r_min=1, r_max=27, brackets=4, variant="promotion", bracket_law="parallel")
    spent, rng = Counter(), random.Random(0)
    for _ in range(2000):
        job = scheduler.ask()
        spent[job.bracket] += job.r_to - job.r_from
        scheduler.tell(Report(job.trial_id, job.r_to, rng.random()))
    assert max(spent.values()) - min(spent.values()) <= 27


@settings(max_examples=20, deadline=None)
@given(brackets=st.integers(1, 4), workers=st.integers(4, 24), seed=st.integers(0, 1000))
def test_parallel_brackets_share_the_workers_equally(brackets, workers, seed):
    scheduler = AsyncHyperband(Numbered(), r_min=1, r_max=27, brackets=brackets, variant="promotion", bracket_law="parallel")
    running = {}
    rng = random.Random(seed)
    for _ in range(300):
        while len(running) < workers:
            job = scheduler.ask()
            running[job.trial_id] = job
        counts = Counter(job.bracket for job in running.values())
        assert max(counts.values()) - min(counts[s] for s in range(brackets)) <= 1
        trial = rng.choice(sorted(running))
        scheduler.tell(Report(trial, running.pop(trial).r_to, rng.random()))


def tell(scheduler, trial, r, metric):
    return scheduler.tell(Report(trial, r, metric)).decision


def test_a_hand_played_promotion_asha():
    asha = make("promotion", "paper", False, (1, 9, 3), 1, 10**6, 0)
    assert [asha.ask().trial_id for _ in range(3)] == [0, 1, 2]
    #                                        rung 1, best first       top floor(n/3)
    assert tell(asha, 0, 1, 0.5) is Decision.PAUSE  # 0:.5            none
    assert tell(asha, 1, 1, 0.3) is Decision.PAUSE  # 1:.3 0:.5       none
    assert asha.ask().trial_id == 3
    assert tell(asha, 2, 1, 0.4) is Decision.PAUSE  # 1:.3 2:.4 0:.5  {1}
    assert asha.ask() == Job(1, {"x": 1}, r_from=1, r_to=3, until=3)
    assert asha.ask().trial_id == 4  # 1 is promoted and still counts
    assert tell(asha, 1, 2, 0.2) is Decision.CONTINUE
    assert tell(asha, 1, 3, 0.2) is Decision.PAUSE


def test_a_hand_played_stopping_asha():
    asha = make("stopping", "paper", False, (1, 9, 3), 1, 10**6, 0)
    jobs = [asha.ask() for _ in range(4)]
    assert jobs[0] == Job(0, {"x": 0}, r_from=0, r_to=9, until=1)
    assert tell(asha, 0, 1, 0.5) is Decision.CONTINUE  # too few to judge
    assert tell(asha, 1, 1, 0.9) is Decision.CONTINUE  # likewise: with fewer than eta even the worst goes on
    assert tell(asha, 2, 1, 0.6) is Decision.STOP  # second of three
    assert tell(asha, 3, 1, 0.4) is Decision.CONTINUE  # best of four
    assert tell(asha, 0, 2, 0.4) is Decision.CONTINUE  # no rung
    assert tell(asha, 0, 3, 0.4) is Decision.CONTINUE
    assert [tell(asha, 0, r, 0.4) for r in range(4, 10)] == [Decision.CONTINUE] * 5 + [Decision.STOP]
    assert asha.history.trials[0].state is State.COMPLETED


def test_a_diverged_trial_counts_at_its_rung_and_a_crash_counts_nowhere():
    asha = make("stopping", "paper", False, (1, 9, 3), 1, 10**6, 0)
    for _ in range(5):
        asha.ask()
    asha.tell(Report(0, None, math.nan, error="the worker process was killed by signal 9"))
    asha.tell(Report(1, 1, math.nan, error="the metric at resource 1 is nan"))
    assert set(asha.history.pending) == {2, 3, 4}
    tell(asha, 2, 1, 0.5)  # two records at the rung, the diverged one among them: too few
    verdict = asha.tell(Report(3, 1, 0.4))  # three: one may pass
    assert verdict.why.n == 3 and verdict.decision is Decision.CONTINUE
    assert "within the best of 3 at rung 1" in str(verdict.why)


def test_reports_repeated_after_a_restart_from_scratch_teach_nothing():
    asha = make("promotion", "paper", False, (1, 9, 3), 1, 3, 0)
    for _ in range(3):
        asha.ask()
    for trial, metric in enumerate((0.3, 0.4, 0.5)):
        tell(asha, trial, 1, metric)
    assert asha.ask().trial_id == 0
    assert tell(asha, 0, 1, 0.1) is Decision.CONTINUE
    assert asha.history.observed_metrics == [0.3, 0.4, 0.5]
    assert asha.history.pending == {0: 3}


def test_a_skipped_milestone_leaves_no_pending_entry_behind():
    asha = make("stopping", "paper", False, (1, 9, 3), 1, 10, 0)
    asha.ask()
    assert tell(asha, 0, 2, 0.5) is Decision.CONTINUE
    assert asha.history.pending == {0: 3}


def test_brackets_are_drawn_by_the_papers_law():
    asha = make("stopping", "paper", False, (1, 27, 3), 4, 10**6, 0)
    counts = Counter(asha.ask().bracket for _ in range(20_000))
    assert [counts[s] / 20_000 for s in range(4)] == pytest.approx([0.5510, 0.2449, 0.1224, 0.0816], abs=0.01)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"variant": "promote"}, "variant=promote"),
        ({"brackets": 0}, "brackets=0"),
        ({"pass_rule": "best"}, "pass_rule=best"),
        ({"pass_rule": "raytune", "variant": "promotion"}, "pass_rule=raytune"),
        ({"pass_rule": "neps"}, "pass_rule=neps"),
        ({"rungs": [3, 3]}, r"rungs=\[3, 3\]"),
    ],
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        AsyncHyperband(Numbered(), r_min=1, r_max=9, **options)
