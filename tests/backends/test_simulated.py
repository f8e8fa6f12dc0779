"""Every event of a simulated study against the rules of algorithms.md section 4.2, stated once more without a queue."""

import math
from collections import Counter

import pytest
from ConfigSpace import ConfigurationSpace
from hypothesis import given, settings
from hypothesis import strategies as st

from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.journal import dumps
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import TrialLimit
from schedulers.types import Decision, Progress
from tests.test_main import EXAMPLE, attempt

LIMIT = 15
DELAYS = {"start_cost": 0.0, "resume_cost": None, "stop_latency": 0.0, "report_latency": 0.0, "poll_interval": 0.0}


class Uneven:
    """Epochs of few different lengths, so that much happens at the same time."""

    mode = "min"
    r_max = 8

    def __init__(self, ties=True):
        self.space, self.ties = ConfigurationSpace({"x": (0.0, 1.0)}), ties

    def seconds(self, job, r):
        return 0.5 * (1 + (7 * job.trial_id + 3 * r) % 3) if self.ties else 1.0 + job.config["x"]

    def train(self, job, checkpoint_dir):
        for r in range(job.r_from + 1, job.r_to + 1):
            yield Progress(r, (job.config["x"] - 0.3) ** 2 + math.sin(9 * job.config["x"] * r) / r, self.seconds(job, r))


def play(benchmark, num_workers, variant="stopping", retries=0, limit=LIMIT, **given):
    searcher = TrialLimit(RandomSearcher(benchmark.space, seed=3), limit)
    scheduler = AsyncHyperband(searcher, r_min=1, r_max=benchmark.r_max, eta=2, brackets=2, variant=variant)
    return list(run(scheduler, SimulatedBackend(benchmark, num_workers, **given), Nothing(), retries=retries))


class Nothing:
    def append(self, event): ...


class Reader:
    """Follows the events and checks each: when it had to happen, that nothing had to happen before it, and that no worker was left idle."""

    def __init__(self, benchmark, num_workers, worker_speed, decision_time, retries, **delays):
        self.benchmark, self.speed, self.coefficients, self.retries = benchmark, worker_speed or [1.0] * num_workers, decision_time, retries
        self.delays = DELAYS | delays
        self.clock, self.num_reports, self.seen = 0.0, 0, set()
        self.free = dict.fromkeys(range(num_workers), 0.0)
        self.running, self.starts = {}, Counter()

    def read(self, event):
        (self.job if event.kind == "job" else self.report)(event)

    def job(self, event):
        asked = max(self.clock, min(self.free.values()))
        suggested = event.proposal is not None
        took = sum(c * self.num_reports**k for k, c in enumerate(self.coefficients)) if suggested else 0.0
        assert event.decide_seconds == took and event.time == asked + took
        assert all(one["due"] > asked for one in self.running.values())  # what was known by then had been told
        assert event.worker == min(worker for worker, free in self.free.items() if free <= asked)
        del self.free[event.worker]
        self.begin(event.job, event.worker, event.time)

    def begin(self, job, worker, now):
        resume = self.delays["start_cost"] if self.delays["resume_cost"] is None else self.delays["resume_cost"]
        begin = now + (resume if self.starts[job.trial_id] else self.delays["start_cost"])
        self.starts[job.trial_id] += 1
        self.clock = now
        self.running[job.trial_id] = {"job": job, "worker": worker, "r": job.r_from, "until": job.until}
        self.train(job.trial_id, begin)

    def train(self, trial, begin):
        one = self.running[trial]
        one["begin"] = begin
        one["seconds"] = self.benchmark.seconds(one["job"], one["r"] + 1) / self.speed[one["worker"]]
        self.expect(one, one["seconds"])

    def expect(self, one, seconds):
        one["trained"] = one["begin"] + seconds
        due, interval = one["trained"] + self.delays["report_latency"], self.delays["poll_interval"]
        one["due"] = interval * math.ceil(due / interval) if interval else due

    def report(self, event):
        report, trial = event.report, event.report.trial_id
        one = self.running[trial]
        if report.error:  # on the way: the moment is random
            assert report.r is None and math.isnan(report.metric) and 0 <= report.seconds <= one["seconds"]
            self.expect(one, report.seconds)
        else:
            assert report.r == one["r"] + 1 and report.seconds == one["seconds"] and event.worker == one["worker"]
            assert (trial, report.r) not in self.seen
            self.seen.add((trial, report.r))
            one["r"] = report.r
        assert (one["due"], trial) == min((other["due"], number) for number, other in self.running.items())
        assert report.time == max(self.clock, one["due"])
        if len(self.starts) < LIMIT:  # there was always something to do
            assert all(max(self.clock, free) >= one["due"] for free in self.free.values())
        self.clock, self.num_reports = report.time, self.num_reports + 1
        if event.kind == "retry":
            assert event.job.r_from == one["r"]
            return self.begin(event.job, one["worker"], report.time)
        if event.verdict.decision is Decision.CONTINUE:
            has_waited, one["until"] = one["r"] >= one["until"], event.verdict.until
            return self.train(trial, self.clock if has_waited else one["trained"])
        is_over = report.error or one["r"] == one["job"].r_to
        self.free[one["worker"]] = self.clock + (0.0 if is_over else self.delays["stop_latency"])
        del self.running[trial]


