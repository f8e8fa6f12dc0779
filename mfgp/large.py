"""What `suggest` does when there are too many rows for dense algebra, by their number after `collapsed` has done what it can.

    rows <= FIT_ROWS                  everything dense, every row counts in the fit
    FIT_ROWS < rows <= DENSE_ROWS     fitted to a sample of whole configurations of at most FIT_ROWS rows; the posterior dense, of all rows
    DENSE_ROWS < rows                 fitted to such a sample; the posterior of all observations by conjugate gradients (`iterative`)

A sample of configurations drawn at random, each with all it has, is a history that the same model has generated, only smaller: its
likelihood is exact, and what it loses against the whole is statistical efficiency.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from mfgp.acquisition import Acquisition, Thompson, incumbent
from mfgp.collapsed import NODES, collapse, expand
from mfgp.compiler import compiled
from mfgp.data import Data, Inputs, at_level, bucket, pad
from mfgp.iterative import Rows, at, condition
from mfgp.maximise import Candidates, Grid, maximise

FIT_ROWS = 1024
DENSE_ROWS = 2560
MOST_DENSE_ROWS = 6400  # what needs dense algebra is given it up to here
NUM_EXACT = 16  # candidates whose variance is computed exactly in the end


def plan(surrogate: Any, acquisition: Acquisition, data: Data) -> tuple[bool, str]:
    """Whether the posterior is to be iterative, and a sentence where it should have been."""
    rows, options = (
        len(data.y),
        {"surrogate.mcmc": surrogate.options.mcmc is not None, "acquisition=thompson": isinstance(acquisition, Thompson)},
    )
    needs_dense = " and ".join(name for name, is_set in options.items() if is_set)
    if rows <= DENSE_ROWS or not needs_dense:
        return rows > DENSE_ROWS, ""
    if rows > MOST_DENSE_ROWS:
        raise ValueError(f"{needs_dense} needs dense algebra, valid up to {MOST_DENSE_ROWS} rows of observations; there are {rows}")
    return False, f"{needs_dense} needs dense algebra, which is slow with {rows} rows"


def sample(surrogate: Any, data: Data, level: int, seed: tuple[int, int]) -> Data:
    """Configurations in random order, each with all its observations, as many as fit into FIT_ROWS rows; host side."""
    data = expand(data)
    inputs, n = data.inputs, int(np.sum(data.inputs.mask))
    x, levels, y = (np.asarray(a)[:n] for a in (inputs.x, inputs.level, data.y))
    _, config = np.unique(x, axis=0, return_inverse=True)
    counts = np.bincount(config)
    order = np.random.default_rng([s % 2**32 for s in seed]).permutation(len(counts))
    rows = np.cumsum((np.minimum(counts, NODES) if surrogate.collapses else counts)[order])
    wanted = np.zeros(len(counts), bool)
    wanted[order[: max(1, int(np.searchsorted(rows, FIT_ROWS, side="right")))]] = True
    chosen = np.flatnonzero(wanted[config])
    size = max(FIT_ROWS, bucket(len(chosen)))
    kept: Any = pad(x[chosen], size), pad(levels[chosen], size), inputs.levels, np.arange(size) < len(chosen)
    targets: Any = np.concatenate([y[chosen], np.zeros(size - len(chosen))])
    part = Data(Inputs(*kept), targets)
    return (collapse(part, level) if surrogate.collapses else None) or part


def rows_of(data: Data, seed: tuple[int, int], has_levels: bool = True) -> Rows:
    """The observations by configuration, with landmarks: an observation of each configuration in random order, then second ones.

    Unless the surrogate `has_levels`, hyperparameters of their own, levels are left without their padding: work grows with their number.
    """
    data = expand(data)
    if not has_levels:
        levels: Any = np.unique(data.inputs.levels)
        data = data._replace(inputs=data.inputs._replace(levels=levels))
    rows, n = len(data.y), int(np.sum(data.inputs.mask))
    x = np.asarray(data.inputs.x)[:n]
    configs, config = np.unique(x, axis=0, return_inverse=True)
    quarter = rows // 4
    size = quarter * -(-len(configs) // quarter)  # so that a bucket of rows has few sizes
    shuffled = np.random.default_rng([s % 2**32 for s in seed]).permutation(n)
    by_config = shuffled[np.argsort(config[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(config))])[config[by_config]]
    turn = np.empty(n, int)
    turn[by_config] = np.arange(n) - starts
    landmarks = np.resize(shuffled[np.argsort(turn[shuffled], kind="stable")], num_landmarks(rows))
    return Rows(data, pad(config.astype(np.int32), rows), pad(configs, size), landmarks.astype(np.int32))  # type: ignore[arg-type]


def num_landmarks(rows: int) -> int:
    return min(rows // 2, max(1024, min(rows // 12, 4096)))


class Asked(NamedTuple):
    """What `suggest` asks of the posterior, see problem.Problem."""

    seed: UInt32[Array, "2"]
    pending: Inputs
    level: Int[Array, ""]
    unit: Float[Array, ""]
    candidates: Float[Array, "C D"]
    free: Bool[Array, "C D"]
    grid: Grid


class Answer(NamedTuple):
    candidates: Candidates
    jitter: Float[Array, ""]
    relative_residual: Float[Array, ""]  # of the means, the largest of all columns


@compiled(static_argnames=("surrogate", "acquisition", "num_fantasies", "num_returned"), quick=False)
def choose(
    surrogate: Any, acquisition: Acquisition, num_fantasies: int, num_returned: int, theta: Float[Array, "P"], rows: Rows, asked: Asked
) -> Answer:
    """Maximise the acquisition with the sparse model's variance, then put the NUM_EXACT best into the order of the exact one; the
    others follow in the order of the screen, with values no higher."""
    root = jax.random.fold_in(jax.random.key(asked.seed[0]), asked.seed[1])
    fantasy_key = jax.random.split(root, 4)[1]  # as in suggest.compute: the draws of the dense form
    post = condition(fantasy_key, surrogate.unflatten(theta, rows.data.inputs), rows, asked.pending, num_fantasies)
    best = incumbent(post, asked.level)

    def score(x: Float[Array, "M D"]) -> Float[Array, "M"]:
        return acquisition.average(acquisition.value(post, best, asked.unit, at_level(x, asked.level, rows.data.inputs))[None])

    screened = maximise(score, asked.candidates, asked.free, asked.grid, num_returned)
    x = screened.x[:NUM_EXACT]
    exact, _ = at(post, at_level(x, asked.level, rows.data.inputs))
    values = acquisition.average(acquisition.value(exact, best, asked.unit, exact.inputs)[None])
    values = jnp.where(jnp.isfinite(screened.acquisition[:NUM_EXACT]), values, -jnp.inf)
    order = jnp.argsort(-values)
    rest = screened.x[NUM_EXACT:], jnp.minimum(screened.acquisition[NUM_EXACT:], jnp.min(values))
    chosen = Candidates(*(jnp.concatenate(parts) for parts in zip((x[order], values[order]), rest, strict=True)))
    return Answer(chosen, post.jitter, post.relative_residual)
