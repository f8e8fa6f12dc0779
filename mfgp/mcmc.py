"""Hyperparameters drawn from their posterior by tensorflow-probability's samplers, instead of one best value.

The chain runs in unconstrained coordinates: each bounded coordinate of the optimiser is a logistic function of one. The density is
that of the hyperpriors in natural coordinates; where none is given it is uniform in the optimiser's coordinates (mostly logarithms).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfgp.data import Data
from mfgp.posterior import log_marginal_likelihood, log_marginal_likelihood_and_grad
from mfgp.surrogates import Surrogate
from mfgp.tfp import tfd, tfmcmc


@dataclass(frozen=True)
class Nuts:
    """No-U-turn sampler (Hoffman & Gelman 2014) with a step size adapted during warm-up."""

    draws: int = 10
    warmup: int = 60
    thin: int = 2
    max_depth: int = 5

    def kernel(self, target: Callable[[Any], Any], dtype: Any) -> Any:
        inner = tfmcmc.NoUTurnSampler(target, step_size=jnp.asarray(0.2, dtype), max_tree_depth=self.max_depth)
        return tfmcmc.DualAveragingStepSizeAdaptation(
            inner, num_adaptation_steps=int(0.8 * self.warmup), target_accept_prob=jnp.asarray(0.8, dtype)
        )


@dataclass(frozen=True)
class SliceSampling:
    """Univariate slice sampling along random directions (Neal 2003)."""

    draws: int = 10
    warmup: int = 150
    thin: int = 10
    max_doublings: int = 5

    def kernel(self, target: Callable[[Any], Any], dtype: Any) -> Any:
        return tfmcmc.SliceSampler(target, step_size=jnp.asarray(1.0, dtype), max_doublings=self.max_doublings)


def log_posterior(surrogate: Surrogate, data: Data) -> Callable[[Float[Array, "P"]], Float[Array, ""]]:
    """log density of the optimiser's coordinates given the data, up to a constant; differentiates by the analytic gradient."""

    @jax.custom_vjp
    def likelihood(theta: Float[Array, "P"]) -> Float[Array, ""]:
        return log_marginal_likelihood(surrogate.unflatten(theta, data.inputs), data)

    def forward(theta: Float[Array, "P"]) -> Any:
        return log_marginal_likelihood_and_grad(lambda t: surrogate.unflatten(t, data.inputs), theta, data)

    likelihood.defvjp(forward, lambda gradient, cotangent: (cotangent * gradient,))

    def density(theta: Float[Array, "P"]) -> Float[Array, ""]:
        return likelihood(theta) + surrogate.log_prior(theta, data.inputs) + surrogate.log_jacobian(theta, data.inputs)

    return density


def draw(key: Array, sampler: Nuts | SliceSampling, surrogate: Surrogate, data: Data, start: Float[Array, "P"]) -> Float[Array, "H P"]:
    """`sampler.draws` states of one chain from `start`, in the optimiser's coordinates."""
    low, high = (jnp.asarray(side, start.dtype) for side in surrogate.box(data.inputs.x.shape[1], data.inputs.levels.shape[0]))
    free, width = low < high, high - low
    density = log_posterior(surrogate, data)

    def place(z: Float[Array, "P"]) -> Float[Array, "P"]:
        return low + width * jax.nn.sigmoid(z)

    def target(z: Float[Array, "P"]) -> Float[Array, ""]:
        # Coordinates that are held have no density of their own: a standard normal keeps theirs from drifting.
        jacobian = jnp.where(free, jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z), tfd.Normal(jnp.zeros_like(z), 1.0).log_prob(z))
        value = density(place(z)) + jnp.sum(jacobian)
        return jnp.where(jnp.isfinite(value), value, -1e30)

    inside = jnp.clip((start - low) / jnp.where(free, width, 1.0), 1e-3, 1.0 - 1e-3)
    states = tfmcmc.sample_chain(
        sampler.draws,
        jnp.where(free, jnp.log(inside) - jnp.log1p(-inside), 0.0),
        kernel=sampler.kernel(target, start.dtype),
        num_burnin_steps=sampler.warmup,
        num_steps_between_results=sampler.thin - 1,
        trace_fn=None,
        seed=key,
    )
    return jax.vmap(place)(states)