quarters = st.integers(0, 12).map(lambda n: n / 4)


@settings(max_examples=150, deadline=None)
@given(
    num_workers=st.integers(1, 4),
    variant=st.sampled_from(["stopping", "promotion"]),
    ties=st.booleans(),
    delays=st.fixed_dictionaries(
        {"start_cost": quarters, "resume_cost": st.none() | quarters, "stop_latency": quarters, "report_latency": quarters},
    ),
    poll_interval=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
    decision_time=st.sampled_from([[], [0.25], [0.25, 0.125]]),
    failure_prob=st.sampled_from([0.0, 0.0, 0.1]),
    retries=st.integers(0, 1),
    deadline=st.none() | st.sampled_from([10.0, 25.0]),
    data=st.data(),
)
def test_every_event_comes_when_the_rules_say(
    num_workers, variant, ties, delays, poll_interval, decision_time, failure_prob, retries, deadline, data
):
    speed = data.draw(st.none() | st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=num_workers, max_size=num_workers))
    timing = {**delays, "poll_interval": poll_interval, "worker_speed": speed}
    reader = Reader(Uneven(ties), num_workers, decision_time=decision_time, retries=retries, **timing)
    chances = {"failure_prob": failure_prob, "decision_time": decision_time or "zero", "deadline": deadline}
    for event in play(Uneven(ties), num_workers, variant, retries, **chances, **timing):
        reader.read(event)
        began = event.time - event.decide_seconds
        assert deadline is None or began <= deadline
    if deadline is None:
        assert len(reader.starts) == LIMIT and not reader.running
    else:  # nothing was left out that had to happen before
        assert all(max(reader.clock, one["due"]) > deadline for one in reader.running.values() if failure_prob == 0)


def test_a_trial_waits_for_the_answer_at_a_rung_and_for_no_other() -> None:
    """By hand: epochs of 1 s, rungs 1, 2, 4 (one bracket), an answer comes 5 s after the result; epoch 3 goes on without one."""

    class Seconds(Uneven):
        def seconds(self, job, r):
            return 1.0

    searcher = TrialLimit(RandomSearcher(Seconds().space, seed=3), 1)
    scheduler = AsyncHyperband(searcher, r_min=1, r_max=8, eta=2, brackets=1, variant="stopping")
    times = [e.time for e in run(scheduler, SimulatedBackend(Seconds(), 1, report_latency=5.0), Nothing()) if e.report]
    #       r=1  r=2: 6+1+5  r=3: 12+1+5  r=4: trained at 14, heard at 19  r=5 to 8: after the answer at 19, one after the other
    assert times == [6.0, 12.0, 18.0, 19.0, 25.0, 26.0, 27.0, 28.0]


