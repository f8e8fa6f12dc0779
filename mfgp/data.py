"""Observations as padded arrays: one program per bucket of sizes, whatever the number of observations.

A resource enters as an index into a short table `levels` of the distinct u(r) = (r - 1/2) / r_max, r_acq included: everything that
a kernel computes over resources is computed on the table (R x R, R small) and then spread over the rows.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

MIN_ROWS = 16
MIN_LEVELS = 8


class Inputs(NamedTuple):
    """N pairs (configuration, resource). Padding repeats legal values: nan would leak through gradients of `where`."""

    x: Float[Array, "N D"]  # encoded configurations, in [0, 1]
    level: Int[Array, "N"]  # index into levels
    levels: Float[Array, "R"]  # u(r) of the distinct resources, ascending, the last one repeated as padding
    mask: Bool[Array, "N"]  # False: padding, which must not influence any result


class Data(NamedTuple):
    """Observations; y is standardised, minimised, and 0 where padded."""

    inputs: Inputs
    y: Float[Array, "N"]


def bucket(n: int, smallest: int = MIN_ROWS) -> int:
    """The padded size for n rows: powers of two up to 128, then steps of about 5/4 (128, 160, 200, 256, 320, 400, 512, ...).

    Work grows with the cube of the size, so the finer steps bound the waste of padding by a factor of about two.
    """
    size = smallest
    while size < min(n, 128):
        size *= 2
    while size < n:
        octave = 2 ** int(np.log2(size))
        size = next(octave * step // 16 for step in (20, 25, 32) if octave * step // 16 > size)
    return size


def pad(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` with its first row repeated up to `rows` rows (zeros where it has none)."""
    array = np.asarray(array)
    filler = array[:1] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(filler, rows - len(array), axis=0)])


class Standard(NamedTuple):
    """z = (y - mean) / std."""

    mean: float
    std: float


def standardise(y: np.ndarray) -> tuple[np.ndarray, Standard]:
    """(y - mean) / std over all resources jointly (population std; 1 for constant targets), safe for |y| from 1e-300 to 1e300."""
    y = np.asarray(y, np.float64)
    unit = float(np.max(np.abs(y))) or 1.0
    scaled = y / unit
    mean, std = float(scaled.mean()), float(scaled.std())
    if std <= 1e-13:  # differences below rounding carry no information
        std = 1.0
    return (scaled - mean) / std, Standard(mean * unit, std * unit)
