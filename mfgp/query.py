"""What the surrogate believes at points of the caller's choice: for acquisitions that `suggest` does not compute itself.

Each query has a resource of its own. Targets are transformed as in `suggest`, so its hyperparameters can be used here; means and
standard deviations are in those units.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from mfgp.acquisition import log_h
from mfgp.compiler import compiled
from mfgp.data import MIN_LEVELS, TARGETS, Data, Inputs, bucket, pad
from mfgp.fit import fit
from mfgp.posterior import condition, fantasise, predict, sample
from mfgp.precision import precision_of
from mfgp.surrogates import Surrogate, alone, random_starts

MIN_QUERIES = 64


class Known(NamedTuple):
    """Observations and pending evaluations as `suggest` takes them: encoded rows, u(r), and y minimised."""

    x: np.ndarray
    r: np.ndarray
    y: np.ndarray
    pending_x: np.ndarray
    pending_r: np.ndarray
    pending_size: int  # what the pending evaluations are padded to


class Belief(NamedTuple):
    """At M queries: S means, one per fantasy of what is pending, and the standard deviation of the noise-free function."""

    mean: np.ndarray  # [S, M]
    std: np.ndarray  # [M]


class _Problem(NamedTuple):
    seed: UInt32[Array, "2"]
    data: Data
    pending: Inputs
    query: Inputs
    theta: Float[Array, "P"]


def learn(surrogate: Surrogate, seed: tuple[int, int], known: Known) -> dict[str, Any]:
    """Hyperparameters fitted to the observations, without a warm start: a function of the arguments alone."""
    with precision_of(surrogate):
        problem, levels = _prepare(surrogate, seed, known, np.ones(len(known.y), bool), known.x[:1], known.r[:1], None)
        theta = np.asarray(jax.device_get(_fit(surrogate, problem)))
    return surrogate.readable(theta, known.x.shape[1], levels, len(problem.query.levels))


def believe(
    surrogate: Surrogate,
    hyperparameters: Mapping[str, Any],
    seed: tuple[int, int],
    known: Known,
    query_x: np.ndarray,
    query_r: np.ndarray,
    *,
    used: np.ndarray | None = None,
    num_fantasies: int = 20,
) -> Belief:
    """The belief at (query_x, query_r). Of the observations only those in the mask `used` count."""
    problem, _ = _prepare_in_precision(surrogate, seed, known, used, query_x, query_r, hyperparameters)
    with precision_of(surrogate):
        mean, std = jax.device_get(_believe(surrogate, num_fantasies, problem))
    return Belief(np.asarray(mean)[:, : len(query_r)], np.asarray(std)[: len(query_r)])


def draw(
    surrogate: Surrogate,
    hyperparameters: Mapping[str, Any],
    seed: tuple[int, int],
    known: Known,
    query_x: np.ndarray,
    query_r: np.ndarray,
    num: int,
    *,
    used: np.ndarray | None = None,
) -> np.ndarray:
    """[num, M] joint draws of the noise-free function at the queries; pending evaluations are left out."""
    problem, _ = _prepare_in_precision(surrogate, seed, known, used, query_x, query_r, hyperparameters)
    with precision_of(surrogate):
        draws = jax.device_get(_draw(surrogate, num, problem))
    return np.asarray(draws).T[:, : len(query_r)]


def targets(surrogate: Surrogate, known: Known) -> np.ndarray:
    """[n] the observations in the units of a Belief."""
    return np.asarray(TARGETS[surrogate.options.targets](known.y, known.r))


def log_expected_improvement(belief: Belief, best: np.ndarray, xi: float = 0.0) -> np.ndarray:
    """[M] log of E max(best - xi - f, 0), averaged over the S means; best: [S, 1], [1, M] or [S, M], in the units of the belief."""
    m = len(belief.std)
    advantage = np.broadcast_to((best - belief.mean - xi) / belief.std, belief.mean.shape)
    with jax.enable_x64(True):
        padded = np.pad(advantage, ((0, 0), (0, bucket(m, MIN_QUERIES) - m)))
        each = np.log(belief.std) + np.asarray(jax.device_get(_log_h(padded)))[:, :m]
    return np.asarray(np.logaddexp.reduce(each, axis=0) - np.log(len(each)))


@compiled(static_argnames=())
def _log_h(v: Float[Array, "S M"]) -> Float[Array, "S M"]:
    return log_h(v)


@compiled(static_argnames=("surrogate",))
def _fit(surrogate: Surrogate, problem: _Problem) -> Float[Array, "P"]:
    inputs, options = problem.data.inputs, surrogate.options
    key = jax.random.fold_in(jax.random.key(problem.seed[0]), problem.seed[1])
    low, high = (jnp.asarray(side, problem.theta.dtype) for side in surrogate.box(inputs.x.shape[1], inputs.levels.shape[0]))
    starts = random_starts(key, problem.theta, low, high, options.restarts)
    return fit(surrogate, problem.data, starts, jnp.full(options.restarts, options.max_evaluations, jnp.int32)).theta


@compiled(static_argnames=("surrogate", "num_fantasies"))
def _believe(surrogate: Surrogate, num_fantasies: int, problem: _Problem) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
    key = jax.random.fold_in(jax.random.key(problem.seed[0]), problem.seed[1])
    observed = condition(surrogate.unflatten(problem.theta, problem.data.inputs), problem.data)
    mean, variance = predict(fantasise(key, observed, problem.pending, num_fantasies), problem.query)
    return mean, jnp.sqrt(variance)


@compiled(static_argnames=("surrogate", "num"))
def _draw(surrogate: Surrogate, num: int, problem: _Problem) -> Float[Array, "M num"]:
    key = jax.random.fold_in(jax.random.key(problem.seed[0]), problem.seed[1])
    observed = condition(surrogate.unflatten(problem.theta, problem.data.inputs), problem.data)
    return sample(key, observed, problem.query, num)[0]


def _prepare_in_precision(
    surrogate: Surrogate,
    seed: tuple[int, int],
    known: Known,
    used: np.ndarray | None,
    query_x: np.ndarray,
    query_r: np.ndarray,
    hyperparameters: Mapping[str, Any],
) -> tuple[_Problem, np.ndarray]:
    used = np.ones(len(known.y), bool) if used is None else np.asarray(used, bool)
    with precision_of(surrogate):
        return _prepare(surrogate, seed, known, used, query_x, query_r, hyperparameters)


def _prepare(
    surrogate: Surrogate,
    seed: tuple[int, int],
    known: Known,
    used: np.ndarray,
    query_x: np.ndarray,
    query_r: np.ndarray,
    hyperparameters: Mapping[str, Any] | None,
) -> tuple[_Problem, np.ndarray]:
    """Everything padded, and the distinct levels."""
    if not used.any() or len(query_r) == 0:
        raise ValueError(f"a query needs at least one observation and one point, got {int(used.sum())} and {len(query_r)}")
    d = known.x.shape[1]
    levels = np.unique(np.concatenate([known.r, known.pending_r, query_r]))
    table = np.concatenate([levels, np.full(bucket(len(levels), MIN_LEVELS) - len(levels), levels[-1])])
    rows = bucket(int(used.sum()))
    z = targets(surrogate, known)[used]

    def inputs(x: np.ndarray, r: np.ndarray, size: int) -> Inputs:
        level = np.searchsorted(table, r).astype(np.int32)
        return Inputs(pad(x.reshape(-1, d), size), pad(level, size), table, np.arange(size) < len(r))  # type: ignore[arg-type]

    data = Data(inputs(known.x[used], known.r[used], rows), np.concatenate([z, np.zeros(rows - len(z))]))  # type: ignore[arg-type]
    pending = inputs(known.pending_x, known.pending_r, known.pending_size)
    theta = surrogate.flatten(alone(hyperparameters or {}), d, levels, len(table))
    return _Problem(
        np.array([s % 2**32 for s in seed], np.uint32),  # type: ignore[arg-type]
        data,
        pending,
        inputs(query_x, query_r, bucket(len(query_r), MIN_QUERIES)),
        theta,  # type: ignore[arg-type]
    ), levels
