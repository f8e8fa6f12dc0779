"""The maximisation of an acquisition: a screen of all candidates, then local refinement of the best on the box."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import at_level
from mfgp.minimise import minimise
from mfgp.posterior import Posterior, sample

NUM_REFINED = 16
REFINEMENTS = 30  # evaluations per refined candidate


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


def maximise(
    score: Callable[[Float[Array, "M D"]], Float[Array, "M"]],
    candidates: Float[Array, "C D"],
    free: Bool[Array, "C D"],
    grid: Grid,
    num_returned: int,
) -> Candidates:
    """Score all candidates, refine the best distinct ones over their free coordinates, put the results on the grid, score again.

    The refined ones come with their starts, so that the caller can fall back on these.
    """

    def ordered(x: Float[Array, "M D"]) -> Float[Array, "M"]:
        values = score(x)
        return jnp.where(jnp.isnan(values), -jnp.inf, values)

    def descend(start: Float[Array, "D"], moves: Bool[Array, "D"]) -> Float[Array, "D"]:
        def objective(x: Float[Array, "D"]) -> Float[Array, ""]:
            return -score(x[None])[0]

        low, high = jnp.where(moves, 0.0, start), jnp.where(moves, 1.0, start)
        budget = jnp.asarray(REFINEMENTS, jnp.int32)
        return minimise(jax.value_and_grad(objective), start, low, high, budget, tolerance=1e-3, max_move=0.2).x

    rows, moves, value = _best_distinct(ordered(candidates), candidates, free, num_returned)
    num_refined = min(NUM_REFINED, rows.shape[0])
    refined = jax.vmap(descend)(rows[:num_refined], moves[:num_refined])
    refined = jnp.where(moves[:num_refined], project(refined, grid), rows[:num_refined])
    everything = jnp.concatenate([refined, rows])
    values = jnp.concatenate([ordered(refined), value])
    # Once more without repetitions: a start that could not move comes back as it was.
    rows, _, value = _best_distinct(values, everything, jnp.zeros(everything.shape, bool), num_returned)
    return Candidates(rows, value)


def _best_distinct(
    values: Float[Array, "C"], candidates: Float[Array, "C D"], free: Bool[Array, "C D"], num: int
) -> tuple[Float[Array, "K D"], Bool[Array, "K D"], Float[Array, "K"]]:
    """The `num` best rows; among the 2 num best, repetitions are moved behind the others, with value -inf."""
    shortlist = min(2 * num, candidates.shape[0])
    value, index = jax.lax.top_k(values, shortlist)
    rows = candidates[index]
    same = jnp.all(rows[:, None] == rows[None], axis=-1)
    repeated = jnp.any(jnp.tril(same, -1), axis=1)
    value, order = jax.lax.top_k(jnp.where(repeated, -jnp.inf, value), min(num, shortlist))
    return rows[order], free[index[order]], value


def thompson(key: Array, post: Posterior, level: Int[Array, ""], candidates: Float[Array, "C D"], num: int, points: int) -> Candidates:
    """`num` candidates in the order of one joint draw at `level`, best first; see acquisition.Thompson."""
    some = candidates[np.linspace(0, len(candidates) - 1, min(points, len(candidates))).round().astype(int)]
    draw, _ = sample(key, post, at_level(some, level, post.inputs), 1)
    rows, _, value = _best_distinct(-draw[:, 0], some, jnp.zeros(some.shape, bool), num)
    return Candidates(rows, value)
