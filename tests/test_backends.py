"""The simulated and the local backend: what a misbehaving trial becomes, and that both lead to the same decisions."""

import math
import os
import signal
import time
from pathlib import Path

import pytest
from ConfigSpace import ConfigurationSpace

from schedulers.asha import AsyncHyperband
from schedulers.backends.local import LocalBackend
from schedulers.backends.simulated import SimulatedBackend
from schedulers.backends.trial import Segment
from schedulers.history import State
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import TrialLimit
from schedulers.types import Job, Progress


class Nothing:
    """A log that keeps nothing."""

    def append(self, event): ...


class Misbehaving:
    """Trial i misbehaves in the i-th way at resource 2."""

    mode = "min"
    r_max = 4
    space = ConfigurationSpace({"x": (0.0, 1.0)})
    ways = ("raise", "nan", "inf", "none", "twice", "backwards", "pair", "text", "early", "too_far", "fraction", "fine")

    def train(self, job, checkpoint_dir):
        way = self.ways[job.trial_id % len(self.ways)]
        for r in range(job.r_from + 1, job.r_to + 1):
            metric = 1.0 / r
            if r == 2:
                if way == "raise":
                    raise KeyError("learning_rate")
                if way == "early":
                    return
                if way == "pair":
                    yield 3.0
                metric = {"nan": math.nan, "inf": math.inf, "none": None, "text": "0.5"}.get(way, metric)
                r = {"twice": 1, "backwards": 0, "too_far": 9, "fraction": 2.5}.get(way, r)
            yield Progress(r, metric, 1.0)


expected_errors = {
    "raise": (None, "KeyError: 'learning_rate'"),
    "nan": (2, "the metric at resource 2 is nan"),
    "inf": (2, "the metric at resource 2 is inf"),
    "none": (2, "the metric at resource 2 is None, not a number"),
    "text": (2, "the metric at resource 2 is '0.5', not a number"),
    "twice": (None, "resource 1 was reported after 1: twice, out of order or too far; expected was 2 to 4"),
    "backwards": (None, "resource 0 was reported after 1"),
    "too_far": (None, "resource 9 was reported after 1"),
    "fraction": (None, "the resource 2.5, which is no whole number"),
    "pair": (None, "yielded 3.0, not a pair (resource, metric)"),
    "early": (None, "the training ended (or yielded None) after resource 1, before it reached 4"),
}


@pytest.mark.parametrize("way", Misbehaving.ways)
def test_a_misbehaving_script_becomes_a_report_that_says_why(way):
    segment = Segment(Misbehaving(), Job(Misbehaving.ways.index(way), {"x": 0.5}, 0, 4), None)
    first, second = segment.next(), segment.next()
    assert (first.r, first.metric, first.error) == (1, 1.0, "")
    if way == "fine":
        assert (second.r, second.metric, second.error) == (2, 0.5, "")
    else:
        r, text = expected_errors[way]
        assert second.r == r and text in second.error and math.isnan(second.metric)


def test_a_maximised_metric_is_negated_once():
    benchmark = Misbehaving()
    benchmark.mode = "max"
    assert Segment(benchmark, Job(11, {"x": 0.5}, 0, 4), None).next().metric == -1.0


def study(backend, benchmark, variant="stopping", limit=24, log=None, seed=3):
    searcher = TrialLimit(RandomSearcher(benchmark.space, seed=seed), limit)
    scheduler = AsyncHyperband(searcher, r_min=1, r_max=benchmark.r_max, eta=2, brackets=2, variant=variant)
    try:
        events = list(run(scheduler, backend, log or Nothing()))
    finally:
        backend.close()
    return scheduler.history, events


def decisions(events):
    return [
        (e.kind, e.job, e.report and (e.report.trial_id, e.report.r, e.report.metric), e.verdict and e.verdict.decision) for e in events
    ]


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
def test_one_local_worker_and_one_simulated_worker_decide_the_same(variant, tmp_path):
    _, simulated = study(SimulatedBackend(Sphere(), 1), Sphere(), variant)
    _, local = study(LocalBackend(Sphere(), 1, tmp_path), Sphere(), variant)
    assert decisions(simulated) == decisions(local)
    assert len(simulated) > 40


