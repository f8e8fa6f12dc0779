"""Expected improvement averaged over fantasies, and its maximisation by a screen of candidates plus local refinement."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import Inputs
from mfgp.minimise import minimise
from mfgp.posterior import Posterior, predict, predict_mean

NUM_REFINED = 16
REFINEMENTS = 30  # evaluations per refined candidate
LOG_SQRT_2PI = float(0.5 * np.log(2 * np.pi))


def _log_h_and_slope(v: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """log(φ(v) + v Φ(v)) and its derivative Φ(v) / (φ(v) + v Φ(v)), both relatively accurate for every v.

    In the left tail φ is factored out; what is left is 1 + v Φ/φ with the scaled complementary error function, and beyond where that
    cancels (or overflows) its asymptotic series. Compare Ament et al. (2023), section 4.1, who use other branches.
    """
    far = -25.0 if v.dtype == jnp.float64 else -7.0
    # Each branch gets arguments from its own range, so that no branch overflows where it is not used.
    right = jnp.maximum(v, -1.0)
    cdf = 0.5 * jax.lax.erfc(-right * np.sqrt(0.5))
    h = jnp.exp(-0.5 * right * right - LOG_SQRT_2PI) + right * cdf
    middle = jnp.clip(v, far, -1.0)
    mills = np.sqrt(np.pi / 2) * jnp.exp(0.5 * middle * middle) * jax.lax.erfc(-middle * np.sqrt(0.5))  # Φ(v) / φ(v)
    ratio = 1.0 + middle * mills
    left = jnp.minimum(v, far)
    w = 1.0 / (left * left)
    series = 1.0 - w * (3.0 - w * (15.0 - w * (105.0 - w * 945.0)))
    mills_left = -(1.0 - w * (1.0 - w * (3.0 - w * (15.0 - w * 105.0)))) / left
    tail = -0.5 * v * v - LOG_SQRT_2PI
    log_h = jnp.where(v > -1.0, jnp.log(h), tail + jnp.where(v > far, jnp.log(ratio), jnp.log(series * w)))
    slope = jnp.where(v > -1.0, cdf / h, jnp.where(v > far, mills / ratio, mills_left / (series * w)))
    return log_h, slope


@jax.custom_jvp
def log_h(v: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """log(φ(v) + v Φ(v)): log expected improvement in units of the standard deviation, at v standard deviations of advantage."""
    return _log_h_and_slope(v)[0]


@log_h.defjvp
def _log_h_jvp(primals: tuple, tangents: tuple) -> tuple:
    value, slope = _log_h_and_slope(primals[0])
    return value, slope * tangents[0]


def log_expected_improvement(post: Posterior, best: Float[Array, "S"], xi: Float[Array, ""], query: Inputs) -> Float[Array, "M"]:
    """log of the mean over the S columns of E max(best - xi - f(query), 0), for minimisation; never underflows, unlike its exp."""
    mean, variance = predict(post, query)
    s = jnp.sqrt(variance)
    each = jnp.log(s) + log_h((best[:, None] - mean - xi) / s)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0]).astype(each.dtype)


def incumbent(post: Posterior, level: Int[Array, ""]) -> Float[Array, "S"]:
    """Per column, the least posterior mean at `level` over the configurations observed or pending there.

    Over all configurations, predicted at `level`, if there is none.
    """
    at = post.inputs._replace(level=jnp.full_like(post.inputs.level, level))
    there = post.inputs.mask & (post.inputs.level == level)
    chosen = jnp.where(jnp.any(there), there, post.inputs.mask)
    return jnp.min(jnp.where(chosen[None], predict_mean(post, at), jnp.inf), axis=1)


class Grid(NamedTuple):
    """Where valid values lie: an integer coordinate encodes [low - 1/2, high + 1/2], linear or log, onto [0, 1]."""

    integer: Bool[Array, "D"]
    log: Bool[Array, "D"]
    low: Float[Array, "D"]  # first and last valid integer
    high: Float[Array, "D"]


def project(x: Float[Array, "*b D"], grid: Grid) -> Float[Array, "*b D"]:
    """The nearest valid point: integer coordinates move to the encoding of the integer they decode to."""
    low, high = jnp.where(grid.integer, grid.low, 1.0), jnp.where(grid.integer, grid.high, 1.0)
    log = grid.integer & grid.log
    start, stop = (jnp.where(log, jnp.log(jnp.where(log, edge, 1.0)), edge) for edge in (low - 0.5, high + 0.5))
    decoded = start + x * (stop - start)
    value = jnp.clip(jnp.round(jnp.where(log, jnp.exp(jnp.where(log, decoded, 0.0)), decoded)), low, high)
    encoded = (jnp.where(log, jnp.log(value), value) - start) / (stop - start)
    return jnp.where(grid.integer, encoded, x)


class Candidates(NamedTuple):
    """Valid points to choose from, best first, with the acquisition at each (higher is better)."""

    x: Float[Array, "K D"]
    acquisition: Float[Array, "K"]


def _query(x: Float[Array, "M D"], level: Int[Array, ""], like: Inputs) -> Inputs:
    rows = x.shape[:1]
    return Inputs(x, jnp.full(rows, level, like.level.dtype), like.levels, jnp.ones(rows, bool))


def maximise(
    post: Posterior,
    level: Int[Array, ""],
    best: Float[Array, "S"],
    xi: Float[Array, ""],
    candidates: Float[Array, "C D"],
    free: Bool[Array, "C D"],
    grid: Grid,
    num_returned: int,
) -> Candidates:
    """Score all candidates, refine the best distinct ones over their free coordinates, put the results on the grid, score again.

    The refined ones come with their starts, so that the caller can fall back on these.
    """

    def score(x: Float[Array, "M D"]) -> Float[Array, "M"]:
        value = log_expected_improvement(post, best, xi, _query(x, level, post.inputs))
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def descend(start: Float[Array, "D"], moves: Bool[Array, "D"]) -> Float[Array, "D"]:
        def objective(x: Float[Array, "D"]) -> Float[Array, ""]:
            return -log_expected_improvement(post, best, xi, _query(x[None], level, post.inputs))[0]

        low, high = jnp.where(moves, 0.0, start), jnp.where(moves, 1.0, start)
        budget = jnp.asarray(REFINEMENTS, jnp.int32)
        return minimise(jax.value_and_grad(objective), start, low, high, budget, tolerance=1e-3, max_move=0.2).x

    screened = score(candidates)
    shortlist = min(2 * num_returned, candidates.shape[0])
    value, index = jax.lax.top_k(screened, shortlist)
    rows = candidates[index]
    same = jnp.all(rows[:, None] == rows[None], axis=-1)
    repeated = jnp.any(jnp.tril(same, -1), axis=1)
    value, order = jax.lax.top_k(jnp.where(repeated, -jnp.inf, value), min(num_returned, shortlist))
    rows, moves = rows[order], free[index[order]]

    num_refined = min(NUM_REFINED, rows.shape[0])
    refined = jax.vmap(descend)(rows[:num_refined], moves[:num_refined])
    refined = jnp.where(moves[:num_refined], project(refined, grid), rows[:num_refined])
    everything = jnp.concatenate([refined, rows])
    values = jnp.concatenate([score(refined), value])
    top, order = jax.lax.top_k(values, min(num_returned, values.shape[0]))
    return Candidates(everything[order], top)
