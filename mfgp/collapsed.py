"""Many observations per configuration, exactly, at the cost of a few.

In the exponential-decay families every curve r -> f(x, r) lies, up to rounding, in the span of a few functions: those of the
covariance 1 + κ(r + r'). So the values f at up to NODES of a configuration's own levels determine it at all of them,
f(observed) = A f(nodes), with A from that covariance alone. The observations y = m + A f + ε then say of f exactly what their least
squares estimate (AᵀA)^-1 Aᵀ (y - m) says, whose errors have covariance noise (AᵀA)^-1, a small block per configuration; what they say
beyond is a constant in f. What remains is a Gaussian process observed at the nodes: a dense problem of at most NODES rows per
configuration (algorithms: sufficient statistics of a linear Gaussian model, Rasmussen & Williams 2006, section 2.7).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import Data, Inputs, bucket, pad

NODES = 10  # 1 + κ(r + r') is of this rank to 1e-9 or better, over all but extreme decays; see docs/surrogates.md
MIN_ROWS = 128  # below, dense algebra is quick enough
MIN_PATTERNS = 16


class Curves(NamedTuple):
    """The N observations behind the rows of a collapsed `Data`; C configurations of B patterns, Q = NODES.

    A pattern is a configuration's number of observations at each level: all that A depends on.
    """

    y: Float[Array, "N"]
    level: Int[Array, "N"]
    config: Int[Array, "N"]
    mask: Bool[Array, "N"]
    pattern: Int[Array, "C"]
    rows: Int[Array, "C Q"]  # of Data.inputs, where the configuration's nodes are; beyond the last row: none
    nodes: Int[Array, "B Q"]  # levels
    used: Bool[Array, "B Q"]
    counts: Float[Array, "B R"]


def collapse(data: Data, level: int) -> Data | None:
    """`data` by its sufficient statistics; None where that has no fewer rows. A configuration observed at `level` keeps a node there.

    Host side, NumPy. The rows' y are observed values at the nodes.
    """
    inputs, n = data.inputs, int(np.sum(data.inputs.mask))
    if n <= MIN_ROWS:
        return None
    x, at, y = (np.asarray(a)[:n] for a in (inputs.x, inputs.level, data.y))
    configs, config = np.unique(x, axis=0, return_inverse=True)
    counts = np.zeros((len(configs), len(inputs.levels)), int)
    np.add.at(counts, (config, at), 1)
    pattern_counts, pattern = np.unique(counts, axis=0, return_inverse=True)
    nodes, used = (
        np.stack(part) for part in zip(*(_choose_nodes(row, np.asarray(inputs.levels), level) for row in pattern_counts), strict=True)
    )
    kept = used[pattern]
    num = int(kept.sum())
    size = bucket(num)
    if size >= bucket(n):
        return None
    rows = np.full(kept.shape, size)
    rows[kept] = np.arange(num)
    x_rows = np.broadcast_to(configs[:, None], (*kept.shape, x.shape[1]))[kept]
    level_rows = nodes[pattern][kept].astype(np.int32)
    # Some observation at each node, as the value that stands for it.
    seen = np.zeros(counts.shape)
    seen[config, at] = y
    y_rows = np.take_along_axis(seen, nodes[pattern], axis=1)[kept]
    observations = 2 * size  # few sizes, so few programs
    while observations < n:
        observations *= 2
    patterns = bucket(len(nodes), MIN_PATTERNS)
    row_of_node = np.concatenate([rows, np.full((size - len(rows), NODES), size)]).astype(np.int32)
    curves: Any = (
        *(pad(a, observations) for a in (y, at, config.astype(np.int32), np.ones(n, bool))),
        *(pad(pattern.astype(np.int32), size), row_of_node),
        *(pad(a, patterns) for a in (nodes.astype(np.int32), used, pattern_counts.astype(np.float64))),
    )
    seen_at: Any = np.arange(observations) < n
    kept_rows: Any = pad(x_rows, size), pad(level_rows, size), inputs.levels, np.arange(size) < num
    targets: Any = np.concatenate([y_rows, np.zeros(size - num)])
    return Data(Inputs(*kept_rows), targets, Curves(*curves)._replace(mask=seen_at))


def expand(data: Data) -> Data:
    """The observations that `data` stands for; host side."""
    curves, inputs = data.curves, data.inputs
    if curves is None:
        return data
    n = num_observations(data)
    rows = bucket(n)
    config, level, y = (np.asarray(a)[:n] for a in (curves.config, curves.level, curves.y))
    x = np.asarray(inputs.x)[np.asarray(curves.rows)[config, 0]]
    everything: Any = pad(x, rows), pad(level, rows), inputs.levels, np.arange(rows) < n
    targets: Any = np.concatenate([y, np.zeros(rows - n)])
    return Data(Inputs(*everything), targets)


def num_observations(data: Data) -> int:
    return int(np.sum(data.inputs.mask if data.curves is None else data.curves.mask))


def describe(data: Data) -> str:
    rows = int(np.sum(data.inputs.mask))
    return f"dense: {rows} rows" if data.curves is None else f"collapsed: {rows} rows for {num_observations(data)} observations"


def _choose_nodes(counts: np.ndarray, levels: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to NODES of the observed levels, denser where decays are steep: Chebyshev's points, squared; `level` if it is observed."""
    observed = np.flatnonzero(counts)
    chosen = observed
    if len(observed) > NODES:
        u = levels[observed]
        targets = ((1 - np.cos(np.pi * np.arange(NODES) / (NODES - 1))) / 2) ** 2
        free, picked = np.ones(len(observed), bool), []
        for target in u[0] + targets * (u[-1] - u[0]):
            picked.append(int(np.argmin(np.where(free, np.abs(u - target), np.inf))))
            free[picked[-1]] = False
        wanted = np.flatnonzero(observed == level)
        if len(wanted) and wanted[0] not in picked:
            picked[int(np.argmin(np.abs(u[picked] - levels[level])))] = int(wanted[0])
        chosen = np.sort(observed[picked])
    nodes = np.full(NODES, chosen[-1])
    nodes[: len(chosen)] = chosen
    return nodes, np.arange(NODES) < len(chosen)


