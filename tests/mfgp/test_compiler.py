"""Whole programs are kept under names that tell apart whatever makes them differ, and those that no name can tell apart are not kept."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp import compiler
from mfgp.compiler import compiled, keep_programs

ROOT = Path(__file__).parents[2]
ROWS = np.arange(3.0, dtype=np.float32)


class Remembered:
    """A shelf in memory."""

    def __init__(self) -> None:
        self.programs: dict[str, Any] = {}
        self.loads = 0

    def load(self, name: str) -> Any:
        self.loads += name in self.programs
        return self.programs.get(name)

    def save(self, name: str, program: Any) -> None:
        assert name not in self.programs
        self.programs[name] = program


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Remembered:
    kept = Remembered()
    monkeypatch.setattr(compiler, "_shelf", kept)
    monkeypatch.setattr(compiler, "OURS", (*compiler.OURS, "tests"))
    return kept


def scaled(surrogate: Any, x: Any, by: Any) -> Any:
    return {"y": x * by + surrogate.options.restarts}


def fresh() -> Any:
    """As in another process: nothing is compiled yet."""
    return compiled(static_argnames=("surrogate",))(scaled)


def test_a_program_is_made_once_and_found_by_the_next_process(shelf: Remembered) -> None:
    first, second = fresh(), fresh()
    for x in (ROWS, ROWS + 1, jnp.asarray(ROWS)):
        np.testing.assert_array_equal(first(mfgp.exp_decay(), x, by=np.float32(2))["y"], np.asarray(x) * 2 + 4)
    assert (len(shelf.programs), shelf.loads, first.num_programs()) == (1, 0, 1)
    np.testing.assert_array_equal(second(mfgp.exp_decay(), ROWS, np.float32(2))["y"], ROWS * 2 + 4)
    assert (len(shelf.programs), shelf.loads, second.num_programs()) == (1, 1, 1)


def test_what_differs_has_another_name(shelf: Remembered) -> None:
    program, by = fresh(), np.float32(2)
    calls = [
        lambda: program(mfgp.exp_decay(), ROWS, by),
        lambda: program(mfgp.exp_decay(), ROWS[:2], by),
        lambda: program(mfgp.exp_decay(restarts=3), ROWS, by),
        lambda: program(mfgp.matern(), ROWS, by),
        lambda: program(mfgp.exp_decay(), ROWS.astype(np.int32), by),
        lambda: program(mfgp.exp_decay(), {"a": ROWS}["a"], np.int32(2)),
    ]
    for number, call in enumerate(calls, 1):
        call()
        assert len(shelf.programs) == number
    compiled(static_argnames=("surrogate",), quick=False)(scaled)(mfgp.exp_decay(), ROWS, by)
    assert len(shelf.programs) == len(calls) + 1
    with jax.enable_x64(True):
        assert program(mfgp.exp_decay(), ROWS.astype(np.float64), by)["y"].dtype == np.float64
    assert len(shelf.programs) == len(calls) + 2


def test_a_kernel_of_the_users_own_is_compiled_and_not_kept(shelf: Remembered) -> None:
    def family(**_: Any) -> None: ...

    for surrogate in (mfgp.Surrogate(family, ()), mfgp.Surrogate(partial(mfgp.Surrogate, lambda: 0), ())):
        assert fresh()(surrogate, ROWS, np.float32(2))["y"].shape == (3,)
    assert not shelf.programs


class Point(NamedTuple):
    options: Any = mfgp.exp_decay().options


def test_a_function_that_borrows_a_name_and_a_tuple_that_has_another_type_are_not_kept(shelf: Remembered) -> None:
    @wraps(mfgp.exp_decay)
    def borrowed(**_: Any) -> None: ...

    for surrogate in (mfgp.Surrogate(borrowed, ()), Point()):
        assert fresh()(surrogate, ROWS, np.float32(2))["y"].shape == (3,)
    assert not shelf.programs


def test_a_function_that_closes_over_something_is_not_kept(shelf: Remembered) -> None:
    for offset in (1.0, 2.0):
        np.testing.assert_array_equal(compiled(static_argnames=())(lambda x, offset=offset: x + offset)(ROWS), ROWS + offset)
    assert not shelf.programs


def test_threads_that_need_one_program_make_it_once_and_an_error_reaches_all_of_them(shelf: Remembered) -> None:
    program = fresh()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: program(mfgp.exp_decay(), ROWS + i, np.float32(2))["y"], range(32)))
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, (ROWS + i) * 2 + 4)
    assert len(shelf.programs) == 1
    with pytest.raises(TypeError, match="incompatible shapes"):
        program(mfgp.exp_decay(), ROWS, np.ones(2, np.float32))
    assert program.num_programs() == 1


@pytest.mark.parametrize("is_kept", [False, True])
def test_programs_that_are_forgotten_leave_the_process_and_come_again(
    shelf: Remembered, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    monkeypatch.setattr(compiler, "_shelf", shelf if is_kept else None)
    program = fresh()
    for _ in range(2):
        np.testing.assert_array_equal(program(mfgp.exp_decay(), ROWS, np.float32(2))["y"], ROWS * 2 + 4)
        assert program.num_programs() == 1
        compiler.forget_programs()
        assert program.num_programs() == 0
    assert shelf.loads == int(is_kept)


def num_mappings() -> int:
    return len(Path("/proc/self/maps").read_bytes().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells, and limits, the number of a process' mappings")
def test_forgotten_programs_give_their_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_shelf", None)
    programs = compiled(static_argnames=("by",))(lambda x, by: jnp.linalg.cholesky(x @ x.T + by * jnp.eye(3)))
    programs(np.eye(3, dtype=np.float32), by=0)  # JAX's own threads and libraries are there from now on
    compiler.forget_programs()
    before = num_mappings()
    for by in range(1, 21):
        programs(np.eye(3, dtype=np.float32), by=by)
    grown = num_mappings() - before
    assert grown > 20
    compiler.forget_programs()
    assert num_mappings() - before < grown / 4


def test_without_a_shelf_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_shelf", Remembered())
    keep_programs(None)
    monkeypatch.setattr(compiler, "_named", lambda value: pytest.fail("named"))
    assert fresh()(mfgp.exp_decay(), ROWS, np.float32(2))["y"].shape == (3,)


MISCOMPILED = """
import os
{prepare}
import jax
import jax.numpy as jnp
import numpy as np
jax.config.update("jax_enable_x64", True)
from mfgp.compiler import compiled
from mfgp.data import Inputs
from mfgp.kernels import Matern

