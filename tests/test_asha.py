"""Asynchronous Hyperband against a brute-force oracle on random event streams, and hand-played examples."""

import math
import pickle
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.asha import AsyncHyperband
from schedulers.history import State
from schedulers.types import Decision, Job, Proposal, Report
from tests.oracle import Oracle


class Numbered:
    """Proposes {"x": trial id}, up to `limit` of them."""

    def __init__(self, limit=10**9):
        self.limit = limit

    def suggest(self, history, slot):
        return None if slot.trial_id >= self.limit else Proposal({"x": slot.trial_id}, "random")

    def recall(self, history, slot, proposal): ...

    def bracket_weights(self, history):
        return None

    def score(self, history, paused):
        return None


def play(scheduler, oracle, num_events, rng, workers, limit):
    """Random reports of random running trials; after each, the scheduler's answer must be the oracle's. Returns all events."""
    running, trace = {}, []
    promotes = scheduler._promotes
    for _ in range(num_events):
        while len(running) < workers and (job := scheduler.ask()) is not None:
            assert job.trial_id not in running
            if promotes:
                check_promotion(oracle, job)
            elif job.trial_id in oracle.bracket:
                pytest.fail("the stopping variant must not start a trial twice")
            if job.trial_id not in oracle.bracket:
                oracle.start(job.trial_id, job.bracket)
            running[job.trial_id] = job
            trace.append(job)
        if len(running) < workers:
            assert len(oracle.bracket) == limit, "a worker idles although the space is not exhausted"
            if promotes:
                assert all(oracle.promotion(bracket) is None for bracket in range(len(scheduler._weights)))
        if not running:
            break
        trial = rng.choice(sorted(running))
        r = oracle.reached[trial] + 1
        kind = rng.random()
        error, metric = "", float(rng.randrange(8))
        if kind < 0.05:
            r, metric, error = None, math.nan, "killed"
        elif kind < 0.12:
            metric, error = math.nan, "the metric is nan"
        report = Report(trial, r, metric, error=error)
        verdict = scheduler.tell(report)
        trace.append((report, verdict.decision))
        check_verdict(scheduler, oracle, promotes, report, verdict)
        if verdict.decision is not Decision.CONTINUE:
            del running[trial]
        check_history(scheduler, running)
    return trace


def check_promotion(oracle, job):
    expected = oracle.promotion(job.bracket)
    if job.trial_id in oracle.bracket:
        assert expected is not None and expected[0] == job.trial_id
        assert job.r_to == oracle.next_level(expected[1])
        oracle.promoted.add((expected[1], job.trial_id))
    elif not oracle.shared:
        assert expected is None
    else:
        assert oracle.promotion(0) is None


def check_verdict(scheduler, oracle, promotes, report, verdict):
    if report.r is None:
        assert verdict.decision is Decision.STOP
        return
    at_rung = oracle.record(report.trial_id, report.r, report.metric)
    if report.error or report.r == oracle.r_max:
        assert verdict.decision is Decision.STOP
    elif not at_rung:
        assert verdict.decision is Decision.CONTINUE
        assert verdict.until == min([r for r in oracle.milestones(report.trial_id) if r > report.r], default=oracle.r_max)
    elif promotes:
        assert verdict.decision is Decision.PAUSE
    else:
        assert verdict.decision is (Decision.CONTINUE if oracle.stays(report.trial_id, report.r) else Decision.STOP)


def check_history(scheduler, running):
    """What is pending is exactly what runs: no entry outlives its trial, and no failure takes the entries of others."""
    history = scheduler.history
    assert set(history.pending) == set(running)
    for trial, milestone in history.pending.items():
        assert milestone > history.trials[trial].r
        assert milestone in history.levels
    states = Counter(trial.state for trial in history.trials)
    assert states[State.RUNNING] == len(running)


settings_of_asha = {
    "variant": st.sampled_from(["stopping", "promotion"]),
    "rule": st.sampled_from(["paper", "quantile"]),
    "shared": st.booleans(),
    "levels": st.sampled_from([(1, 27, 3), (1, 9, 2), (2, 17, 4), (1, 9, 2.5), (3, 3, 3), (1, 28, 3)]),
    "brackets": st.integers(1, 4),
    "workers": st.integers(1, 6),
    "limit": st.sampled_from([5, 40, 10**6]),
    "seed": st.integers(0, 10**6),
}


def make(variant, rule, shared, levels, brackets, limit, seed):
    r_min, r_max, eta = levels
    rung_system = "shared" if shared else "per_bracket"
    options = {"variant": variant, "pass_rule": rule, "rung_system": rung_system, "brackets": brackets, "seed": seed}
    return AsyncHyperband(Numbered(limit), r_min=r_min, r_max=r_max, eta=eta, **options)


@settings(max_examples=60, deadline=None)
@given(**settings_of_asha)
def test_every_answer_is_the_brute_force_oracles(variant, rule, shared, levels, brackets, workers, limit, seed):
    scheduler = make(variant, rule, shared, levels, brackets, limit, seed)
    play(scheduler, Oracle(*levels, rule, shared), 120, random.Random(seed), workers, limit)


def test_the_oracle_catches_a_mutated_rule(monkeypatch):
    import schedulers.rungs

    right = schedulers.rungs.num_passing
    monkeypatch.setattr(schedulers.rungs, "num_passing", lambda n, r, r_next, rule: right(n + 1, r, r_next, rule))
    scheduler = make("stopping", "paper", False, (1, 27, 3), 1, 10**6, 0)
    with pytest.raises(AssertionError):
        play(scheduler, Oracle(1, 27, 3, "paper", False), 500, random.Random(0), 4, 10**6)


@settings(max_examples=20, deadline=None)
@given(variant=st.sampled_from(["stopping", "promotion"]), brackets=st.integers(1, 4), seed=st.integers(0, 1000))
def test_decisions_depend_on_the_event_sequence_alone(variant, brackets, seed):
    """The same events give the same jobs and decisions, also when the scheduler is pickled half way and idle asks are left out."""
    first = make(variant, "paper", False, (1, 27, 3), brackets, 60, seed)
    trace = play(first, Oracle(1, 27, 3, "paper", False), 150, random.Random(seed), 3, 60)
    second = make(variant, "paper", False, (1, 27, 3), brackets, 60, seed)
    for number, step in enumerate(trace):
        if number == len(trace) // 2:
            second = pickle.loads(pickle.dumps(second))
        if isinstance(step, Job):
            assert second.ask() == step
        else:
            assert second.tell(step[0]).decision is step[1]


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
    [({"variant": "promote"}, "variant=promote"), ({"brackets": 0}, "brackets=0"), ({"pass_rule": "best"}, "pass_rule=best")],
)
def test_bad_settings_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        AsyncHyperband(Numbered(), r_min=1, r_max=9, **options)
