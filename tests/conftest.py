"""Tests run with the environment of our own processes: their flags, and the user's compilation cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.runtime import prepare_environment

prepare_environment()

MAPPINGS = Path("/proc/self/maps")
MANY = 15_000  # Linux allows a process 65,530, every compiled program takes hundreds, and XLA aborts when there are no more


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    yield
    if MAPPINGS.exists() and len(MAPPINGS.read_bytes().splitlines()) > MANY:
        import jax

        jax.clear_caches()
