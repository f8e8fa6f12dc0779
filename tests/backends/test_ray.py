"""Trials on a Ray cluster: the same results as anywhere else, also when a node is lost in mid-epoch."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from schedulers.backends.simulated import SimulatedBackend
from schedulers.history import State
from tests.backends.trials import Curve, Once, study
from tests.test_main import EXAMPLE, ROOT, attempt, check_accounts

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.smoke

from schedulers.backends import cluster as cluster_of_ray  # noqa: E402
from schedulers.backends import ray as ray_backend  # noqa: E402
from schedulers.backends.actor import actor_environment  # noqa: E402


@pytest.fixture
def cluster():
    """A head without room for a worker, and two nodes with one CPU each: three processes of a real cluster."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0}, shutdown_at_exit=True)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster, nodes
    cluster_of_ray.disconnect()
    ray.shutdown()
    cluster.shutdown()


def make(benchmark, folder, cluster, **settings):
    return ray_backend.RayBackend(benchmark, 2, folder, address=cluster.address, **settings)


class Slow(Curve):
    """Half a second per epoch; notes where each begins."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def step(self, job, r, checkpoint_dir):
        with open(self.notes, "a") as file:
            file.write(f"{job.trial_id} {r} {os.getpid()} {os.getppid()}\n")
        time.sleep(0.5)


def test_a_trial_on_a_lost_node_goes_on_from_its_checkpoint(cluster, tmp_path):
    """SIGKILL to a node's daemon in mid-epoch; both trials' curves equal the uninterrupted ones."""
    from schedulers.types import Job

    cluster, nodes = cluster
    benchmark, notes = Slow(str(tmp_path / "notes")), []
    backend = make(benchmark, tmp_path, cluster, on_note=lambda worker, text, extra: notes.append(text))
    jobs = [Job(trial, {"x": trial / 2}, 0, 8, until=8) for trial in range(2)]
    curves, killed = {0: [], 1: []}, None
    try:
        for worker, job in enumerate(jobs):
            backend.start(job, worker)
        while sum(map(len, curves.values())) < 16:
            report = backend.next_report()
            assert not report.error, report.error
            curves[report.trial_id].append((report.r, report.metric))
            if report.r == 8:
                backend.release(report.trial_id, keep_checkpoint=True)
            elif min(map(len, curves.values())) >= 3 and killed is None:
                killed = kill_node(nodes[0])
    finally:
        backend.close()
    for trial in range(2):
        reference = SimulatedBackend(Curve(), 1)
        reference.start(Job(trial, {"x": trial / 2}, 0, 8, until=8), 0)
        expected = []
        for _ in range(8):
            report = reference.next_report()
            expected.append((report.r, report.metric))
            reference.resume(trial, 8) if report.r < 8 else None
        assert curves[trial] == expected
    assert any("its node is lost: trial" in note for note in notes)
    begun = [tuple(map(int, line.split()[:2])) for line in (tmp_path / "notes").read_text().splitlines()]
    assert max(begun.count((trial, 1)) for trial in range(2)) == 1, "neither began from scratch"


def kill_node(node):
    """SIGKILL to the node's own process and to all that it has started, its actors among them: a machine that is gone."""
    (process,) = [info.process for kind, infos in node.all_processes.items() if kind == "raylet" for info in infos]
    started = [int(pid) for tasks in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in tasks.read_text().split()]
    for pid in (process.pid, *started):
        os.kill(pid, signal.SIGKILL)
    return process.pid


def test_a_study_on_two_nodes_loses_one_of_them_and_no_result(cluster, tmp_path):
    cluster, nodes = cluster
    benchmark, notes = Slow(str(tmp_path / "notes")), []
    backend = make(benchmark, tmp_path, cluster, on_note=lambda worker, text, extra: notes.append(text))
    timer = threading.Timer(4.0, kill_node, (nodes[1],))
    timer.start()
    history, events = study(backend, benchmark, limit=8, variant="promotion")
    timer.join()
    assert any("its node is lost" in note for note in notes)
    assert len(history.trials) == 8 and not history.pending
    assert not any(trial.state is State.FAILED for trial in history.trials)
    pairs = list(zip(history.observed_trials, history.observed_resources, history.observed_metrics, strict=True))
    configs = {trial.trial_id: trial.proposal.config["x"] for trial in history.trials}
    assert all(metric == configs[trial] + 1 / r for trial, r, metric in pairs)
    assert any(event.report and event.report.r == 8 for event in events)


