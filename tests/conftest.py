"""Tests run with the environment of our own processes: their flags, and the user's compilation cache."""

from collections.abc import Iterator

import pytest

from experiments.runtime import limit_mappings, prepare_environment

prepare_environment()


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    yield
    limit_mappings(beyond=15_000)
