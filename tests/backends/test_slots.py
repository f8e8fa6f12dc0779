"""Which device a worker sees: the environment that is made of settings and machine, and the sentences that forbid what cannot be."""

import os
import sys

import pytest
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

from schedulers.backends.local import LocalBackend
from schedulers.backends.slots import MEMORY_FRACTION, NOTHING, Visible, memory_fraction, parse_listing, plan, probe

LISTING = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-5d19b4b0-16f6-4c8d-b1f0-4a1e2d0a5a20)
"""
FOUR = Visible("cuda", ("0", "1", "2", "3"))
TPU = Visible("tpu", ("0", "1", "2", "3"))


def seen(slots):
    return [slot.get("CUDA_VISIBLE_DEVICES") for slot in slots]


def test_workers_are_spread_over_the_chosen_devices():
    assert seen(plan(6, [0, 1, 3], 2, {}, FOUR)) == ["0", "1", "3", "0", "1", "3"]
    assert seen(plan(2, None, 1, {}, FOUR)) == ["0", "1"]
    assert seen(plan(None, [2, 3], 2, {}, FOUR)) == ["2", "3", "2", "3"]  # as many as fit


def test_indices_select_within_what_the_caller_made_visible():
    environment = {"CUDA_VISIBLE_DEVICES": "5,GPU-aa11,7"}
    visible = probe(environment, any_program=True)
    slots = plan(3, [0, 1, 2], 1, environment, visible)
    assert seen(slots) == ["5", "GPU-aa11", "7"]
    assert not any("CUDA_DEVICE_ORDER" in slot for slot in slots)  # the caller's 5 is to stay the caller's 5
    assert plan(1, [0], 1, {}, FOUR)[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    with pytest.raises(ValueError, match=r"backend.devices=\[3\]: there is no device 3; CUDA_VISIBLE_DEVICES=5,GPU-aa11,7 shows devices 0"):
        plan(1, [3], 1, environment, visible)


def test_uuids_of_gpus_and_of_mig_instances_are_accepted():
    visible = parse_listing(LISTING)
    assert visible.names == ("0", "1") and len(visible.ids) == 4
    mig = "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"
    assert seen(plan(2, ["GPU-5d19", mig], 1, {}, visible)) == ["GPU-5d19b4b0-16f6-4c8d-b1f0-4a1e2d0a5a20", mig]
    with pytest.raises(ValueError, match="there is no device MIG-ffff; this machine shows devices 0 to 1 .*MIG-c6d4f1ef"):
        plan(1, ["MIG-ffff"], 1, {}, visible)
    with pytest.raises(ValueError, match="GPU-5d stands for several devices"):
        plan(1, ["GPU-5d"], 1, {}, visible)
    assert parse_listing("No devices were found\n") == NOTHING


@pytest.mark.parametrize(("value", "names"), [("", ()), ("-1", ()), ("1,-1,2", ("1",)), (" 0, 2 ", ("0", "2"))])
def test_cuda_visible_devices_is_read_as_cuda_reads_it(value, names):
    assert probe({"CUDA_VISIBLE_DEVICES": value}, any_program=True).names == names


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((4, [0, 9], 2), r"backend.devices=\[0, 9\]: there is no device 9; this machine shows devices 0 to 3"),
        ((1, [-1], 1), "there is no device -1"),
        ((1, ["cuda:0"], 1), "there is no device cuda:0"),
        ((5, [0, 1], 2), r"workers=5 is more than 2 devices \(0, 1\) x backend.workers_per_device=2: ask for at most 4 workers"),
        ((2, [0, 0], 1), r"names a device twice: .* use backend.workers_per_device"),
        ((2, [0], 0), "backend.workers_per_device=0 must be a whole number of at least 1"),
        ((2, [0], 1.5), "backend.workers_per_device=1.5 must be"),
    ],
)
def test_what_the_machine_does_not_have_is_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        plan(*arguments, {}, FOUR)
    assert "\n" not in str(caught.value)


def test_no_device_at_all():
    with pytest.raises(ValueError, match=r"backend.devices=\[0\]: this machine shows no GPU or TPU"):
        plan(1, [0], 1, {}, NOTHING)
    assert plan(3, None, 1, {}, NOTHING) == [{}, {}, {}]
    assert plan(2, [], 1, {}, FOUR) == [{"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}] * 2
    assert probe({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}) == NOTHING


def test_workers_on_one_device_share_its_memory_and_jaxlib_takes_the_setting(monkeypatch):
    slots = plan(3, [0], 3, {}, FOUR)
    for name in MEMORY_FRACTION:
        monkeypatch.delenv(name, raising=False)
    assert len({slot["XLA_CLIENT_MEM_FRACTION"] for slot in slots}) == 1
    for name, value in slots[0].items():
        monkeypatch.setenv(name, value)
    fraction = generate_pjrt_gpu_plugin_options()["memory_fraction"]
    assert 0.25 < fraction and 3 * fraction <= 0.9
    assert memory_fraction(1, {}) == {}


@pytest.mark.parametrize("name", MEMORY_FRACTION)
def test_a_memory_fraction_of_the_users_stays(name, monkeypatch):
    environment = {name: "0.2"}
    (slot,) = plan(1, [0], 2, environment, FOUR)
    for other in MEMORY_FRACTION:
        monkeypatch.delenv(other, raising=False)
    for key, value in (environment | slot).items():
        monkeypatch.setenv(key, value)
    assert generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.2  # it refuses when both names are set


def test_a_tpu_worker_is_a_slice_of_one_chip():
    slots = plan(4, None, 1, {}, TPU)
    assert [slot["TPU_VISIBLE_CHIPS"] for slot in slots] == ["0", "1", "2", "3"]
    for slot in slots:
        assert slot["TPU_CHIPS_PER_PROCESS_BOUNDS"] == slot["TPU_PROCESS_BOUNDS"] == "1,1,1"
        assert "CUDA_VISIBLE_DEVICES" not in slot
    with pytest.raises(ValueError, match="workers_per_device=2: a TPU chip serves one process"):
        plan(4, None, 2, {}, TPU)
    assert seen([plan(1, [1], 1, {}, Visible("tpu", ("2", "3")))[0]]) == [None]
    assert plan(1, [1], 1, {}, Visible("tpu", ("2", "3")))[0]["TPU_VISIBLE_CHIPS"] == "3"


class ShowsItsSlot:
    """Reports the device it was given, and whether the variables were there before anything else was imported."""

    mode, r_max, space = "min", 1, None

    def train(self, job, checkpoint_dir):
        assert "jax" not in sys.modules
        yield 1, float(os.environ["CUDA_VISIBLE_DEVICES"]) + float(os.environ["XLA_CLIENT_MEM_FRACTION"])


def test_each_worker_process_starts_with_its_slots_environment(tmp_path):
    from schedulers.types import Job

    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,6,8"}
    backend = LocalBackend(ShowsItsSlot(), 4, tmp_path, devices=[0, 2], workers_per_device=2, environment=environment)
    try:
        for worker in range(4):
            backend.start(Job(worker, {}, 0, 1), worker)
        metrics = {report.trial_id: report.metric for report in (backend.next_report() for _ in range(4))}
    finally:
        backend.close()
    assert metrics == {0: 4.45, 1: 8.45, 2: 4.45, 3: 8.45}


def test_epochs_are_the_same_on_a_host_that_shows_several_devices(tmp_path):
    from experiments.benchmarks.mlp import MLP
    from schedulers.types import Job
    from tests.benchmarks.test_mlp import SPACE

    curves = []
    for number in (1, 4):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
        folder = tmp_path / str(number)
        backend = LocalBackend(MLP(SPACE, "digits", 3), 1, folder, environment={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
        try:
            config = {"learning_rate": 1e-2, "batch_size": 32, "units_1": 16, "units_2": 16}
            config |= {"dropout_1": 0.1, "dropout_2": 0.1, "init_scale_1": 1.0, "init_scale_2": 1.0}
            backend.start(Job(0, config, 0, 3, until=3), 0)
            reports = [backend.next_report() for _ in range(3)]
        finally:
            backend.close()
        assert not any(report.error for report in reports)
        curves.append([report.metric for report in reports])
    assert curves[0] == curves[1]
