"""Who may import whom: mfgp <- schedulers <- experiments, Hydra at the edge only, no clock and no global randomness inside."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IMPURE = {"time", "random", "os", "subprocess", "threading", "multiprocessing", "datetime", "socket"}
HYDRA_MODULES = {
    "experiments/main.py",
    "experiments/cli.py",
    "experiments/build.py",
    "experiments/overrides.py",
    "experiments/figures.py",
    "experiments/part.py",
    "experiments/tabulate.py",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def sources(package):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", sources("mfgp"))
def test_mfgp_knows_arrays_only(path):
    allowed = {"jax", "jaxlib", "numpy", "jaxtyping", "mfgp", "optax", "scipy", "tensorflow_probability"}
    allowed |= {
        "abc",
        "collections",
        "concurrent",
        "contextlib",
        "dataclasses",
        "enum",
        "functools",
        "inspect",
        "itertools",
        "math",
        "types",
        "typing",
        "weakref",
    }
    allowed |= {"warnings"}
    used = {name.split(".")[0] for name in imports(path)}
    assert used <= allowed, f"{path.name} imports {sorted(used - allowed)}"
    if path.name != "tfp.py":
        assert "tensorflow_probability" not in used


@pytest.mark.parametrize("path", sources("schedulers"))
def test_schedulers_are_pure_but_for_their_backends_and_the_journal(path):
    used = {name.split(".")[0] for name in imports(path)}
    relative = path.relative_to(ROOT / "schedulers")
    assert not used & {"hydra", "omegaconf", "experiments", "flax"}
    if relative.parts[0] != "backends":
        assert not used & IMPURE, f"{path.name} imports {sorted(used & IMPURE)}"
    if relative.parts[0] != "searchers":
        assert "mfgp" not in used
        assert not any(name.startswith("schedulers.searchers") for name in imports(path))
    if relative.name != "encoding.py":
        assert "jax" not in used
    if relative.name != "journal.py":
        assert "sqlite3" not in used


@pytest.mark.parametrize("path", sources("experiments"))
def test_hydra_stays_at_the_edge(path):
    if str(path.relative_to(ROOT)) not in HYDRA_MODULES:
        assert "hydra" not in {name.split(".")[0] for name in imports(path)}


def test_a_worker_loads_neither_jax_nor_mfgp_before_its_benchmark():
    import subprocess
    import sys

    code = "import schedulers.backends.worker, sys; print([m for m in ('jax', 'mfgp', 'hydra', 'ConfigSpace') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"
