"""Second implementations in NumPy and SciPy, written from the papers' formulas: dense, unpadded, per pair of points."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from mfgp import kernels
from mfgp.data import Data, Inputs

RUNGS = (np.array([1.0, 3.0, 9.0, 27.0]) - 0.5) / 27


def matern52(x: np.ndarray, z: np.ndarray, inverse_bandwidth: Any) -> np.ndarray:
    b = np.sqrt(5.0) * cdist(x * inverse_bandwidth, z * inverse_bandwidth)
    return (1 + b + b**2 / 3) * np.exp(-b)


def kumaraswamy(t: np.ndarray, a: Any, b: Any) -> np.ndarray:
    return 1 - (1 - t**a) ** b


def kappa(process: Any, u: np.ndarray) -> np.ndarray:
    beta = process.alpha / process.mean_lambda
    return (beta / (u + beta)) ** process.alpha


def mean(process: Any, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    match process:
        case kernels.WarpedInputs():
            return mean(process.process, kumaraswamy(x, process.input_warp_a, process.input_warp_b), u)
        case kernels.ExpDecay():
            return process.constant + (process.gamma - process.delta * process.constant) * kappa(process, u)
        case kernels.FreezeThaw():
            return process.constant + process.gamma * kappa(process, u)
        case kernels.Independent() | kernels.Coregional():
            return process.level_constant[np.searchsorted(RUNGS, u)]
    return np.full(len(u), process.constant)


def cov(process: Any, x: np.ndarray, u: np.ndarray, z: np.ndarray, v: np.ndarray) -> np.ndarray:
    if isinstance(process, kernels.WarpedInputs):
        x, z = (kumaraswamy(points, process.input_warp_a, process.input_warp_b) for points in (x, z))
        return cov(process.process, x, u, z, v)
    if isinstance(process, kernels.Matern | kernels.MaternWarped):
        if isinstance(process, kernels.MaternWarped):
            u, v = (kumaraswamy(t, process.warp_a, process.warp_b) for t in (u, v))
        w = np.append(process.inverse_bandwidth, process.resource_inverse_bandwidth)
        return process.scale * matern52(np.column_stack([x, u]), np.column_stack([z, v]), w)
    k_x = matern52(x, z, process.inverse_bandwidth)
    i, j = np.searchsorted(RUNGS, u), np.searchsorted(RUNGS, v)
    if isinstance(process, kernels.Independent):
        return k_x * np.where(i[:, None] == j[None], process.level_scale[i][:, None], 0.0)
    if isinstance(process, kernels.Coregional):
        r = len(process.deviation)
        values, vectors = np.linalg.eigh(0.2 * np.eye(r) + 0.8)
        w = vectors @ np.diag(np.sqrt(values)) @ vectors.T + process.deviation
        return k_x * (w @ w.T)[np.ix_(i, j)]
    both, one, other = kappa(process, u[:, None] + v[None]), kappa(process, u), kappa(process, v)
    if isinstance(process, kernels.FreezeThaw):
        same = np.array([[np.array_equal(a, b) for b in z] for a in x])
        return process.scale * k_x + same * process.gamma**2 * (both - np.outer(one, other))
    drop = process.gamma - process.delta * process.constant
    factor = 1 - process.delta * (one[:, None] + other[None] - process.delta * both)
    return drop**2 * (both - np.outer(one, other)) + process.scale * k_x * factor


def as_numpy(process: Any) -> Any:
    return jax.tree.map(np.asarray, process)


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


def processes(rng: np.random.Generator, d: int) -> list[Any]:
    """One well-conditioned member of each family."""
    w = jnp.asarray(np.exp(rng.normal(0, 0.4, d)))
    scale, noise, constant = jnp.asarray(1.3), jnp.asarray(0.05), jnp.asarray(0.2)
    decay = tuple(jnp.asarray(value) for value in (1.4, 2.0, 0.8))  # alpha, mean_lambda, gamma
    warps = jnp.asarray(0.7), jnp.asarray(1.8)
    of_levels = jnp.asarray(rng.normal(size=4))
    return [
        kernels.Matern(w, jnp.asarray(1.7), scale, constant, noise),
        kernels.ExpDecay(w, scale, constant, *decay, jnp.asarray(0.6), noise),
        kernels.MaternWarped(w, jnp.asarray(1.7), scale, constant, *warps, noise),
        kernels.FreezeThaw(w, scale, constant, *decay, noise),
        kernels.Independent(w, jnp.exp(of_levels), of_levels, noise),
        kernels.Coregional(w, jnp.asarray(rng.normal(size=(4, 4))), of_levels, noise),
        kernels.WarpedInputs(kernels.Matern(w, jnp.asarray(1.7), scale, constant, noise), *(jnp.full(d, warp) for warp in warps)),
    ]


def study(rng: np.random.Generator, n: int, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n observations of curves that fall with r."""
    x, u = rng.uniform(size=(n, d)), rng.choice(RUNGS, n)
    y = np.sin(4 * x[:, 0]) + (x[:, 1] - 0.4) ** 2 + np.exp(-3 * u) * (1 + 0.3 * x[:, -1]) + 0.02 * rng.normal(size=n)
    return x, u, y
