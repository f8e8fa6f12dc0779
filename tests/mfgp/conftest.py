"""Shapes are checked at run time in these tests, and everything runs in float64."""

from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

install_import_hook("mfgp", "beartype.beartype")

import jax  # noqa: E402


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