def test_a_result_that_is_due_at_a_look_is_seen_then() -> None:
    class Tenths(Uneven):
        def seconds(self, job, r):
            return 0.1

    times = [event.time for event in play(Tenths(), 1, limit=1, poll_interval=0.1) if event.report]
    assert [round(10 * time) for time in times] == list(range(1, len(times) + 1)) and times == pytest.approx([0.1 * n for n in range(1, 9)])


def test_polling_every_five_seconds_is_late_by_less_than_five():
    """What Syne Tune's tuner does (algorithms.md section 4.1)."""
    events = play(Uneven(ties=False), 2, poll_interval=5.0)
    assert {event.time % 5 for event in events} == {0.0}


def test_failures_are_as_frequent_as_asked_repeat_and_may_be_retried():
    given = {"num_workers": 4, "limit": 300, "failure_prob": 0.2, "seed": 5}
    events = play(Uneven(), **given)
    reports = [event.report for event in events if event.report]
    failed = [report for report in reports if report.error]
    assert abs(len(failed) / len(reports) - 0.2) < 4 * math.sqrt(0.16 / len(reports))
    assert failed[0].error.startswith("a simulated failure on the way to resource ")
    assert [dumps(event) for event in events] == [dumps(event) for event in play(Uneven(), **given)]
    assert [dumps(event) for event in events] != [dumps(event) for event in play(Uneven(), **(given | {"seed": 6}))]
    retried = play(Uneven(), retries=3, **given)
    lost = [event for event in retried if event.kind == "report" and event.report.error]
    assert any(event.kind == "retry" for event in retried) and len(lost) < len(failed) / 10


def test_a_failure_is_the_same_whoever_else_runs():
    fates = []
    for num_workers in (1, 4):
        events = play(Uneven(), num_workers, failure_prob=0.2)
        fates.append({(e.report.trial_id): e.report.error for e in events if e.report and e.report.error})
    common = set(fates[0]) & set(fates[1])
    assert common and all(fates[0][trial] == fates[1][trial] for trial in common)


def test_measured_decisions_delay_the_study_and_can_be_repeated():
    events = play(Uneven(), 2, decision_time="measured")
    took = [event.decide_seconds for event in events if event.kind != "retry"]
    assert min(took) > 0 and events[-1].time > play(Uneven(), 2)[-1].time
    again = play(Uneven(), 2, decision_time="measured", recorded_decisions=took)
    assert [dumps(event) for event in again] == [dumps(event) for event in events]


def test_twice_the_speed_is_half_the_time():
    slow, quick = (play(Uneven(), 2, worker_speed=[speed, speed]) for speed in (1, 2))
    assert [event.time for event in slow] == [2 * event.time for event in quick]


SIMULATED = [*EXAMPLE, "backend=simulated", "workers=2"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backend.start_cost=-1"], "backend.start_cost=-1 must be a number of seconds, 0 or more"),
        (["backend.resume_cost=soon"], "backend.resume_cost=soon must be a number of seconds"),
        (["backend.stop_latency=inf"], "backend.stop_latency=inf must be a number of seconds"),
        (["backend.worker_speed=[1,2,3]"], r"backend.worker_speed=\[1, 2, 3\] must be a list of 2 numbers, one for each worker"),
        (["backend.worker_speed=[1,0]"], r"backend.worker_speed=\[1, 0\] must be positive numbers: 2 trains twice as fast"),
        (["backend.failure_prob=1"], "backend.failure_prob=1 must be a probability, from 0 to below 1"),
        (["backend.decision_time=model"], r"backend.decision_time=model is unknown: choose zero, measured or a list of numbers \[c0"),
        (["backend.decision_time=[-1]"], r"backend.decision_time=\[-1\] is unknown"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence_before_any_trial(overrides, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as caught:
        attempt(tmp_path, *SIMULATED, *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "journal.sqlite").exists()
