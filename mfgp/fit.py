"""Empirical Bayes: hyperparameters that maximise marginal likelihood times hyperprior."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import Data, thin
from mfgp.escape import KINDS, escape
from mfgp.minimise import Minimum, minimise
from mfgp.posterior import factorise, gram, log_marginal_likelihood_and_grad
from mfgp.surrogates import Surrogate

TOLERANCE = 1e-3  # nats: far below what separates two models
REFIT_TOLERANCE = 1e-2  # where the next refit goes on: the last hundredths take a third of the evaluations
PROMISE = 0.02  # nats that another evaluation must be good for
APART = 0.1  # nats between the ends of two descents, or MAX_MOVE between their coordinates: else both are the same optimum
MAX_MOVE = 2.0  # per step and coordinate, mostly logarithms
HOPE = 5.0  # times what it promises the model may gain: a descent that would not even then beat the best so far is given up
SUBSET = (64, 192)  # rows at least and at most that the preconditioner is computed on; in between a third of all
SLOPES = 8000  # but rows times hyperparameters not above this (16 rows at least): with 265 of them it cost a hundred evaluations
RIDGE = 0.3


class Fit(NamedTuple):
    theta: Float[Array, "P"]  # in the optimiser's coordinates
    loss: Float[Array, ""]  # -log marginal likelihood - log prior, nats; inf if no start gave a finite value
    evaluations: Int[Array, ""]  # of value and gradient, all starts together
    runner_up: Float[Array, "P"]  # the second best optimum; nan if only one was found
    gain: Float[Array, ""]  # nats by which the best is better than what starts[0] led to: inf if to nothing finite, 0 if all did


def loss_and_grad(surrogate: Surrogate, theta: Float[Array, "P"], data: Data) -> tuple[Float[Array, ""], Float[Array, "P"]]:
    """The objective of `fit` with its gradient."""
    value, gradient = log_marginal_likelihood_and_grad(lambda t: surrogate.unflatten(t, data.inputs), theta, data)
    prior, prior_gradient = jax.value_and_grad(lambda t: surrogate.log_prior(t, data.inputs))(theta)
    return -value - prior, -gradient - prior_gradient


def inverse_information(surrogate: Surrogate, theta: Float[Array, "P"], data: Data) -> Float[Array, "P P"]:
    """Inverse of the expected Hessian of `fit`'s objective, F_pq = ½ tr(K^-1 ∂_p K K^-1 ∂_q K) + ∂_p mᵀ K^-1 ∂_q m, plus a ridge.

    Its scales are what makes the quasi-Newton method converge in tens of evaluations where it takes hundreds from the identity.
    Computed on some rows, evenly spread, and scaled up: an approximation is all that is needed, and from 256 rows on it costs less than
    one evaluation. K is inverted, since products of matrices use all cores and are two to three times as fast as triangular solves with
    as many columns as there are slopes. The ridge stands for the hyperpriors.
    """
    n = jnp.sum(data.inputs.mask)
    rows = min(int(np.clip(data.y.shape[0] // 3, *SUBSET)), max(SLOPES // theta.shape[0], 16))
    part = thin(data, rows).inputs
    size = part.mask.shape[0]

    def moments(t: Float[Array, "P"]) -> tuple[Float[Array, "N N"], Float[Array, "N"]]:
        process = surrogate.unflatten(t, part)
        return gram(process, part), jnp.where(part.mask, process.mean(part), 0.0)

    matrix, _ = moments(theta)
    slopes, mean_slopes = jax.jacfwd(moments)(theta)
    inverse = jax.scipy.linalg.cho_solve((factorise(matrix).chol, True), jnp.eye(size, dtype=theta.dtype))
    relative = (inverse @ slopes.reshape(size, -1)).reshape(size, size, -1)
    information = 0.5 * jnp.einsum("ikp,kiq->pq", relative, relative) + mean_slopes.T @ inverse @ mean_slopes
    information = information * (n / jnp.maximum(jnp.sum(part.mask), 1)) + RIDGE * jnp.eye(theta.shape[0], dtype=theta.dtype)
    return jax.scipy.linalg.cho_solve((factorise(information).chol, True), jnp.eye(theta.shape[0], dtype=theta.dtype))


def fit(
    surrogate: Surrogate,
    data: Data,
    starts: Float[Array, "S P"],
    budgets: Int[Array, "B"],
    key: Array | None = None,
    initial: Float[Array, "P"] | None = None,
    warm: bool = False,
) -> Fit:
    """The best local minimum from S starts, each with its own budget of evaluations (0: the start is left out).

    Budgets beyond the starts are of escapes: descents from a change of the best so far, of each kind in turn, drawn with `key` around
    `initial` (see escape.py). All run one after the other: in lock step they would batch LAPACK calls (see posterior.py), and all would
    take as long as the slowest. If none of them leads anywhere, starts[0] comes back with loss inf.

    Where the model promises little it may be wrong, on a plateau far from any optimum, so descents from drawn points end when they stand
    still: at TOLERANCE, or REFIT_TOLERANCE where there is an earlier fit's result to go on from. Others end early: an escape near the
    best point, if HOPE times what is promised would not beat that; and if `warm` says that the first two starts are an earlier fit's result
    and its runner-up, the first as soon as less than PROMISE is promised, and the second as an escape does. As data come in optima change
    places, and where one falls behind the next is at hand. What was given up or spent its budget is no runner-up, that one's own descent
    excepted.
    """
    low, high = (jnp.asarray(side, starts.dtype) for side in surrogate.box(data.inputs.x.shape[-1], data.inputs.levels.shape[0]))
    num_starts = starts.shape[0]

    def descend(found: tuple[Minimum, Minimum], turn: Int[Array, ""]) -> tuple[tuple[Minimum, Minimum], Float[Array, ""]]:
        best, second = found
        start = starts[jnp.minimum(turn, num_starts - 1)]
        is_runner_up = warm & (turn == 1) & (num_starts > 1)
        is_drawn = ((turn < num_starts) & ~is_runner_up) | ((turn - num_starts) % len(KINDS) == KINDS.index("redrawn"))
        if key is not None and initial is not None:
            start = jax.lax.cond(
                (turn >= num_starts) & (budgets[turn] > 0),
                lambda: escape(jax.random.fold_in(key, turn), surrogate, best, initial, data, turn - num_starts),
                lambda: start,
            )
        end = minimise(
            lambda t: loss_and_grad(surrogate, t, data),
            start,
            low,
            high,
            budgets[turn],
            tolerance=jnp.where(warm & (budgets[0] > 0), REFIT_TOLERANCE, TOLERANCE),
            max_move=MAX_MOVE,
            precondition=lambda t: inverse_information(surrogate, t, data),
            enough=lambda value: jnp.where(is_drawn, PROMISE * (warm & (turn == 0)), (value - best.value + PROMISE) / HOPE),
        )
        first, last = _in_order(best, end)
        # An escape that was given up is on its way to some optimum, mostly the best.
        has_arrived = (end.value < best.value) | (is_drawn & (end.evaluations < budgets[turn])) | is_runner_up
        is_another = (last.value > first.value + APART) | (jnp.max(jnp.abs(last.x - first.x)) > MAX_MOVE)
        second, _ = _in_order(second, last._replace(value=jnp.where(has_arrived & is_another, last.value, jnp.inf)))
        return (first._replace(evaluations=best.evaluations + end.evaluations), second), end.value

    nothing = Minimum(starts[0], jnp.asarray(jnp.inf, starts.dtype), jnp.zeros((), jnp.int32))
    (best, second), values = jax.lax.scan(descend, (nothing, nothing), jnp.arange(budgets.shape[0]))
    runner_up = jnp.where(jnp.isfinite(second.value), second.x, jnp.nan)
    return Fit(best.x, best.value, best.evaluations, runner_up, jnp.where(jnp.isfinite(best.value), values[0] - best.value, 0.0))


def _in_order(a: Minimum, b: Minimum) -> tuple[Minimum, Minimum]:
    def either(is_a: Bool[Array, ""]) -> Minimum:
        return Minimum(*(jnp.where(is_a, x, y) for x, y in zip(a, b, strict=True)))

    is_a = ~(b.value < a.value)
    return either(is_a), either(~is_a)
