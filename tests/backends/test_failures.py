"""Deaths, hangs, memory and retries: what a trial's record says, what the study does, and that nobody else is harmed."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest

from schedulers.backends import failures
from schedulers.backends.local import LocalBackend
from schedulers.backends.simulated import SimulatedBackend
from schedulers.backends.trial import Segment
from schedulers.history import State
from schedulers.journal import Journal, dumps, read, replay
from schedulers.run import retries_used, run
from schedulers.types import Decision, Job, Recording
from tests.backends.trials import Curve, Once, misbehave, scheduler_of, study


class Bad(Curve):
    def __init__(self, way):
        super().__init__()
        self.way = way

    def step(self, job, r, checkpoint_dir):
        misbehave(self.way)


@pytest.mark.parametrize(
    ("way", "cause"),
    [("memory", "out of memory: "), ("xla", "out of memory: "), ("torch", "out of memory: "), ("full", "the disk is full: "),
     ("quota", "the disk is full: "), ("raise", "KeyError: 'learning_rate'")],
)  # fmt: skip
def test_the_last_line_of_an_error_names_its_cause(way, cause):
    report = Segment(Bad(way), Job(0, {"x": 0.5}, 0, 4), None).next()
    assert failures.last_line(report.error).startswith(cause)
    assert "Traceback" in report.error and report.r is None
    assert failures.is_out_of_memory(report.error) == (cause == "out of memory: ")
    assert failures.is_disk_full(report.error) == (cause == "the disk is full: ")
    words = {"out of memory: ": "out of memory", "the disk is full: ": "disk full"}
    assert failures.cause(report.error) == words.get(cause, "exception")


def test_a_metric_that_is_no_number_is_a_cause_of_its_own():
    for value in (float("inf"), "good"):

        class Odd(Curve):
            def train(self, job, checkpoint_dir, value=value):
                yield 1, value, 1.0

        assert failures.cause(Segment(Odd(), Job(0, {"x": 0.5}, 0, 4), None).next().error) == "no number"


def test_numpys_and_jaxs_own_memory_errors_are_recognised():
    import jax.numpy as jnp

    for too_much in (lambda: np.ones(2**50), lambda: jnp.ones(2**50).block_until_ready()):
        with pytest.raises(Exception) as caught:
            too_much()
        assert failures.is_memory_error(caught.value), repr(caught.value)


def test_a_kill_by_the_kernel_is_told_apart_from_any_other_as_well_as_can_be(tmp_path):
    assert failures.is_out_of_memory(failures.of_process(-9, 3, tmp_path, num_kills=1))
    unknown = failures.of_process(-9, 3, tmp_path, num_kills=0)
    assert not failures.is_out_of_memory(unknown) and "often the kernel's, for want of memory" in unknown
    assert "memory" not in failures.of_process(-11, 3, tmp_path, num_kills=5)
    assert failures.num_memory_kills() >= 0


def test_a_worker_whose_memory_ran_out_is_replaced_and_its_trial_alone_fails(tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(tmp_path / "marks", "xla", every=4)
    backend = LocalBackend(benchmark, 1, tmp_path)
    before = backend._workers[0].process.pid
    history, events = study(backend, benchmark, limit=5, variant="promotion")
    assert backend._workers[0].process.pid != before
    failed = [trial.trial_id for trial in history.trials if trial.state is State.FAILED]
    assert failed and all(trial % 4 == 0 for trial in failed)
    assert any(e.report and failures.is_out_of_memory(e.report.error) for e in events)


def test_a_hung_worker_is_killed_and_replaced(tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(tmp_path / "marks", "hang", every=3)
    began = time.monotonic()
    history, events = study(LocalBackend(benchmark, 2, tmp_path, report_timeout=2.0), benchmark, limit=7)
    hung = [e.report for e in events if e.report and e.report.error]
    assert hung and all(report.trial_id % 3 == 0 and report.r is None for report in hung)
    assert all("hang: no report for more than backend.report_timeout=2 seconds during resource 3" in r.error for r in hung)
    assert {t.trial_id for t in history.trials if t.state is State.FAILED} == {report.trial_id for report in hung}
    assert time.monotonic() - began < 60 and not history.pending


class Spawner(Curve):
    """Starts a process of its own, as a data loader would, and dies."""

    def step(self, job, r, checkpoint_dir):
        child = os.fork()  # it inherits the pipe to the driver, which therefore stays open
        if child == 0:
            time.sleep(3600)
        with open(os.environ["CHILDREN"], "a") as file:
            file.write(f"{child}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_dead_worker_had_started_is_gone_too(tmp_path):
    environment = {**os.environ, "CHILDREN": str(tmp_path / "children")}
    history, _ = study(LocalBackend(Spawner(), 1, tmp_path, environment=environment), Spawner(), limit=2)
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    assert len(children) == 2 and all(trial.state is State.FAILED for trial in history.trials)
    for child in children:
        status = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True).stdout.strip()
        assert status[:1] in ("", "Z"), f"process {child} lives: {status}"


@pytest.mark.parametrize("way", ["raise", "kill", "exit", "hang", "memory"])
def test_a_retried_trial_keeps_its_number_and_goes_on_from_its_checkpoint(way, tmp_path):
    whole, _ = study(SimulatedBackend(Curve(), 1), Curve())
    (tmp_path / "marks").mkdir()
    benchmark = Once(tmp_path / "marks", way)
    history, events = study(LocalBackend(benchmark, 1, tmp_path, report_timeout=3.0), benchmark, retries=1)
    retries = [e for e in events if e.kind == "retry"]
    assert retries and all(e.job.r_from == 2 and e.report.error and e.verdict is None for e in retries)
    assert not any(trial.state is State.FAILED for trial in history.trials)
    assert (history.observed_trials, history.observed_metrics) == (whole.observed_trials, whole.observed_metrics)
    again = [e.report.r for e in events if e.kind == "report" and e.job.trial_id == retries[0].job.trial_id]
    assert again == list(range(1, len(again) + 1)), "no resource is reported twice: it went on from its checkpoint"


def test_a_configuration_that_keeps_failing_is_dropped(tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(tmp_path / "marks", "raise", times=3)
    history, events = study(LocalBackend(benchmark, 2, tmp_path), benchmark, retries=2)
    assert set(retries_used(events).values()) == {2}
    final = [e for e in events if e.kind == "report" and e.report.error]
    assert {e.job.trial_id for e in final} == retries_used(events).keys()
    assert all(e.verdict.decision is Decision.STOP and "KeyError" in e.report.error for e in final)
    assert {t.trial_id for t in history.trials if t.state is State.FAILED} == retries_used(events).keys()


def test_a_number_that_is_none_is_an_answer_and_not_retried():
    class Diverges(Curve):
        def train(self, job, checkpoint_dir):
            yield 1, float("nan"), 1.0

    _, events = study(SimulatedBackend(Diverges(), 1), Diverges(), limit=3, retries=5)
    assert not retries_used(events)


@pytest.mark.parametrize("cut", range(3, 40, 6))
def test_retries_survive_an_interruption_at_any_event(cut, tmp_path):
    """In simulation the trial fails at each attempt; a study that is cut and replayed drops it after as many attempts in all."""

    class Hopeless(Curve):
        def step(self, job, r, checkpoint_dir):
            if job.trial_id % 2 == 0 and r == 2:
                raise KeyError("learning_rate")

    _, whole = study(SimulatedBackend(Hopeless(), 2), Hopeless(), retries=2)
    journal, events = Journal(tmp_path), []
    for event in run(scheduler_of(Hopeless(), 8), SimulatedBackend(Hopeless(), 2), journal, retries=2):
        events.append(event)
        if len(events) == cut:
            break
    journal.close()
    recording = Recording(list(read(tmp_path)))
    assert [dumps(event) for event in recording.events] == [dumps(event) for event in events]
    scheduler = scheduler_of(Hopeless(), 8, recording=recording)
    restarts = replay(scheduler, recording)
    rest = list(run(scheduler, SimulatedBackend(Hopeless(), 2), _Nothing(), restarts, 2, retries_used(recording.events)))
    both = events + rest
    assert retries_used(both) == retries_used(whole) and set(retries_used(whole).values()) == {2}
    assert {t.trial_id for t in scheduler.history.trials if t.state is State.FAILED} == retries_used(whole).keys()


class _Nothing:
    def append(self, event): ...


class DiesWaiting(Curve):
    """Reports its milestone, and is dead by the time the verdict comes."""

    def train(self, job, checkpoint_dir):
        for item in super().train(job, checkpoint_dir):
            if item[0] == job.r_to and job.trial_id % 2:
                if os.fork() == 0:  # a helper that shoots the worker shortly after it has reported
                    time.sleep(0.05)
                    os.kill(os.getppid(), signal.SIGKILL)
                    os._exit(0)
            yield item


class Slow:
    """A driver that takes its time before it asks for the next report."""

    def append(self, event):
        time.sleep(0.2)


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
def test_a_worker_that_dies_while_it_waits_for_a_verdict_takes_no_finished_trial_with_it(variant, tmp_path):
    history, events = study(LocalBackend(DiesWaiting(), 2, tmp_path), DiesWaiting(), limit=6, variant=variant, log=Slow())
    assert len(history.trials) == 6 and not history.pending
    ends = [e.job.trial_id for e in events if e.kind == "report" and e.verdict.decision is Decision.STOP]
    assert len(ends) == len(set(ends)), "no trial ends twice"


def test_a_worker_killed_at_its_start_is_replaced_but_not_for_ever(tmp_path):
    class Deadly:
        def __reduce__(self):
            return os.kill, (0, signal.SIGKILL)  # the worker's own process group, while it unpickles

    with pytest.raises(RuntimeError, match="worker 0 could not start"):
        study(LocalBackend(Deadly(), 1, tmp_path), Curve(), limit=9)
