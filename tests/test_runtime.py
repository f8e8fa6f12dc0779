"""Where the surrogate computes: on the CPU unless the user asks for a GPU, and never silently elsewhere. No test here needs a GPU."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import runtime
from mfgp import compiler

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def settings(monkeypatch):
    """What `place_surrogate` tells JAX, which is not told itself."""
    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    return told


def test_the_surrogate_stays_on_the_cpu_unless_asked(settings):
    runtime.place_surrogate("cpu")
    assert settings == {} and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ


def test_a_surrogate_on_the_gpu_takes_the_first_one_and_leaves_its_memory_to_the_trials(settings, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda kind: ["first", "second"] if kind == "gpu" else [])
    runtime.place_surrogate("gpu")
    assert settings == {"jax_platforms": "", "jax_default_device": "first"}
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_a_gpu_that_does_not_exist_is_one_sentence_and_changes_nothing(settings, monkeypatch):
    def none(kind):
        raise RuntimeError("Unknown backend:\n'gpu' requested")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(ValueError, match="surrogate_device=gpu: JAX finds no GPU on this machine .*take cpu") as caught:
        runtime.place_surrogate("gpu")
    assert "\n" not in str(caught.value) and settings == {"jax_platforms": jax.config.jax_platforms}


@pytest.mark.parametrize("device", ["tpu", "cuda:0"])
def test_an_unknown_device_is_named_with_the_valid_ones(device):
    with pytest.raises(ValueError, match=f"surrogate_device={device} is unknown; valid are cpu, gpu"):
        runtime.place_surrogate(device)


def test_a_study_that_asks_for_a_gpu_where_there_is_none_ends_before_any_trial(tmp_path):
    command = [sys.executable, "-m", "experiments.main", "surrogate_device=gpu", f"hydra.run.dir={tmp_path}"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "surrogate_device=gpu: JAX finds no GPU" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "journal.sqlite").exists()


def test_trials_keep_the_platform_that_the_user_chose_whatever_the_surrogate_has(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv(runtime.TRIAL_PLATFORMS, "")
    monkeypatch.delenv(runtime.TRIAL_PLATFORMS)
    runtime.keep_accelerator_for_trials()
    assert os.environ["JAX_PLATFORMS"] == "cpu" and runtime.trial_environment()["JAX_PLATFORMS"] == "cuda"


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="a promise about glibc's malloc: with another C library keep_freed_memory does nothing"
)
def test_memory_that_was_freed_is_not_fetched_from_the_system_again():
    """A process of ours touches the same 64 MiB ten times, in arrays of two, and pays for its pages once."""
    program = """
import resource
import numpy as np
from experiments.runtime import keep_freed_memory
if {keep}: keep_freed_memory()
[np.ones(2**18) for _ in range(32)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): [np.ones(2**18) for _ in range(32)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        keep: int(subprocess.run([sys.executable, "-c", program.format(keep=keep)], cwd=ROOT, capture_output=True, text=True).stdout)
        for keep in (False, True)
    }
    assert 10 * faults[True] < faults[False]


def test_programs_are_forgotten_when_they_have_taken_too_many_mappings(monkeypatch, tmp_path):
    asked: list[str] = []
    monkeypatch.setattr(compiler, "forget_programs", lambda: asked.append("forget"))
    (tmp_path / "maps").write_text("a mapping\n" * 100)
    monkeypatch.setattr(runtime, "MAPPINGS", tmp_path / "maps")
    runtime.limit_mappings(beyond=100)
    assert asked == []
    runtime.limit_mappings(beyond=99)
    assert asked == ["forget"]
    monkeypatch.setattr(runtime, "MAPPINGS", tmp_path / "not there")
    runtime.limit_mappings(beyond=0)
    assert asked == ["forget"]