class Statistics(NamedTuple):
    """What takes the place of (gram, residual) of the observations; `constant` is the rest of their log density."""

    matrix: Float[Array, "P P"]
    rest: Float[Array, "P"]
    constant: Float[Array, ""]


def statistics(process: Any, data: Data) -> Statistics:
    """Covariance and value of the estimate at the nodes, given a process of a family that collapses."""
    inputs, curves = data.inputs, data.curves
    size = inputs.mask.shape[0]
    weights, inverse, log_det = jax.lax.stop_gradient(_weights(process, inputs.levels, curves))
    # By the level alone, in these families.
    table = Inputs(
        jnp.zeros((len(inputs.levels), inputs.x.shape[1]), inputs.x.dtype),
        jnp.arange(len(inputs.levels)),
        inputs.levels,
        jnp.ones(len(inputs.levels), bool),
    )
    rest = jnp.where(curves.mask, curves.y - process.mean(table)[curves.level], 0.0)
    a = jnp.where(curves.mask[:, None], weights[curves.pattern[curves.config], :, curves.level], 0.0)
    projected = jax.ops.segment_sum(a * rest[:, None], curves.config, size)
    estimate = jnp.einsum("cij,cj->ci", inverse[curves.pattern], projected)
    beyond = rest - jnp.sum(a * estimate[curves.config], axis=1)
    both = inputs.mask[:, None] & inputs.mask[None]
    matrix = jnp.where(both, process.cov(inputs, inputs), 0.0) + jnp.diag(jnp.where(inputs.mask, 0.0, 1.0))
    blocks = process.noise * inverse[curves.pattern]
    matrix = matrix.at[curves.rows[:, :, None], curves.rows[:, None, :]].add(blocks, mode="drop")
    present = curves.rows[:, 0] < size
    spare = jnp.sum(curves.mask) - jnp.sum(inputs.mask)
    constant = -0.5 * (
        jnp.sum(jnp.where(present, log_det[curves.pattern], 0.0))
        + spare * jnp.log(2 * jnp.pi * process.noise)
        + jnp.sum(beyond * beyond) / process.noise
    )
    return Statistics(matrix, jnp.zeros(size, rest.dtype).at[curves.rows].set(estimate, mode="drop"), constant)


