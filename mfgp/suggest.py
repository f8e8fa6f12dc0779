"""One suggestion: fit, condition, fantasise, maximise expected improvement. The only entry that schedulers use.

The host part (problem.py) checks and pads; the device part is one pure compiled function of padded arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mfgp.acquisition import Acquisition, ExpectedImprovement, Thompson, incumbent
from mfgp.collapsed import describe, num_observations
from mfgp.compiler import compiled
from mfgp.data import at_level
from mfgp.fit import APART, fit
from mfgp.large import FIT_ROWS, Asked, choose, plan, rows_of, sample
from mfgp.maximise import Candidates, maximise, thompson
from mfgp.mcmc import draw
from mfgp.posterior import Posterior, condition_and_weigh, fantasise, objective, outline
from mfgp.precision import precision_of
from mfgp.problem import Problem, Space, problem_of
from mfgp.surrogates import Surrogate, random_starts

NUM_RETURNED = 64
EXPECTED_IMPROVEMENT = ExpectedImprovement()


@dataclass(frozen=True)
class Suggestion:
    """x: valid encoded rows, best first, without repetitions; acquisition: its value at each in standardised units, higher is better
    (log expected improvement by default).

    loss is the fit's objective in nats at the hyperparameters used, evaluations what the fit took of value and gradient. fallback says
    in a sentence what had to be done instead of the ordinary; empty if nothing. form says in which form the algebra was done.
    """

    x: np.ndarray
    acquisition: np.ndarray
    hyperparameters: dict[str, Any]
    refitted: bool
    fallback: str
    loss: float
    evaluations: int
    form: str


class Result(NamedTuple):
    candidates: Candidates
    theta: Float[Array, "P"]
    runner_up: Float[Array, "P"]  # nan: none
    fruitless: Int[Array, ""]
    draws: Float[Array, "H P"]  # of the hyperparameters; theta alone without mcmc
    fit_loss: Float[Array, ""]
    loss: Float[Array, ""]
    evaluations: Int[Array, ""]
    jitter: Float[Array, ""]


@compiled(static_argnames=("surrogate", "acquisition", "num_fantasies"))
def compute(surrogate: Surrogate, acquisition: Acquisition, num_fantasies: int, problem: Problem) -> Result:
    """The device part."""
    data = problem.data
    root = jax.random.fold_in(jax.random.key(problem.seed[0]), problem.seed[1])
    start_key, fantasy_key, chain_key, draw_key = jax.random.split(root, 4)
    low, high = (jnp.asarray(side, data.y.dtype) for side in surrogate.box(data.inputs.x.shape[1], data.inputs.levels.shape[0]))
    fresh = random_starts(start_key, problem.initial, low, high, problem.budgets.shape[0] - 2 - surrogate.options.escapes)
    second = jnp.where(jnp.isfinite(problem.runner_up), problem.runner_up, problem.first[0])  # a start, if without a budget, is a number
    starts = jnp.concatenate([problem.first[:1], second[None], fresh])
    fitted = fit(surrogate, data, starts, problem.budgets, jax.random.fold_in(start_key, 0), problem.initial, warm=True)
    thetas = fitted.theta[None]
    if surrogate.options.mcmc is not None:
        chain = partial(draw, chain_key, surrogate.options.mcmc, surrogate, data)
        thetas = jax.lax.cond(jnp.any(problem.budgets > 0), chain, lambda _: problem.first[1:], fitted.theta)

    def believe(theta: Float[Array, "P"]) -> tuple[Posterior, Float[Array, "S"], Float[Array, ""]]:
        post, density = condition_and_weigh(surrogate.unflatten(theta, data.inputs), data)
        post = fantasise(fantasy_key, post, problem.pending, num_fantasies)
        return post, incumbent(post, problem.level), density

    if len(thetas) == 1:
        posts, best, densities = jax.tree.map(lambda a: a[None], believe(thetas[0]))
    else:  # one after the other: a batch of LAPACK calls is slow on the CPU, and can hang
        posts, best, densities = jax.lax.map(believe, thetas)
    if isinstance(acquisition, Thompson):
        last = jax.tree.map(lambda a: a[-1], posts)
        chosen = thompson(draw_key, last, problem.level, problem.candidates, NUM_RETURNED, acquisition.points)
    else:
        chosen = _maximiser(acquisition, posts, best, problem)
    if surrogate.options.mcmc is None:
        loss = -densities[0] - surrogate.log_prior(fitted.theta, data.inputs)
    else:
        loss = objective(surrogate, fitted.theta, data)
    is_compared = (problem.budgets[1] > 0) | jnp.isnan(problem.runner_up)
    runner_up = jnp.where(is_compared, fitted.runner_up, problem.runner_up)
    tried = jnp.any(problem.budgets[1:] > 0) & jnp.isfinite(fitted.loss)
    fruitless = jnp.where(tried, jnp.where(fitted.gain > APART, 0, problem.fruitless + 1), problem.fruitless)
    jitter = jnp.max(posts.jitter)
    return Result(chosen, fitted.theta, runner_up, fruitless, thetas, fitted.loss, loss, fitted.evaluations, jitter)


def _maximiser(acquisition: Acquisition, posts: Posterior, best: Float[Array, "H S"], problem: Problem) -> Candidates:
    """Where the acquisition, averaged over the posteriors of H draws of the hyperparameters, is largest."""

    def weigh(x: Float[Array, "M D"], beliefs: Any, best: Float[Array, "H S"]) -> Float[Array, "M"]:
        query = at_level(x, problem.level, problem.data.inputs)

        def one(belief: Any, b: Float[Array, "S"]) -> Float[Array, "M"]:
            return acquisition.value(belief, b, problem.unit, query)

        if len(best) == 1:
            return acquisition.average(one(jax.tree.map(lambda a: a[0], beliefs), best[0])[None])
        return acquisition.average(jax.vmap(one)(beliefs, best))

    outlines, typical = jax.vmap(outline)(posts), jnp.mean(best, axis=1, keepdims=True)
    return maximise(
        lambda x: weigh(x, posts, best),
        problem.candidates,
        problem.free,
        problem.grid,
        NUM_RETURNED,
        screen=lambda x: weigh(x, outlines, typical),
    )


loss_of = compiled(static_argnames=("surrogate",))(objective)


def suggest(
    surrogate: Surrogate,
    *,
    seed: tuple[int, int],
    x: np.ndarray,
    r: np.ndarray,
    y: np.ndarray,
    pending_x: np.ndarray,
    pending_r: np.ndarray,
    r_acq: float,
    candidates: np.ndarray,
    free: np.ndarray,
    space: Space,
    warm: Mapping[str, Any] | None = None,
    refit: bool = True,
    num_fantasies: int = 20,
    pending_size: int = 8,
    acquisition: Acquisition = EXPECTED_IMPROVEMENT,
) -> Suggestion:
    """Points to evaluate next, given observations (x, r, y) and pending evaluations; y is minimised, r and r_acq are u(r).

    A function of its arguments alone: the random key is fold_in(seed[0], seed[1]). `warm`, an earlier Suggestion's hyperparameters,
    starts the fit, or is used as it is if not `refit`. Coordinates of a candidate move only where `free`. pending_size is what the
    pending evaluations are padded to: one size per study keeps it at one compilation per bucket of n.
    """
    with precision_of(surrogate):
        problem = problem_of(
            surrogate,
            seed=seed,
            x=x,
            r=r,
            y=y,
            pending_x=pending_x,
            pending_r=pending_r,
            r_acq=r_acq,
            candidates=candidates,
            free=free,
            space=space,
            warm=warm,
            refit=refit,
            pending_size=pending_size,
        )
        if len(problem.data.y) > FIT_ROWS:
            return _suggest_from_many(surrogate, acquisition, num_fantasies, problem, refit)
        result = jax.device_get(compute(surrogate, acquisition, num_fantasies, problem))
    return conclude(surrogate, problem, result, refit)


def _suggest_from_many(surrogate: Surrogate, acquisition: Acquisition, num_fantasies: int, problem: Problem, refit: bool) -> Suggestion:
    """`suggest` for more rows than a fit should see, in the forms of large.py."""
    data, seed = problem.data, (int(problem.seed[0]), int(problem.seed[1]))
    iterative, note = plan(surrogate, acquisition, data)
    part = problem._replace(data=sample(surrogate, data, int(problem.level), seed))
    if refit:
        result = jax.device_get(compute(surrogate, acquisition, num_fantasies, part))  # the choice in it is made anew below
    else:
        theta, nothing = problem.first[0], np.zeros(())
        held: dict[str, Any] = dict(  # of NumPy where a fit would leave device arrays; the candidates are found below
            candidates=None,
            theta=theta,
            runner_up=problem.runner_up,
            fruitless=problem.fruitless,
            draws=problem.first[1:] if surrogate.options.mcmc is not None else problem.first,
            fit_loss=nothing,
            loss=jax.device_get(loss_of(surrogate, theta, part.data)),
            evaluations=nothing,
            jitter=nothing,
        )
        result = Result(**held)
    form = describe(data)
    if iterative:
        asked = Asked(problem.seed, problem.pending, problem.level, problem.unit, problem.candidates, problem.free, problem.grid)
        rows = rows_of(data, seed, surrogate.has_levels)
        answer = jax.device_get(choose(surrogate, acquisition, num_fantasies, NUM_RETURNED, result.theta, rows, asked))
        form = f"iterative: {num_observations(data)} observations, relative residual {float(answer.relative_residual):.1e}"
        note = f"{form}; not converged" if not answer.relative_residual <= 1e-3 else form
    else:
        draws = result.draws if surrogate.options.mcmc is not None else result.draws[:0]
        first: Any = np.concatenate([result.theta[None], draws]) if refit else problem.first
        answer = jax.device_get(compute(surrogate, acquisition, num_fantasies, problem._replace(first=first, budgets=0 * problem.budgets)))
    result = result._replace(candidates=answer.candidates, jitter=answer.jitter)
    sampled = f"fitted to {num_observations(part.data)} of {num_observations(data)} observations" if refit else ""
    suggestion = conclude(surrogate, problem, result, refit)
    return replace(suggestion, fallback="; ".join(filter(None, (suggestion.fallback, note, sampled))), form=form)


def conclude(surrogate: Surrogate, problem: Problem, result: Result, refit: bool) -> Suggestion:
    notes = []
    levels = np.asarray(problem.data.inputs.levels)
    failed = refit and not np.isfinite(result.fit_loss)
    if failed:
        notes.append("the fit found no finite likelihood: kept the hyperparameters it started from")
    if result.jitter > 0:
        notes.append(f"the covariance needed a jitter of {float(result.jitter):.0e}")
    acquisition, rows = np.asarray(result.candidates.acquisition, np.float64), np.asarray(result.candidates.x, np.float64)
    if not np.any(np.isfinite(acquisition)):
        notes.append("the acquisition is finite at no candidate: their order is arbitrary")
    readable = partial(surrogate.readable, num_coordinates=rows.shape[1], levels=np.unique(levels), num_levels=len(levels))
    hyperparameters = readable(np.asarray(result.theta)) | {"fruitless": int(result.fruitless)}
    if np.all(np.isfinite(result.runner_up)):
        hyperparameters["runner_up"] = readable(np.asarray(result.runner_up))
    if surrogate.options.mcmc is not None:
        hyperparameters["draws"] = [readable(np.asarray(theta)) for theta in result.draws]
    _, once = np.unique(rows, axis=0, return_index=True)
    once = np.sort(once)
    return Suggestion(
        x=rows[once],
        acquisition=acquisition[once],
        hyperparameters=hyperparameters,
        refitted=refit and not failed,
        fallback="; ".join(notes),
        loss=float(result.loss),
        evaluations=int(result.evaluations),
        form=describe(problem.data),
    )
