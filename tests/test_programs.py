"""A second process finds the surrogate's programs, compiles nothing, and answers with the same bits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from experiments import programs
from experiments.programs import ProgramFolder
from mfgp import fit

STUDY = """
import json, logging, sys
from experiments.runtime import prepare_environment
prepare_environment()
logging.basicConfig(stream=sys.stderr)
from experiments.simulation import simulate
from experiments.overrides import composed
overrides = ["backend=simulated", "benchmark=curves", "searcher=gp", "searcher.num_init_random=3", "budget.trials=6", "budget.seconds=null"]
table = simulate(composed(overrides), 0)
print(json.dumps(table["metric"].to_pylist()))
"""


def study(cache: Path, **more: str) -> tuple[list[float], str]:
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"} | more
    done = subprocess.run([sys.executable, "-c", STUDY], capture_output=True, text=True, env=env, timeout=240, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.timeout(300)
def test_the_next_process_loads_them_and_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    first, _ = study(tmp_path)
    (program,) = tmp_path.glob("programs/*/*.program")
    assert any("compute" in other.name for other in tmp_path.glob("*-cache")), "JAX names its files otherwise now"
    for other in tmp_path.glob("*-cache"):  # so that what is found is not found in JAX's own
        other.unlink()
    second, said = study(tmp_path)
    assert second == first and "cannot be loaded" not in said
    assert not any("compute" in other.name for other in tmp_path.glob("*-cache")), "it was compiled again"
    written = program.read_bytes()
    program.write_bytes(written[:100_000] + bytes(1000) + written[101_000:])
    third, said = study(tmp_path)
    assert third == first and f"the program in {program} cannot be loaded and is removed: it is damaged" in said
    assert program.stat().st_size > 1000


def test_with_several_devices_nothing_is_kept(tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    first, _ = study(tmp_path, XLA_FLAGS=flags)
    assert first and not (tmp_path / "programs").exists()


def test_an_experiment_that_sets_a_constant_gets_programs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, now = ProgramFolder(tmp_path), time.time_ns() % 2**31
    kept.save("new", jax.jit(lambda: now).lower().compile())
    assert kept.load("new")() == now
    monkeypatch.setattr(fit, "HOPE", 7.0)
    assert kept.load("new") is None
    monkeypatch.undo()
    assert kept.load("new")() == now


def test_where_nothing_can_be_written_the_study_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    kept, now = ProgramFolder(tmp_path / "file" / "folder"), time.time_ns() % 2**31  # a program that is in no cache
    with caplog.at_level("INFO"):
        kept.save("new", jax.jit(lambda: now).lower().compile())
    assert "a program is not kept in" in caplog.text


def test_folders_that_were_not_used_for_long_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / "old", tmp_path / "young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert programs._folder.__wrapped__(tmp_path) is not None
    assert young.is_dir() and not old.exists()
