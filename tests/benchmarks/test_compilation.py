"""Compile time is counted, and the persistent cache is recognised, from JAX's own events."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments import compilation
from experiments.runtime import prepare_environment

PROGRAM = """
import jax, jax.numpy as jnp
from experiments import compilation
compilation.watch()
with compilation.announced("a program"):
    jax.jit(lambda x: jnp.tanh(x) @ x).lower(jax.ShapeDtypeStruct((3, 3), jnp.float32)).compile()
stats = compilation.snapshot()
assert stats.seconds > 0
print(stats.programs, stats.cache_hits)
"""


def test_each_compiled_program_counts_once_and_a_repeated_call_not_at_all() -> None:
    compilation.watch()
    compilation.watch()  # a second call must not count twice
    program, x = jax.jit(lambda x: jnp.sin(x) * 3.25), jnp.ones(7)
    before = compilation.snapshot()
    program(x)
    after = compilation.snapshot()
    program(x)
    assert (after - before).programs == 1
    assert (after - before).seconds > 0
    assert compilation.snapshot() == after


def test_a_second_process_takes_its_programs_from_the_cache(tmp_path: Path) -> None:
    env = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    prepare_environment(env)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=120
        ).stdout.split()
        for _ in range(2)
    ]
    assert outputs == [["1", "0"], ["1", "1"]]  # programs, and those of them from the cache


def test_a_notice_says_before_and_after_what_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="experiments.compilation"), compilation.announced("the answer"):
        assert caplog.messages == ["compiling the answer (first use in this process)"]
        jax.jit(lambda x: jnp.cos(x) * 41.5)(jnp.ones(5))
    assert caplog.messages[1].startswith(("compiled in ", "taken from the compilation cache in "))
    assert caplog.records[1].compile_seconds > 0


def test_a_program_is_compiled_quickly_and_all_the_same_where_xla_lacks_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = jax.jit(lambda x: jnp.sin(x) * 2.5).lower(jax.ShapeDtypeStruct((3,), jnp.float32))
    asked = []
    compile_ = type(lowered).compile
    monkeypatch.setattr(type(lowered), "compile", lambda self, **options: asked.append(options) or compile_(self, **options))
    for options in (compilation.QUICK, {**compilation.QUICK, "xla_no_such_option": 1}):
        monkeypatch.setattr(compilation, "QUICK", options)
        assert float(compilation.quick(lowered)(jnp.ones(3, jnp.float32))[0]) == pytest.approx(2.5 * math.sin(1))
    assert [bool(options) for options in asked] == [True, True, False]
