"""The measurements: that they measure what they say, at a small scale."""

import heapq
import subprocess
import sys
from pathlib import Path

import pytest
from ConfigSpace import ConfigurationSpace

from experiments.bench.overhead import overhead
from experiments.bench.schedulers import SCHEDULERS, Segments, count_evaluated, measure
from schedulers.history import History
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Decision, Event, Job, Proposal, Report, Slot, Verdict
from tests.oracle import AsyncOracle

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_driven_through_as_many_jobs_as_asked(name):
    row = measure(name, 3000, 100, is_default=True)  # this process goes on
    assert row.jobs == 3000 and 1000 < row.trials <= 3100
    assert 0 < row.seconds < 60 and row.megabytes > 10


def test_random_search_evaluates_its_workers_full_trainings_exactly():
    """The ASHA paper: 1.5k with 500 workers in 3 x time(R)."""
    assert count_evaluated("checkpoint", 50, 256, 4, 3, r_min=256) == 150


@pytest.mark.parametrize(("resume_from", "cost"), [("scratch", 5), ("checkpoint", 4)])
def test_asha_evaluates_what_its_steady_state_allows(resume_from, cost):
    assert count_evaluated(resume_from, 50, 256, 4, 3) == pytest.approx(50 * 3 * 256 / cost, rel=0.05)


@pytest.mark.parametrize("resume_from", ["scratch", "checkpoint"])
def test_the_count_is_exactly_that_of_a_brute_force_replay(resume_from):
    """An event simulation of its own, whose promotions are the oracle's; results of one time are known to all who ask at that time."""
    workers, r_max, durations = 10, 64, 3
    segments = Segments((1, 4, 16, 64))
    metric = {}

    def metric_at(trial, r):
        if (trial, r) not in metric:
            metric[trial, r] = next(segments.train(Job(trial, {}, 0, r, until=r), None)).metric
        return metric[trial, r]

    oracle = AsyncOracle(1, r_max, 4, promotes=True)
    queue, num_trials, reported = [], 0, set()

    def start(now):
        nonlocal num_trials
        if (found := oracle.promotion(0)) is not None:
            trial, rung = found
            oracle.promoted.add((rung, trial))
            r_from, r_to = (0 if resume_from == "scratch" else rung), oracle.next_level(rung)
        else:
            trial, r_from, r_to = num_trials, 0, 1
            oracle.bracket[trial], oracle.reached[trial] = 0, 0
            num_trials += 1
        heapq.heappush(queue, (now + r_to - r_from, trial, r_to))

    for _ in range(workers):
        start(0.0)
    while queue[0][0] <= durations * r_max:
        now, freed = queue[0][0], 0
        while queue and queue[0][0] == now:
            _, trial, r = heapq.heappop(queue)
            reported.add(trial)
            if r < r_max:
                oracle.records.append((0, r, trial, metric_at(trial, r)))
            freed += 1
        for _ in range(freed):
            start(now)
    assert count_evaluated(resume_from, workers, r_max, 4, durations) == len(reported)


def test_an_unknown_measurement_is_refused_with_the_known_ones():
    done = subprocess.run([sys.executable, "-m", "experiments.bench", "nothing"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2 and "there is no measurement 'nothing'" in done.stderr and "schedulers" in done.stderr


def test_the_configurations_of_a_block_are_those_drawn_one_by_one():
    """Drawing in blocks is a matter of speed: the i-th configuration depends on the seed and i alone."""
    space = ConfigurationSpace({"a": (0.0, 1.0), "b": (1, 5), "c": ["x", "y", "z"]})
    history, first = History([1]), RandomSearcher(space, seed=3)
    for trial in range(600):
        slot = Slot(trial, 0, 1, 1)
        proposal = first.suggest(history, slot)
        if trial in (0, 7, 255, 256, 599):
            assert RandomSearcher(space, seed=3).suggest(history, slot) == proposal
        history.launch(proposal, 0, 1, 1)
    assert len({tuple(trial.proposal.config.items()) for trial in history.trials}) == 600


def test_the_overhead_of_a_study_is_what_one_counts_by_hand():
    """Two workers, ten seconds: worker 0 starts for 1 s, trains 3 + 2, waits .5 for a verdict and 1.5 for its next trial (.25 deciding);
    worker 1 starts for 2 s and trains to the end."""

    def job(trial, worker, time, decide=0.0):
        proposal = Proposal({}, "model" if decide else "random")
        return Event("job", Job(trial, {}, 0, 9), time, proposal, worker=worker, decide_seconds=decide)

    def report(trial, r, worker, time, seconds, decision=Decision.CONTINUE):
        said = Report(trial, r, 0.5, time, seconds)
        return Event("report", Job(trial, {}, 0, 9), time, report=said, verdict=Verdict(decision), worker=worker)

    events = [
        job(0, 0, 0.0),
        job(1, 1, 0.0),
        report(0, 1, 0, 4.0, 3.0),
        report(0, 2, 0, 6.5, 2.0, Decision.STOP),
        job(2, 0, 8.0, decide=0.25),
        report(2, 1, 0, 10.0, 2.0),
        report(1, 1, 1, 10.0, 8.0),
    ]
    found = overhead(events, 2)
    assert (found.total, found.training, found.deciding, found.idle) == (20.0, 15.0, 0.25, 4.75)
    assert (found.starting, found.within, found.between) == (3.0, 0.5, 1.5)
    assert found.share == 0.25 and found.starting + found.within + found.between == found.idle + found.deciding