def few_by_many(x, z, level, levels):
    few = Inputs(x, jnp.arange(len(x)) % len(levels), levels, jnp.ones(len(x), bool))
    many = Inputs(z, jnp.full(len(z), level), levels, jnp.ones(len(z), bool))
    one = jnp.ones(())
    return Matern(jnp.ones(8), one, one, 0 * one, one).cov(few, many)

rng = np.random.default_rng(0)
x, z, levels = rng.random((8, 8)), rng.random((1000, 8)), np.linspace(0.1, 1, 5)
d = np.sqrt(5 * (((x[:, None] - z[None]) ** 2).sum(-1) + (levels[np.arange(8) % 5] - levels[4])[:, None] ** 2))
wanted = (1 + d + d * d / 3) * np.exp(-d)
for how in ({hows}):
    np.testing.assert_allclose(how(few_by_many)(x, z, np.int32(4), levels), wanted, rtol=1e-12)
"""


@pytest.mark.parametrize(
    ("prepare", "hows"),
    [
        ("os.environ.pop('XLA_FLAGS', None)", "compiled(static_argnames=()), compiled(static_argnames=(), quick=False)"),
        ("from experiments.runtime import prepare_environment; prepare_environment()", "jax.jit,"),
    ],
)
def test_what_xla_fuses_is_computed_rightly(prepare: str, hows: str) -> None:
    """jax 0.10.2 and 0.11.0 give nan here by default (`compiler.SAFE`); ours do not, with or without our environment."""
    program = MISCOMPILED.format(prepare=prepare, hows=hows)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
