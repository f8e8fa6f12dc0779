"""The maximisation of an acquisition: a screen of all candidates, local refinement of the best on the box, moves over neighbours."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import at_level, of_chosen
from mfgp.minimise import minimise
from mfgp.posterior import Posterior, sample

NUM_REFINED = 16
REFINEMENTS = 16  # evaluations per refined candidate; 100 gain another .006 of log expected improvement
CHUNK = 250
SHORTLIST = 256  # candidates that a screen leaves
NUM_CLIMBING, CLIMBS = 8, 2  # candidates whose neighbours are scored, and how often


class Grid(NamedTuple):
    """Where valid values lie: an integer coordinate encodes [low - 1/2, high + 1/2], linear or log, onto [0, 1]; the coordinates of one
    group (a number from 0) are the one-hot encoding of a category, or its only coordinate, 1/4 or 3/4."""

    integer: Bool[Array, "D"]
    log: Bool[Array, "D"]
    low: Float[Array, "D"]  # first and last valid integer
    high: Float[Array, "D"]
    group: Int[Array, "D"]  # -1: no category


def project(x: Float[Array, "*b D"], grid: Grid, step: int = 0) -> Float[Array, "*b D"]:
    """The nearest valid point: integer coordinates move to the encoding of the integer they decode to, or `step` beyond."""
    low, high = jnp.where(grid.integer, grid.low, 1.0), jnp.where(grid.integer, grid.high, 1.0)
    log = grid.integer & grid.log
    start, stop = (jnp.where(log, jnp.log(jnp.where(log, edge, 1.0)), edge) for edge in (low - 0.5, high + 0.5))
    decoded = start + x * (stop - start)
    value = jnp.clip(jnp.round(jnp.where(log, jnp.exp(jnp.where(log, decoded, 0.0)), decoded)) + step, low, high)
    encoded = (jnp.where(log, jnp.log(value), value) - start) / (stop - start)
    return jnp.where(grid.integer, encoded, x)


def neighbours(x: Float[Array, "D"], moves: Bool[Array, "D"], grid: Grid) -> Float[Array, "E D"]:
    """The valid points that differ from x in one integer, by one, or in one category; x itself for coordinates that do not move."""
    size = x.shape[0]
    each = jnp.eye(size, dtype=bool)
    same_group = (grid.group[:, None] == grid.group[None]) & (grid.group >= 0)[None]
    alone = jnp.sum(same_group, axis=1) == 1
    category = (grid.group >= 0) & moves
    one_hot = jnp.where(same_group, each.astype(x.dtype), x)
    switched = jnp.where(alone[:, None], jnp.where(each, 1.0 - x, x), one_hot)
    steps = [jnp.where(each & (grid.integer & moves), project(x, grid, step), x) for step in (-1, 1)]
    return jnp.concatenate([jnp.where(category[:, None], switched, steps[0]), steps[1]])


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
    screen: Callable[[Float[Array, "M D"]], Float[Array, "M"]] | None = None,
) -> Candidates:
    """Score all candidates, refine the best distinct ones over their free numbers, put the results on the grid, score again; then look
    twice at all neighbours of the best in one free integer or category. Of many candidates only those are scored that are best by
    `screen`, a cheap likeness of `score`.

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

    if screen is not None and len(candidates) > SHORTLIST:
        values = _in_chunks(screen, candidates)
        _, kept = jax.lax.top_k(jnp.where(jnp.isnan(values), -jnp.inf, values), SHORTLIST)
        candidates, free = candidates[kept], free[kept]
    rows, moves, value = _best_distinct(ordered(candidates), candidates, free, num_returned)
    num_refined = min(NUM_REFINED, rows.shape[0])
    continuous = moves[:num_refined] & (grid.group < 0)
    refined = jax.vmap(descend)(rows[:num_refined], continuous)
    refined = jnp.where(continuous, project(refined, grid), rows[:num_refined])
    pool = jnp.concatenate([refined, rows]), jnp.concatenate([moves[:num_refined], moves]), jnp.concatenate([ordered(refined), value])

    def climb(_: Any, pool: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        best, moves, _ = _best_distinct(pool[2], pool[0], pool[1], NUM_CLIMBING)
        around = jax.vmap(neighbours, (0, 0, None))(best, moves, grid)
        moved = jnp.any(around != best[:, None], axis=-1).reshape(-1)
        around, moves = around.reshape(-1, around.shape[-1]), jnp.repeat(moves, around.shape[1], axis=0)
        scored = of_chosen(lambda rows: ordered(around[rows]), moved, -jnp.inf)
        x, free, values = (jnp.concatenate([a, b]) for a, b in zip(pool, (around, moves, scored), strict=True))
        return _best_distinct(values, x, free, len(pool[2]))

    discrete = jnp.any(moves & (grid.integer | (grid.group >= 0)))
    x, moves, value = jax.lax.cond(discrete, lambda: jax.lax.fori_loop(0, CLIMBS, climb, pool), lambda: pool)
    # Once more without repetitions: a start that could not move comes back as it was.
    rows, _, value = _best_distinct(value, x, moves, num_returned)
    return Candidates(rows, value)


def _in_chunks(score: Callable[[Float[Array, "M D"]], Float[Array, "M"]], x: Float[Array, "C D"]) -> Float[Array, "C"]:
    """score(x), a CHUNK of rows at a time: what it computes on the way then fits into a core's cache."""
    whole = len(x) // CHUNK * CHUNK
    parts = jax.lax.map(score, x[:whole].reshape(-1, CHUNK, x.shape[1])).reshape(-1)
    return jnp.concatenate([parts, score(x[whole:])]) if whole < len(x) else parts


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