@pytest.mark.parametrize("way", ["raise", "kill", "hang", "xla"])
def test_what_goes_wrong_in_an_actor_fails_its_trial_only(way, cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(str(tmp_path / "marks"), way, every=4)
    history, events = study(make(benchmark, tmp_path, cluster[0], report_timeout=3.0), benchmark, limit=6)
    errors = {e.report.trial_id: e.report.error for e in events if e.report and e.report.error}
    assert errors and all(trial % 4 == 0 for trial in errors)
    said = {"raise": "KeyError", "kill": "the Ray actor died during resource 3", "hang": "hang: no report", "xla": "out of memory: "}[way]
    assert all(said in error for error in errors.values()), errors
    assert {t.trial_id for t in history.trials if t.state is State.FAILED} == errors.keys()


def test_retries_and_decisions_are_those_of_any_backend(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    benchmark = Once(str(tmp_path / "marks"), "kill", every=3)
    history, events = study(ray_backend.RayBackend(benchmark, 1, tmp_path, address=cluster[0].address), benchmark, retries=1)
    whole, _ = study(SimulatedBackend(Curve(), 1), Curve())
    assert (history.observed_trials, history.observed_metrics) == (whole.observed_trials, whole.observed_metrics)
    assert any(event.kind == "retry" for event in events)


class Explodes(Curve):
    def __setstate__(self, state):
        raise ImportError("no such module on the node")


def test_an_actor_that_cannot_start_ends_the_study_with_its_own_words(cluster, tmp_path):
    with pytest.raises(RuntimeError, match="could not start on the Ray cluster .*no such module on the node"):
        study(make(Explodes(), tmp_path, cluster[0]), Curve())


def test_more_workers_than_the_cluster_has_room_for_are_one_sentence(cluster):
    count = ray_backend.RayBackend.num_workers
    address = cluster[0].address
    assert count(None, {}, address=address) == 2
    assert count(None, {}, address=address, cpus_per_worker=0.25) == 8
    with pytest.raises(
        ValueError, match="workers=3 with backend.cpus_per_worker=1 need 3 CPUs, but the Ray cluster has 2: there is room for 2"
    ):
        count(3, {}, address=address)
    with pytest.raises(ValueError, match="backend.gpus_per_worker=0.5 need 1 GPUs, but the Ray cluster has 0"):
        count(2, {}, address=address, gpus_per_worker=0.5)


def test_an_address_that_does_not_answer_is_one_sentence_and_quick(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"backend.address={address}: nothing answers there .*refused") as caught:
        attempt(tmp_path, *EXAMPLE, "backend=ray", f"backend.address={address}")
    assert "\n" not in str(caught.value) and time.monotonic() - began < 20
    with pytest.raises(ValueError, match="backend.address=nonsense: no Ray cluster can be used there"):
        cluster_of_ray.connect("nonsense")


def test_an_actor_on_half_a_gpu_gets_its_share_of_memory_and_the_trials_platform():
    environment = {"JAX_COMPILATION_CACHE_DIR": "/shared/xla", "HOME": "/home/me"}
    assert actor_environment(environment, 0.5) == {
        "JAX_COMPILATION_CACHE_DIR": "/shared/xla",
        "JAX_PLATFORMS": "",
        "XLA_CLIENT_MEM_FRACTION": "0.45",
    }
    assert "XLA_CLIENT_MEM_FRACTION" not in actor_environment(environment, 1)


def test_the_command_runs_a_study_on_ray(tmp_path):
    arguments = [*EXAMPLE, "backend=ray", "workers=2", "budget.trials=8", "searcher=random", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "experiments.main", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    check_accounts(tmp_path, 8)
