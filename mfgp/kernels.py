"""Surrogates over (x, r) as NamedTuples of their own hyperparameters, with methods mean, cov and var.

Sums and products over resources are evaluated on the table of levels and spread over the rows by products with indicator matrices,
which cost less than evaluating powers per pair and whose gradient is again a product. All arguments that take two `Inputs` expect
that they share one table. cov is the covariance of the noise-free function; `noise` is the variance of an observation around it.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mfgp.data import Inputs


@runtime_checkable
class Process(Protocol):
    """A Gaussian process with its hyperparameters fixed."""

    noise: Float[Array, ""]

    def mean(self, a: Inputs) -> Float[Array, "N"]: ...

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]: ...

    def var(self, a: Inputs) -> Float[Array, "N"]: ...


@jax.custom_jvp
def matern52(d2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """(1 + b + b^2 / 3) e^-b with b = sqrt(5 d2): Matérn-5/2 of the squared distance (Rasmussen & Williams 2006, eq. 4.17).

    The derivative is written out because it is finite at 0, where that of the square root is not.
    """
    b = jnp.sqrt(5.0 * d2)
    return (1.0 + b + b * b / 3.0) * jnp.exp(-b)


@matern52.defjvp
def _matern52_jvp(primals: tuple, tangents: tuple) -> tuple:
    (d2,), (dot,) = primals, tangents
    b = jnp.sqrt(5.0 * d2)
    e = jnp.exp(-b)
    return (1.0 + b + b * b / 3.0) * e, -5.0 / 6.0 * (1.0 + b) * e * dot


def squared_distance(x: Float[Array, "N D"], z: Float[Array, "M D"], weight: Float[Array, "D"]) -> Float[Array, "N M"]:
    """Σ_j weight_j^2 (x_j - z_j)^2; the weights are inverse lengthscales."""
    x, z = (x - 0.5) * weight, (z - 0.5) * weight  # centred: less cancellation below
    return jnp.maximum(jnp.sum(x * x, -1)[:, None] + jnp.sum(z * z, -1)[None] - 2.0 * x @ z.T, 0.0)


def spread(table: Float[Array, "R R"], a: Inputs, b: Inputs) -> Float[Array, "N M"]:
    """table[level of a, level of b]."""
    indicator_a = jax.nn.one_hot(a.level, table.shape[0], dtype=table.dtype)
    indicator_b = jax.nn.one_hot(b.level, table.shape[0], dtype=table.dtype)
    return indicator_a @ table @ indicator_b.T


class Matern(NamedTuple):
    """Matérn-5/2 with one inverse lengthscale per coordinate of (x, u(r)) and a constant mean."""

    inverse_bandwidth: Float[Array, "D"]
    resource_inverse_bandwidth: Float[Array, ""]
    scale: Float[Array, ""]
    constant: Float[Array, ""]
    noise: Float[Array, ""]

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return jnp.full(a.level.shape, self.constant)

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        over_r = jnp.square((a.levels[:, None] - a.levels[None]) * self.resource_inverse_bandwidth)
        return self.scale * matern52(squared_distance(a.x, b.x, self.inverse_bandwidth) + spread(over_r, a, b))

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return jnp.full(a.level.shape, self.scale)


class ExpDecay(NamedTuple):
    """f(x, r) = γ e^(-λr) + f(x) (1 - δ e^(-λr)), λ ~ Gamma(α, rate β = α / mean_lambda), f ~ GP(constant, Matérn-5/2): eq. (3) of
    Klein, Tiao, Lienart, Archambeau, Seeger (2020).

    The covariance is the one their appendix B.2 derives, k_X (1 - δ (κ + κ' - δ κ(r + r'))) + (γ - δ μ)^2 κ~(r, r'); the formula
    printed in the text there has another sign and is not positive semi-definite. f is not Gaussian: these are its two moments.
    """

    inverse_bandwidth: Float[Array, "D"]
    scale: Float[Array, ""]
    constant: Float[Array, ""]
    alpha: Float[Array, ""]
    mean_lambda: Float[Array, ""]
    gamma: Float[Array, ""]
    delta: Float[Array, ""]
    noise: Float[Array, ""]

    def _kappa(self, u: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """E e^(-λu) = (β / (u + β))^α."""
        return jnp.exp(-self.alpha * jnp.log1p(u * self.mean_lambda / self.alpha))

    def _tables(self, u: Float[Array, "R"]) -> tuple[Float[Array, "R"], Float[Array, "R R"], Float[Array, "R R"]]:
        """The mean per level; the factor of k_X and the term that is constant in x, per pair of levels."""
        once, twice = self._kappa(u), self._kappa(u[:, None] + u[None])
        drop = self.gamma - self.delta * self.constant
        factor = 1.0 - self.delta * (once[:, None] + once[None]) + self.delta**2 * twice
        return self.constant + drop * once, factor, drop**2 * (twice - once[:, None] * once[None])

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self._tables(a.levels)[0][a.level]

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        _, factor, offset = self._tables(a.levels)
        k_x = self.scale * matern52(squared_distance(a.x, b.x, self.inverse_bandwidth))
        return k_x * spread(factor, a, b) + spread(offset, a, b)

    def var(self, a: Inputs) -> Float[Array, "N"]:
        _, factor, offset = self._tables(a.levels)
        return (self.scale * jnp.diagonal(factor) + jnp.diagonal(offset))[a.level]
