"""Random event streams for schedulers, and the contract that every scheduler keeps on every stream.

Trials report out of order of one another, with ties, nan, crashes and skipped resources; what a scheduler answers is checked against the
contract here, and by an oracle, where there is one, against brute force.
"""

import math
from collections import Counter

from schedulers.history import State
from schedulers.types import Decision, Job, Proposal, Report


class Numbered:
    """Proposes {"x": trial id}, up to `limit` of them."""

    def __init__(self, limit=10**9):
        self.limit = limit

    def suggest(self, history, slot):
        assert slot.trial_id == len(history.trials)
        return None if slot.trial_id >= self.limit else Proposal({"x": slot.trial_id}, "random")

    def recall(self, history, slot, proposal): ...

    def bracket_weights(self, history):
        return None

    def score(self, history, paused):
        return None


class Contract:
    """What holds for every scheduler: a double-entry account of the trials, kept from jobs and verdicts alone."""

    def __init__(self, scheduler, r_max):
        self.scheduler, self.r_max = scheduler, r_max
        self.running = {}  # trial -> [job, position]: the resource that the worker reported last
        self.reached = {}  # trial -> the highest resource it ever reported
        self.ended, self.paused = set(), set()

    def job(self, job):
        trial = job.trial_id
        assert trial not in self.running, "a trial must not run twice at once"
        assert trial not in self.ended, "a trial that ended never returns"
        if trial in self.reached:
            assert trial in self.paused
            assert job.r_from in (0, self.reached[trial]), "it starts where it paused, or from scratch"
        else:
            assert trial == len(self.reached), "trials are numbered in the order in which they begin"
            assert job.r_from == 0
            self.reached[trial] = 0
        assert self.reached[trial] < job.r_to <= self.r_max
        assert job.r_from < job.until <= job.r_to
        self.paused.discard(trial)
        self.running[trial] = [job, job.r_from]
        self.accounts()

    def report(self, report, verdict):
        trial = report.trial_id
        job = self.running[trial][0]
        if report.r is not None:
            self.running[trial][1] = report.r
            self.reached[trial] = max(self.reached[trial], report.r)
        if report.error:
            assert verdict.decision is Decision.STOP, "a trial that failed is over"
        if verdict.decision is Decision.CONTINUE:
            assert report.r < verdict.until <= job.r_to
        else:
            del self.running[trial]
            (self.paused if verdict.decision is Decision.PAUSE else self.ended).add(trial)
        assert str(verdict.why)
        self.accounts()

    def accounts(self):
        """What is pending is exactly what runs, and every trial is accounted for."""
        history = self.scheduler.history
        assert history.pending.keys() == self.running.keys()
        assert len(history.trials) == len(self.reached)

    def close(self):
        """The dear checks, once: every trial's state, and every observation that was made."""
        history = self.scheduler.history
        states = Counter(trial.state for trial in history.trials)
        assert states[State.RUNNING] == len(self.running)
        assert states[State.PAUSED] == len(self.paused)
        assert sum(states.values()) == len(self.running) + len(self.paused) + len(self.ended)
        for trial, milestone in history.pending.items():
            assert history.trials[trial].r < milestone <= self.r_max
            assert milestone in history.levels
        highest = {}
        for trial, r in zip(history.observed_trials, history.observed_resources, strict=True):
            assert r > highest.get(trial, 0), "nothing is learnt twice, and resources grow"
            highest[trial] = r
        assert highest == {trial: r for trial, r in self.reached.items() if r > 0}, "no report is lost"


def play(scheduler, num_events, rng, workers, *, oracle=None, failures=0.12, sparse=0.0, num_metrics=8, idle_asks=0):
    """Drive `scheduler` through `num_events` random reports; returns the jobs and (report, decision) pairs of the stream.

    failures: share of reports that are a crash or a nan. sparse: chance that a report skips resources. Few distinct metrics: many ties.
    idle_asks: how often the scheduler is asked again where it has nothing to run.
    """
    contract = Contract(scheduler, scheduler.history.levels[-1])
    running, trace = contract.running, []
    for _ in range(num_events):
        while len(running) < workers:
            job = scheduler.ask()
            if job is None:
                if oracle:
                    oracle.check_idle()
                assert not any(scheduler.ask() for _ in range(idle_asks))
                break
            if oracle:
                oracle.check_job(job)
            contract.job(job)
            trace.append(job)
        if not running:
            break
        report = random_report(contract, rng, failures, sparse, num_metrics)
        verdict = scheduler.tell(report)
        if oracle:
            oracle.check_verdict(report, verdict)
        contract.report(report, verdict)
        trace.append((report, verdict.decision))
    contract.close()
    return trace


def random_report(contract, rng, failures, sparse, num_metrics):
    trial = rng.choice(list(contract.running))
    job, position = contract.running[trial]
    if sparse and position == job.r_from > 0 and rng.random() < 0.1:
        position = 0  # the script lost its checkpoint and repeats what it had reported
    r, kind = position + 1, rng.random()
    if rng.random() < sparse:
        r = rng.randint(position + 1, job.r_to)
    if kind < failures / 2:
        return Report(trial, None, math.nan, error="killed")
    if kind < failures:
        return Report(trial, r, math.nan, error="the metric is nan")
    return Report(trial, r, float(rng.randrange(num_metrics)))


def replay(scheduler, trace):
    """The events alone, without the asks that found nothing, must give the same jobs and decisions."""
    for step in trace:
        if isinstance(step, Job):
            assert scheduler.ask() == step
        else:
            assert scheduler.tell(step[0]).decision is step[1]
