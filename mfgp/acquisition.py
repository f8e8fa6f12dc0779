"""Acquisitions, higher is better: expected improvement averaged over fantasies, lower confidence bound; and the incumbent."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mfgp.data import Inputs, at_level, of_chosen
from mfgp.posterior import Belief, predict, predict_mean

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


def log_expected_improvement(post: Belief, best: Float[Array, "S"], xi: Float[Array, ""], query: Inputs) -> Float[Array, "M"]:
    """log of the mean over the S columns of E max(best - xi - f(query), 0), for minimisation; never underflows, unlike its exp."""
    mean, variance = predict(post, query)
    s = jnp.sqrt(variance)
    each = jnp.log(s) + log_h((best[:, None] - mean - xi) / s)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0]).astype(each.dtype)


def incumbent(post: Belief, level: Int[Array, ""]) -> Float[Array, "S"]:
    """Per column, the least posterior mean at `level` over the configurations observed or pending there.

    Over all configurations, predicted at `level`, if there is none.
    """
    there = post.inputs.mask & (post.inputs.level == level)
    chosen = jnp.where(jnp.any(there), there, post.inputs.mask)
    means = of_chosen(lambda rows: predict_mean(post, at_level(post.inputs.x[rows], level, post.inputs)), chosen, jnp.inf)
    return jnp.min(means, axis=1)


@dataclass(frozen=True)
class ExpectedImprovement:
    """log of the expected improvement by at least xi standard deviations of the targets at r_acq, averaged over fantasies."""

    xi: float = 0.01

    def value(self, post: Belief, best: Float[Array, "S"], unit: Float[Array, ""], query: Inputs) -> Float[Array, "M"]:
        return log_expected_improvement(post, best, self.xi * unit, query)

    def average(self, values: Float[Array, "H M"]) -> Float[Array, "M"]:
        """Over draws of the hyperparameters."""
        return jax.nn.logsumexp(values, axis=0) - jnp.log(values.shape[0]).astype(values.dtype)


@dataclass(frozen=True)
class LowerConfidenceBound:
    """kappa standard deviations below the mean (over fantasies), negated: higher is better."""

    kappa: float = 1.0

    def value(self, post: Belief, best: Float[Array, "S"], unit: Float[Array, ""], query: Inputs) -> Float[Array, "M"]:
        mean, variance = predict(post, query)
        return self.kappa * jnp.sqrt(variance) - jnp.mean(mean, axis=0)

    def average(self, values: Float[Array, "H M"]) -> Float[Array, "M"]:
        return jnp.mean(values, axis=0)


@dataclass(frozen=True)
class Thompson:
    """The candidates in the order of one joint draw of the function (and of one fantasy and one draw of the hyperparameters).

    The draw is exact and joint, at most `points` candidates evenly chosen from the pool: its cost grows with the cube of the number.
    """

    points: int = 512


Acquisition = Any  # ExpectedImprovement | LowerConfidenceBound | Thompson
