"""Second implementations in NumPy and SciPy, written from the papers' formulas: dense, unpadded, per pair of points."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from mfgp.data import Data, Inputs
from mfgp.kernels import ExpDecay, Matern


def matern52(x: np.ndarray, z: np.ndarray, inverse_bandwidth: Any) -> np.ndarray:
    b = np.sqrt(5.0) * cdist(x * inverse_bandwidth, z * inverse_bandwidth)
    return (1 + b + b**2 / 3) * np.exp(-b)


def mean(process: Any, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    if isinstance(process, ExpDecay):
        kappa = (process.alpha / process.mean_lambda / (u + process.alpha / process.mean_lambda)) ** process.alpha
        return process.constant + (process.gamma - process.delta * process.constant) * kappa
    return np.full(len(u), process.constant)


def cov(process: Any, x: np.ndarray, u: np.ndarray, z: np.ndarray, v: np.ndarray) -> np.ndarray:
    if isinstance(process, Matern):
        w = np.append(process.inverse_bandwidth, process.resource_inverse_bandwidth)
        return process.scale * matern52(np.column_stack([x, u]), np.column_stack([z, v]), w)
    alpha, beta = process.alpha, process.alpha / process.mean_lambda
    both = (beta / (u[:, None] + v[None] + beta)) ** alpha
    one, other = ((beta / (t + beta)) ** alpha for t in (u, v))
    drop = process.gamma - process.delta * process.constant
    factor = 1 - process.delta * (one[:, None] + other[None] - process.delta * both)
    k_x = process.scale * matern52(x, z, process.inverse_bandwidth)
    return drop**2 * (both - np.outer(one, other)) + k_x * factor


def as_numpy(process: Any) -> Any:
    return type(process)(*(np.asarray(field) for field in process))


def inputs(x: np.ndarray, u: np.ndarray, rows: int | None = None, levels: np.ndarray | None = None) -> Inputs:
    """`Inputs` of rows (x, u), padded to `rows`."""
    levels = np.unique(u) if levels is None else levels
    extra = (rows or len(u)) - len(u)
    level = np.concatenate([np.searchsorted(levels, u), np.zeros(extra, int)])
    return Inputs(
        jnp.asarray(np.concatenate([x, np.full((extra, x.shape[1]), 0.5)])),
        jnp.asarray(level, jnp.int32),
        jnp.asarray(levels),
        jnp.arange(len(level)) < len(u),
    )


def data(x: np.ndarray, u: np.ndarray, y: np.ndarray, rows: int | None = None, levels: np.ndarray | None = None) -> Data:
    padded = inputs(x, u, rows, levels)
    return Data(padded, jnp.concatenate([jnp.asarray(y), jnp.zeros(padded.mask.shape[0] - len(y))]))


RUNGS = (np.array([1.0, 3.0, 9.0, 27.0]) - 0.5) / 27


def processes(rng: np.random.Generator, d: int) -> list[Any]:
    """One well-conditioned member of each family."""
    w = jnp.asarray(np.exp(rng.normal(0, 0.4, d)))
    scale, noise, constant = jnp.asarray(1.3), jnp.asarray(0.05), jnp.asarray(0.2)
    return [
        Matern(w, jnp.asarray(1.7), scale, constant, noise),
        ExpDecay(w, scale, constant, jnp.asarray(1.4), jnp.asarray(2.0), jnp.asarray(0.8), jnp.asarray(0.6), noise),
    ]


def study(rng: np.random.Generator, n: int, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n observations of curves that fall with r."""
    x, u = rng.uniform(size=(n, d)), rng.choice(RUNGS, n)
    y = np.sin(4 * x[:, 0]) + (x[:, 1] - 0.4) ** 2 + np.exp(-3 * u) * (1 + 0.3 * x[:, -1]) + 0.02 * rng.normal(size=n)
    return x, u, y
