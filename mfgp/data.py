"""Observations as padded arrays: one program per bucket of sizes, whatever the number of observations.

A resource enters as an index into a short table `levels` of the distinct u(r) = (r - 1/2) / r_max, r_acq included: everything that
a kernel computes over resources is computed on the table (R x R, R small) and then spread over the rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import ndtri

MIN_ROWS = 64  # smaller sizes would save milliseconds and cost a compilation each
MIN_LEVELS = 8
FEW_ROWS = 64  # rows of which a few chosen ones are computed together


class Inputs(NamedTuple):
    """N pairs (configuration, resource). Padding repeats legal values: nan would leak through gradients of `where`."""

    x: Float[Array, "N D"]  # encoded configurations, in [0, 1]
    level: Int[Array, "N"]  # index into levels
    levels: Float[Array, "R"]  # u(r) of the distinct resources, ascending, the last one repeated as padding
    mask: Bool[Array, "N"]  # False: padding, which must not influence any result


class Data(NamedTuple):
    """Observations; y is standardised, minimised, and 0 where padded.

    With `curves` (collapsed.Curves), the rows stand for the more numerous observations kept there.
    """

    inputs: Inputs
    y: Float[Array, "N"]
    curves: Any = None


def at_level(x: Float[Array, "M D"], level: Int[Array, ""], like: Inputs) -> Inputs:
    """The rows of x at one level of another `Inputs`' table."""
    rows = x.shape[:1]
    return Inputs(x, jnp.full(rows, level, like.level.dtype), like.levels, jnp.ones(rows, bool))


def of_chosen(values: Callable[[Int[Array, "K"]], Float[Array, "*b K"]], chosen: Bool[Array, "N"], fill: float) -> Float[Array, "*b N"]:
    """values(row numbers) of the chosen rows, `fill` at all others; FEW_ROWS rows at a time, so that work is by the number chosen."""
    rows, size = chosen.shape[0], min(FEW_ROWS, chosen.shape[0])
    num = jnp.sum(chosen)
    order = jnp.pad(jnp.argsort(~chosen), (0, -rows % size))

    def chunk(number: Int[Array, ""], found: Float[Array, "*b N"]) -> Float[Array, "*b N"]:
        place = number * size + jnp.arange(size)
        row = order[place]
        return found.at[..., jnp.where(place < num, row, rows)].set(values(row), mode="drop")

    like = jax.eval_shape(values, order[:size])
    return jax.lax.fori_loop(0, -(-num // size), chunk, jnp.full((*like.shape[:-1], rows), fill, like.dtype))


def thin(data: Data, size: int) -> Data:
    """`size` rows, evenly spread over those that are no padding (over some of it, too, if these are fewer); all if there are no more."""
    rows = data.y.shape[0]
    if rows <= size:
        return data
    n = jnp.sum(data.inputs.mask)
    some = jnp.minimum(jnp.arange(size) * jnp.maximum(n, size) // size, rows - 1)
    inputs = data.inputs._replace(x=data.inputs.x[some], level=data.inputs.level[some], mask=data.inputs.mask[some])
    return Data(inputs, data.y[some])


def bucket(n: int, smallest: int = MIN_ROWS) -> int:
    """The padded size for n rows: powers of two up to 256, then steps of about 5/4 (256, 320, 400, 512, then 640, 800, 1024, 1280, ...).

    Work grows with the cube of the size, so the finer steps bound the waste of padding by a factor of about two; between 512 and 1024,
    the largest size that is fitted, steps are half as long.
    """
    size = smallest
    while size < min(n, 256):
        size *= 2
    while size < n:
        octave = 2 ** int(np.log2(size))
        steps = (18, 20, 22, 25, 28, 32) if octave == 512 else (20, 25, 32)
        size = next(octave * step // 16 for step in steps if octave * step // 16 > size)
    return size


def pad(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` with its first row repeated up to `rows` rows (zeros where it has none)."""
    array = np.asarray(array)
    filler = array[:1] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(filler, rows - len(array), axis=0)])


def standardise(y: np.ndarray) -> np.ndarray:
    """(y - mean) / std, population std, 1 for constant targets; safe for |y| from 1e-300 to 1e300."""
    y = np.asarray(y, np.float64)
    scaled = y / (float(np.max(np.abs(y))) or 1.0)
    std = float(scaled.std())
    return (scaled - scaled.mean()) / (std if std > 1e-13 else 1.0)  # differences below rounding carry no information


def joint(y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """All resources together, as in the paper: the lowest ones dominate mean and std."""
    return standardise(y)


def per_rung(y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Each resource by its own mean and std, so that small differences at the top count; it forgets that curves fall.

    A resource with fewer than three distinct values borrows the transformation of the nearest lower one that has them (else of the
    nearest higher one; with none at all it is `joint`).
    """
    levels = np.unique(r)
    rich = np.array([level for level in levels if len(np.unique(y[r == level])) >= 3])
    if not len(rich):
        return standardise(y)
    z = np.empty(len(y))
    for level in levels:
        lender = rich[rich <= level][-1] if np.any(rich <= level) else rich[0]
        rows, sample = r == level, y[r == lender]
        unit = float(np.max(np.abs(np.concatenate([sample, y[rows]])))) or 1.0
        std = float((sample / unit).std())
        z[rows] = (y[rows] / unit - float((sample / unit).mean())) / (std if std > 1e-13 else 1.0)
    return z


def copula(y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Normal scores of the joint ranks (ties share theirs): keeps the order and nothing else, so no outlier can matter."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    return ndtri((upto - 0.5 * counts)[inverse] / len(y))


TARGETS = {"joint": joint, "per_rung": per_rung, "copula": copula}