def _weights(
    process: Any, levels: Float[Array, "R"], curves: Curves
) -> tuple[Float[Array, "B Q R"], Float[Array, "B Q Q"], Float[Array, "B"]]:
    """Per pattern: Aᵀ at every level; (AᵀA)^-1 over its observations, zero where no node is; log det AᵀA.

    Its derivative in the hyperparameters is not needed: whatever A reproduces the covariance, the likelihood is the same.
    """
    functions = process.span(levels)
    weights = _interpolate(functions, curves)
    # A node gives its own value, to the last bit.
    own = curves.used[:, :, None] & (curves.nodes[:, :, None] == jnp.arange(len(levels)))
    weights = jnp.where(jnp.any(own, axis=1, keepdims=True), own.astype(weights.dtype), weights)
    square = jnp.einsum("bir,br,bjr->bij", weights, curves.counts, weights)
    both = curves.used[:, :, None] & curves.used[:, None, :]
    identity = jnp.eye(NODES, dtype=weights.dtype)
    inverse, log_det = _solve(jnp.where(both, square, identity), jnp.broadcast_to(identity, square.shape))
    return weights, jnp.where(both, inverse, 0.0), log_det


def _interpolate(functions: Float[Array, "F R"], curves: Curves) -> Float[Array, "B Q R"]:
    """Least squares weights w with Σ_q w[b, q, r] functions[:, nodes[b, q]] = functions[:, r].

    By modified Gram-Schmidt with the right-hand sides along: functions that are nearly dependent at the nodes, as they are, cost
    accuracy of the weights but not of what they reproduce, which the normal equations would square.
    """
    at_nodes = jnp.where(curves.used[:, None, :], functions[:, curves.nodes].swapaxes(0, 1), 0.0)
    right = jnp.broadcast_to(functions, (len(at_nodes), *functions.shape))
    index = jnp.arange(NODES)
    least = (10 * jnp.finfo(functions.dtype).eps * jnp.max(jnp.sum(functions * functions, axis=0) ** 0.5)) ** 2

    def orthogonalise(rest: Array, k: Int[Array, ""]) -> tuple[Array, Array]:
        column = rest[:, :, k]
        square = jnp.sum(column * column, axis=1)
        keep = square > least
        along = jnp.einsum("bf,bfj->bj", column, rest) / jnp.where(keep, square, 1.0)[:, None]
        along = jnp.where(keep[:, None], along, 0.0)
        return jnp.where(jnp.arange(rest.shape[2]) > k, rest - column[:, :, None] * along[:, None], rest), along

    _, upper = jax.lax.scan(orthogonalise, jnp.concatenate([at_nodes, right], axis=2), index)
    upper = upper.swapaxes(0, 1)  # unit upper triangular (a row of zeros where a node adds nothing), then the right-hand sides

    def substitute(solved: Array, k: Int[Array, ""]) -> tuple[Array, None]:
        above = jnp.where(index < k, upper[:, :, k], 0.0)
        return solved - above[:, :, None] * solved[:, None, k], None

    return jax.lax.scan(substitute, upper[:, :, NODES:], index[::-1])[0]


def _solve(matrices: Float[Array, "B Q Q"], right: Float[Array, "B Q K"]) -> tuple[Float[Array, "B Q K"], Float[Array, "B"]]:
    """Solutions and log determinants of small positive definite systems, by elimination: LAPACK is not to be batched on the CPU."""
    size = matrices.shape[1]
    index = jnp.arange(size)

    def eliminate(rows: Array, k: Int[Array, ""]) -> tuple[Array, Array]:
        below = jnp.where(index > k, rows[:, :, k] / rows[:, k, k, None], 0.0)
        return rows - below[:, :, None] * rows[:, None, k], rows[:, k, k]

    def substitute(solved: Array, k: Int[Array, ""]) -> tuple[Array, None]:
        row = solved[:, k] / upper[:, k, k, None]
        above = jnp.where(index < k, upper[:, :, k], 0.0)
        return (solved - above[:, :, None] * row[:, None]).at[:, k].set(row), None

    rows, pivots = jax.lax.scan(eliminate, jnp.concatenate([matrices, right], axis=2), index)
    upper = rows[:, :, :size]
    solved, _ = jax.lax.scan(substitute, rows[:, :, size:], index[::-1])
    return solved, jnp.sum(jnp.log(pivots), axis=0)
