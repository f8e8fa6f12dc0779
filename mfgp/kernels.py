"""Surrogates over (x, r) as NamedTuples of their own hyperparameters, with methods mean, cov and var.

Sums and products over resources are evaluated on the table of levels and spread over the rows by products with indicator matrices,
which cost less than evaluating powers per pair and whose gradient is again a product. All arguments that take two `Inputs` expect
that they share one table. cov is the covariance of the noise-free function; `noise` is the variance of an observation around it.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from mfgp.data import Inputs

FEW = 1_000_000  # differences of coordinates that are kept, 8 MB
RHO = 0.8  # correlation between levels at the centre of Coregional's prior


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


@jax.custom_jvp
def squared_distance(x: Float[Array, "N D"], z: Float[Array, "M D"], weight: Float[Array, "D"]) -> Float[Array, "N M"]:
    """Σ_j weight_j^2 (x_j - z_j)^2; the weights are inverse lengthscales.

    The derivative is written out because it takes fewer products: in the weights one of N x M x D where differentiating the lines below
    takes two, and for many weights at once, of few points, a single one with the coordinates' squared differences.
    """
    x, z = (x - 0.5) * weight, (z - 0.5) * weight  # centred: less cancellation below
    return jnp.maximum(jnp.sum(x * x, -1)[:, None] + jnp.sum(z * z, -1)[None] - 2.0 * x @ z.T, 0.0)


def _squared_distance_jvp(primals: tuple, tangents: tuple) -> tuple:
    x, z, weight = primals
    dx, dz, dweight = (None if isinstance(t, SymbolicZero) else t for t in tangents)
    value = squared_distance(x, z, weight)
    dot = jnp.zeros_like(value)
    centred_x, centred_z = x - 0.5, z - 0.5
    if dweight is not None:
        slope = 2.0 * weight * dweight
        if x.shape[0] * z.shape[0] * x.shape[1] <= FEW:
            dot += jnp.square(x[:, None] - z[None]) @ slope
        else:
            dot += ((centred_x**2) @ slope)[:, None] + ((centred_z**2) @ slope)[None] - 2.0 * (centred_x * slope) @ centred_z.T
    square = 2.0 * weight * weight
    if dx is not None:
        moved = square * dx
        dot += jnp.sum(moved * centred_x, -1)[:, None] - moved @ centred_z.T
    if dz is not None:
        moved = square * dz
        dot += jnp.sum(moved * centred_z, -1)[None] - centred_x @ moved.T
    return value, dot


squared_distance.defjvp(_squared_distance_jvp, symbolic_zeros=True)


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


def warp(t: Float[Array, "*n"], a: Float[Array, "*#n"], b: Float[Array, "*#n"]) -> Float[Array, "*n"]:
    """1 - (1 - t^a)^b, the distribution function of Kumaraswamy: fixes 0 and 1, so it leaves one-hot coordinates alone."""
    inside = jnp.clip(t, 1e-12, 1.0 - 1e-7 if t.dtype == jnp.float32 else 1.0 - 1e-12)  # the slopes in a and b are not finite at the ends
    return jnp.where((t <= 0.0) | (t >= 1.0), t, -jnp.expm1(b * jnp.log1p(-jnp.exp(a * jnp.log(inside)))))


class MaternWarped(NamedTuple):
    """`Matern` over (x, warp(u(r))): learns on which scale resources matter."""

    inverse_bandwidth: Float[Array, "D"]
    resource_inverse_bandwidth: Float[Array, ""]
    scale: Float[Array, ""]
    constant: Float[Array, ""]
    warp_a: Float[Array, ""]
    warp_b: Float[Array, ""]
    noise: Float[Array, ""]

    def _plain(self) -> Matern:
        return Matern(self.inverse_bandwidth, self.resource_inverse_bandwidth, self.scale, self.constant, self.noise)

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self._plain().mean(a)

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        levels = warp(a.levels, self.warp_a, self.warp_b)
        return self._plain().cov(a._replace(levels=levels), b._replace(levels=levels))

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return self._plain().var(a)


class WarpedInputs(NamedTuple):
    """Another process on warped coordinates x_j -> warp(x_j, a_j, b_j) (Snoek et al. 2014)."""

    process: Any
    input_warp_a: Float[Array, "D"]
    input_warp_b: Float[Array, "D"]

    @property
    def noise(self) -> Any:
        return self.process.noise

    def _warped(self, a: Inputs) -> Inputs:
        return a._replace(x=warp(a.x, self.input_warp_a, self.input_warp_b))

    def span(self, u: Float[Array, "R"]) -> Float[Array, "F R"]:
        return self.process.span(u)

    def over_x(self, x: Float[Array, "N D"], z: Float[Array, "M D"]) -> Float[Array, "N M"]:
        return self.process.over_x(*(warp(points, self.input_warp_a, self.input_warp_b) for points in (x, z)))

    def separated(self, u: Float[Array, "R"]) -> Any:
        return self.process.separated(u) if hasattr(self.process, "separated") else None

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self.process.mean(self._warped(a))

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        return self.process.cov(self._warped(a), self._warped(b))

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return self.process.var(self._warped(a))


def kappa(u: Float[Array, "*n"], alpha: Float[Array, ""], mean_lambda: Float[Array, ""]) -> Float[Array, "*n"]:
    """E e^(-λu) = (β / (u + β))^α for λ ~ Gamma(α, rate β = α / mean_lambda)."""
    return jnp.exp(-alpha * jnp.log1p(u * mean_lambda / alpha))


class Separated(NamedTuple):
    """A covariance k_x(x, x') across[r, r'] + common[r, r'] + [x = x'] own[r, r']; None is 0. Its k_x is the process's `over_x`."""

    across: Float[Array, "R R"]
    common: Float[Array, "R R"] | None = None
    own: Float[Array, "R R"] | None = None


def span(u: Float[Array, "R"], alpha: Float[Array, ""], mean_lambda: Float[Array, ""]) -> Float[Array, "F R"]:
    """1 and κ(· + u'), functions whose span holds every curve of a family with decays e^(-λu), at the levels: for `collapsed`."""
    return jnp.concatenate([jnp.ones_like(u)[None], kappa(u[:, None] + u[None], alpha, mean_lambda)])


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

    def _tables(self, u: Float[Array, "R"]) -> tuple[Float[Array, "R"], Float[Array, "R R"], Float[Array, "R R"]]:
        """The mean per level; the factor of k_X and the term that is constant in x, per pair of levels."""
        once, twice = (kappa(t, self.alpha, self.mean_lambda) for t in (u, u[:, None] + u[None]))
        drop = self.gamma - self.delta * self.constant
        factor = 1.0 - self.delta * (once[:, None] + once[None]) + self.delta**2 * twice
        return self.constant + drop * once, factor, drop**2 * (twice - once[:, None] * once[None])

    def span(self, u: Float[Array, "R"]) -> Float[Array, "F R"]:
        return span(u, self.alpha, self.mean_lambda)

    def over_x(self, x: Float[Array, "N D"], z: Float[Array, "M D"]) -> Float[Array, "N M"]:
        return matern52(squared_distance(x, z, self.inverse_bandwidth))

    def separated(self, u: Float[Array, "R"]) -> Separated:
        _, factor, offset = self._tables(u)
        return Separated(self.scale * factor, offset)

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self._tables(a.levels)[0][a.level]

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        _, factor, offset = self._tables(a.levels)
        k_x = self.scale * matern52(squared_distance(a.x, b.x, self.inverse_bandwidth))
        return k_x * spread(factor, a, b) + spread(offset, a, b)

    def var(self, a: Inputs) -> Float[Array, "N"]:
        _, factor, offset = self._tables(a.levels)
        return (self.scale * jnp.diagonal(factor) + jnp.diagonal(offset))[a.level]


class FreezeThaw(NamedTuple):
    """f(x, r) = f(x) + γ e^(-λ_x r) with a rate λ_x of its own for each configuration, independent Gamma(α, β) (after Swersky, Snoek,
    Adams 2014): its mean is constant + γ κ(r), and curves may cross.

    Unlike theirs the decay has its mean taken out, so that an asymptote's variance is that of k_X. A configuration is recognised by
    its coordinates, compared exactly.
    """

    inverse_bandwidth: Float[Array, "D"]
    scale: Float[Array, ""]
    constant: Float[Array, ""]
    alpha: Float[Array, ""]
    mean_lambda: Float[Array, ""]
    gamma: Float[Array, ""]
    noise: Float[Array, ""]

    def _decay(self, u: Float[Array, "R"]) -> Float[Array, "R R"]:
        once, twice = (kappa(t, self.alpha, self.mean_lambda) for t in (u, u[:, None] + u[None]))
        return self.gamma**2 * (twice - once[:, None] * once[None])

    def span(self, u: Float[Array, "R"]) -> Float[Array, "F R"]:
        return span(u, self.alpha, self.mean_lambda)

    def over_x(self, x: Float[Array, "N D"], z: Float[Array, "M D"]) -> Float[Array, "N M"]:
        return matern52(squared_distance(x, z, self.inverse_bandwidth))

    def separated(self, u: Float[Array, "R"]) -> Separated:
        return Separated(self.scale * jnp.ones((len(u), len(u)), u.dtype), own=self._decay(u))

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return (self.constant + self.gamma * kappa(a.levels, self.alpha, self.mean_lambda))[a.level]

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        same = jnp.all(a.x[:, None] == b.x[None], axis=-1)
        k_x = self.scale * matern52(squared_distance(a.x, b.x, self.inverse_bandwidth))
        return k_x + jnp.where(same, spread(self._decay(a.levels), a, b), 0.0)

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return self.scale + jnp.diagonal(self._decay(a.levels))[a.level]


class Independent(NamedTuple):
    """At each level a process of its own, with own mean and scale; lengthscales and noise are shared."""

    inverse_bandwidth: Float[Array, "D"]
    level_scale: Float[Array, "R"]
    level_constant: Float[Array, "R"]
    noise: Float[Array, ""]

    def over_x(self, x: Float[Array, "N D"], z: Float[Array, "M D"]) -> Float[Array, "N M"]:
        return matern52(squared_distance(x, z, self.inverse_bandwidth))

    def separated(self, u: Float[Array, "R"]) -> Separated:
        return Separated(jnp.diag(self.level_scale))

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self.level_constant[a.level]

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        return matern52(squared_distance(a.x, b.x, self.inverse_bandwidth)) * spread(jnp.diag(self.level_scale), a, b)

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return self.level_scale[a.level]


class Coregional(NamedTuple):
    """k_X times a free positive semi-definite matrix B over levels (intrinsic coregionalisation; Alvarez et al. 2012, section 4.2).

    B = W Wᵀ with W = root + deviation, where root is the symmetric root of a matrix of correlations RHO: so the prior's centre does
    not depend on the order of the levels, nor on how many of them are padding.
    """

    inverse_bandwidth: Float[Array, "D"]
    deviation: Float[Array, "R R"]
    level_constant: Float[Array, "R"]
    noise: Float[Array, ""]

    def _between(self) -> Float[Array, "R R"]:
        size = self.deviation.shape[0]
        # (√(1-ρ) I + t 11ᵀ)² = (1-ρ) I + ρ 11ᵀ for t = (√(1-ρ+ρR) - √(1-ρ)) / R
        plain = (1.0 - RHO) ** 0.5
        shared = ((1.0 - RHO + RHO * size) ** 0.5 - plain) / size
        w = plain * jnp.eye(size, dtype=self.deviation.dtype) + shared + self.deviation
        return w @ w.T

    def over_x(self, x: Float[Array, "N D"], z: Float[Array, "M D"]) -> Float[Array, "N M"]:
        return matern52(squared_distance(x, z, self.inverse_bandwidth))

    def separated(self, u: Float[Array, "R"]) -> Separated:
        return Separated(self._between())

    def mean(self, a: Inputs) -> Float[Array, "N"]:
        return self.level_constant[a.level]

    def cov(self, a: Inputs, b: Inputs) -> Float[Array, "N M"]:
        return matern52(squared_distance(a.x, b.x, self.inverse_bandwidth)) * spread(self._between(), a, b)

    def var(self, a: Inputs) -> Float[Array, "N"]:
        return jnp.diagonal(self._between())[a.level]