def test_misbehaving_trials_fail_and_the_study_goes_on(tmp_path):
    history, _ = study(LocalBackend(Misbehaving(), 2, tmp_path), Misbehaving())
    assert len(history.trials) == 24 and not history.pending
    for trial in history.trials:
        if Misbehaving.ways[trial.trial_id % 12] == "fine":
            assert trial.state is not State.FAILED
        else:
            assert trial.state in (State.FAILED, State.STOPPED)


class Sphere:
    """Quick, deterministic, and saves what it was told, so that a resumed trial can check it."""

    mode = "min"
    r_max = 8

    def __init__(self):
        self.space = ConfigurationSpace({"x": (0.0, 1.0)})

    def train(self, job, checkpoint_dir):
        if checkpoint_dir and job.r_from:
            assert (Path(checkpoint_dir) / "r").read_text() == str(job.r_from)
        for r in range(job.r_from + 1, job.r_to + 1):
            if checkpoint_dir:
                (Path(checkpoint_dir) / "r").write_text(str(r))
            yield r, (job.config["x"] - 0.3) ** 2 + 1 / r, 1.0


class Suicidal(Sphere):
    """Kills its own process in every third trial."""

    def train(self, job, checkpoint_dir):
        for r, metric, seconds in super().train(job, checkpoint_dir):
            if job.trial_id % 3 == 2 and r == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield r, metric, seconds


def test_a_killed_worker_fails_its_trial_only_and_is_replaced(tmp_path):
    history, events = study(LocalBackend(Suicidal(), 2, tmp_path), Suicidal(), limit=9)
    killed = [e.report for e in events if e.report and "was killed by signal 9" in e.report.error]
    assert killed and all(report.r is None and report.trial_id % 3 == 2 for report in killed)
    assert len(history.trials) == 9 and not history.pending
    assert sum(trial.state is State.COMPLETED for trial in history.trials) >= 1


def test_a_paused_trial_keeps_its_checkpoint_and_a_stopped_one_does_not(tmp_path):
    history, _ = study(LocalBackend(Sphere(), 2, tmp_path), Sphere(), "promotion")
    kept = {int(path.name.split("-")[1]) for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {trial.trial_id for trial in history.trials if trial.state is State.PAUSED}


class Forgetful(Sphere):
    """Saves nothing, and so is told to start from scratch when it is promoted."""

    def train(self, job, checkpoint_dir):
        assert job.r_from == 0
        return super().train(job, None)


def test_a_script_that_saves_nothing_is_promoted_from_scratch(tmp_path):
    history, events = study(LocalBackend(Forgetful(), 2, tmp_path), Forgetful(), "promotion")
    assert not any(trial.state is State.FAILED for trial in history.trials)
    repeats = [e for e in events if e.verdict and "before the restart" in str(e.verdict.why)]
    assert repeats
    pairs = list(zip(history.observed_trials, history.observed_resources, strict=True))
    assert len(pairs) == len(set(pairs))


class Slow(Sphere):
    def train(self, job, checkpoint_dir):
        for r in range(1, self.r_max + 1):
            time.sleep(0.1)
            yield r, 1.0


def test_the_deadline_ends_a_study_in_mid_trial(tmp_path):
    backend = LocalBackend(Slow(), 1, tmp_path, deadline=0.5)
    began = time.monotonic()
    history, _ = study(backend, Slow(), limit=100)
    assert time.monotonic() - began < 5
    assert history.trials[-1].state is State.RUNNING


class Unpicklable(Sphere):
    def __reduce__(self):
        return (_explode, ())


def _explode():
    raise ImportError("no such module in the worker")


def test_a_worker_that_cannot_start_ends_the_study_with_its_own_words(tmp_path):
    with pytest.raises(RuntimeError, match="worker 0 could not start .*no such module in the worker"):
        study(LocalBackend(Unpicklable(), 1, tmp_path), Sphere())


def test_simulated_time_is_the_benchmarks_and_the_same_each_time():
    runs = [study(SimulatedBackend(Sphere(), 3, start_cost=0.5), Sphere(), "promotion")[1] for _ in range(2)]
    assert [(e.time, e.kind) for e in runs[0]] == [(e.time, e.kind) for e in runs[1]]
    first = next(e for e in runs[0] if e.kind == "report")
    assert first.time == 1.5
