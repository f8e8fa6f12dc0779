"""A projected quasi-Newton method on a box that fits into one compiled loop with a single evaluation of the objective in its body.

Each turn of the loop evaluates one trial point and either accepts it (Armijo) and takes a new direction, or shortens the step: a
backtracking search that evaluates no more than it needs, survives nan and inf, and in a batch lets each member go its own way. With
tens of variables the inverse Hessian is kept whole (BFGS): a handful of operations, where the two-loop recursion of L-BFGS unrolls
into dozens that all have to be compiled. A caller who knows an approximate Hessian passes it as a preconditioner.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ARMIJO = 1e-4
REFRESH = 3  # accepted steps after which the preconditioner is computed anew: it is worth more than what BFGS has learned since
LENGTHEN = 2.0  # after an accepted step: where one had to be shortened, the next one's full length mostly is too long as well


class Minimum(NamedTuple):
    x: Float[Array, "P"]
    value: Float[Array, ""]  # inf if no finite value was seen
    evaluations: Int[Array, ""]


class _State(NamedTuple):
    x: Float[Array, "P"]
    value: Float[Array, ""]
    gradient: Float[Array, "P"]
    inverse_hessian: Float[Array, "P P"]
    age: Int[Array, ""]  # pairs that the inverse Hessian has learned from since it was set
    direction: Float[Array, "P"]
    step: Float[Array, ""]
    stalled: Int[Array, ""]  # accepted steps in a row that gained less than the tolerance
    evaluations: Int[Array, ""]
    done: Bool[Array, ""]


def minimise(
    value_and_grad: Callable[[Float[Array, "P"]], tuple[Float[Array, ""], Float[Array, "P"]]],
    start: Float[Array, "P"],
    low: Float[Array, "P"],
    high: Float[Array, "P"],
    max_evaluations: Int[Array, ""],
    *,
    tolerance: Float[Array, ""] | float,
    max_move: float,
    precondition: Callable[[Float[Array, "P"]], Float[Array, "P P"]] | None = None,
    enough: Callable[[Float[Array, ""]], Float[Array, ""] | float] = lambda value: 0.0,
) -> Minimum:
    """Minimise over low <= x <= high (low == high holds a coordinate); stops when two accepted steps in a row gain < `tolerance`, or
    the quadratic model whose Hessian is known so far promises a gain of less than enough(value) (for use with a precondition).

    max_move bounds the change of a coordinate in one step. max_evaluations is traced; with 0 the start comes back. precondition(x)
    is an approximate inverse Hessian, positive definite; without it the identity, scaled by the first step, is where BFGS begins.
    """
    identity, tiny = jnp.eye(start.shape[0], dtype=start.dtype), float(jnp.finfo(start.dtype).tiny)

    def turn(s: _State) -> _State:
        first = s.evaluations == 0
        trial = jnp.clip(s.x + s.step * s.direction, low, high)
        value, gradient = value_and_grad(trial)
        move = trial - s.x
        expected = jnp.vdot(s.gradient, move)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        accept = finite & (first | (value <= s.value + ARMIJO * jnp.minimum(expected, 0.0)))

        h, age = _learned(s, move, gradient - s.gradient, accept & ~first, scaled=precondition is not None)
        # A step that had to be shortened to nothing: start over with a new inverse Hessian, or stop if it was new.
        exhausted = ~accept & (s.step < 1e-4)
        x = jnp.where(accept, trial, s.x)
        g = jnp.where(accept, gradient, s.gradient)
        if precondition is None:
            h, age = jnp.where(exhausted, identity, h), jnp.where(exhausted, 0, age)
        else:
            renew = first | exhausted | (accept & (age >= REFRESH))
            h, age = jax.lax.cond(renew, lambda: precondition(x), lambda: h), jnp.where(renew, 0, age)
        held = ((x <= low) & (g >= 0)) | ((x >= high) & (g <= 0))
        pg = jnp.where(held, 0.0, g)
        direction = jnp.where(held, 0.0, -h @ pg)
        promised = -0.5 * jnp.vdot(pg, direction)
        # The identity knows no scale.
        limit = jnp.where(age == 0, min(max_move, 1.0), max_move) if precondition is None else max_move
        direction *= jnp.minimum(1.0, limit / jnp.maximum(jnp.max(jnp.abs(direction)), tiny))

        gain = s.value - value
        stalled = jnp.where(accept, jnp.where(gain < tolerance, s.stalled + 1, 0), s.stalled)
        give_up = (exhausted & (s.age == 0)) | (first & ~accept)
        new = accept | exhausted
        shortened = s.step * _shortening(expected, value - s.value)
        return _State(
            x=x,
            value=jnp.where(accept, value, s.value),
            gradient=g,
            inverse_hessian=h,
            age=age.astype(jnp.int32),
            direction=jnp.where(new, direction, s.direction),
            step=jnp.where(exhausted, 1.0, jnp.where(accept, jnp.minimum(1.0, LENGTHEN * s.step), shortened)),
            stalled=stalled,
            evaluations=s.evaluations + 1,
            done=(accept & ((jnp.max(jnp.abs(pg)) < 1e-6) | (promised < enough(value)))) | (stalled >= 2) | give_up,
        )

    end = jax.lax.while_loop(lambda s: ~s.done & (s.evaluations < max_evaluations), turn, _initial(start))
    return Minimum(end.x, end.value, end.evaluations)


def _learned(
    s: _State, move: Float[Array, "P"], change: Float[Array, "P"], accept: Bool[Array, ""], scaled: bool
) -> tuple[Float[Array, "P P"], Int[Array, ""]]:
    """The inverse Hessian and its age after a step, if the step shows positive curvature; one that was not `scaled` is by its first."""
    curvature = jnp.vdot(move, change)
    update = accept & (curvature > 1e-10 * jnp.linalg.norm(move) * jnp.linalg.norm(change))
    h = s.inverse_hessian
    if not scaled:  # Nocedal & Wright 2006, eq. 6.20
        square = jnp.maximum(jnp.vdot(change, change), jnp.finfo(change.dtype).tiny)
        h = jnp.where(s.age == 0, jnp.eye(len(move), dtype=move.dtype) * (curvature / square), h)
    return jnp.where(update, _bfgs(h, move, change, jnp.where(update, curvature, 1.0)), s.inverse_hessian), s.age + update


def _bfgs(h: Float[Array, "P P"], move: Float[Array, "P"], change: Float[Array, "P"], curvature: Float[Array, ""]) -> Float[Array, "P P"]:
    """The inverse Hessian that maps `change` of the gradient to `move` (Nocedal & Wright 2006, eq. 6.17); curvature = move . change."""
    rho = 1.0 / curvature
    hy = h @ change
    return h - rho * (jnp.outer(move, hy) + jnp.outer(hy, move)) + (rho * rho * jnp.vdot(change, hy) + rho) * jnp.outer(move, move)


def _shortening(expected: Float[Array, ""], found: Float[Array, ""]) -> Float[Array, ""]:
    """By how much to shorten a step: to the minimiser of the parabola through value, slope and trial value, where there is one."""
    parabola = -0.5 * expected / (found - expected)
    return jnp.where(jnp.isfinite(found) & jnp.isfinite(parabola), jnp.clip(parabola, 0.1, 0.5), 0.2)


def _initial(start: Float[Array, "P"]) -> _State:
    """Nothing evaluated yet: the first turn of the loop evaluates the start."""
    zero = jnp.zeros_like(start)
    return _State(
        x=start,
        value=jnp.asarray(jnp.inf, start.dtype),
        gradient=zero,
        inverse_hessian=jnp.eye(start.shape[0], dtype=start.dtype),
        age=jnp.zeros((), jnp.int32),
        direction=zero,
        step=jnp.ones((), start.dtype),
        stalled=jnp.zeros((), jnp.int32),
        evaluations=jnp.zeros((), jnp.int32),
        done=jnp.asarray(False),
    )
