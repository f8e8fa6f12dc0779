"""The floating-point numbers in which a surrogate computes: 64 bits, or 32 for devices that have no others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

PRECISIONS = ("float64", "float32")


@contextmanager
def precision_of(surrogate: Any) -> Iterator[None]:
    """A scope in which JAX computes as `surrogate.options.precision` says.

    With float32 products of matrices are of full precision too: by default a TPU rounds their factors to bfloat16 and a GPU to tf32, with
    which no covariance stays positive definite.
    """
    if surrogate.options.precision == "float64":
        with jax.enable_x64(True):
            yield
    else:
        with jax.enable_x64(False), jax.default_matmul_precision("float32"):
            yield
