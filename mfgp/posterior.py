"""Gaussian-process algebra on padded rows: marginal likelihood, conditioning, fantasies, prediction.

Padded rows are rows of the identity: a unit pivot adds log 1 = 0 to the log determinant and leaves the other pivots alone. The factor
is kept inverted (L^-1): prediction is then a product of matrices, which batches and differentiates without LAPACK calls. On the CPU
batched LAPACK calls are slow, and with jax 0.10 they can hang for ever.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mfgp.collapsed import Statistics, statistics
from mfgp.data import Data, Inputs
from mfgp.kernels import Process

# Jitter in units of max(1, mean variance): none, then growing by tens until the factor is finite.
JITTERS = {jnp.dtype("float64"): (0.0, *(10.0**k for k in range(-10, 0))), jnp.dtype("float32"): (0.0, *(10.0**k for k in range(-6, 0)))}


class Factor(NamedTuple):
    chol: Float[Array, "N N"]  # lower; not finite if even the largest jitter was too small
    jitter: Float[Array, ""]  # what was added to the diagonal


def factorise(matrix: Float[Array, "N N"]) -> Factor:
    """Cholesky factor of `matrix` plus the least jitter of the ladder that makes it finite."""
    ladder = jnp.asarray(JITTERS[matrix.dtype], matrix.dtype) * jnp.maximum(1.0, jnp.mean(jnp.diagonal(matrix)))

    def attempt(state: tuple[Float[Array, "N N"], Int[Array, ""]]) -> tuple[Float[Array, "N N"], Int[Array, ""]]:
        _, tried = state
        # Lower triangle only; an addition of zero keeps the bits.
        shifted = matrix + ladder[tried] * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        return jax.lax.linalg.cholesky(shifted, symmetrize_input=False), tried + 1

    def failed(state: tuple[Float[Array, "N N"], Int[Array, ""]]) -> Any:
        chol, tried = state
        return (tried == 0) | ((tried < len(ladder)) & ~jnp.isfinite(jnp.sum(jnp.diagonal(chol))))

    chol, tried = jax.lax.while_loop(failed, attempt, (jnp.zeros_like(matrix), jnp.zeros((), jnp.int32)))
    return Factor(chol, ladder[tried - 1])


def gram(process: Process, inputs: Inputs) -> Float[Array, "N N"]:
    """Covariance of the observations, noise included; the identity where padded."""
    both = inputs.mask[:, None] & inputs.mask[None]
    return jnp.where(both, process.cov(inputs, inputs), 0.0) + jnp.diag(jnp.where(inputs.mask, process.noise, 1.0))


def residual(process: Process, data: Data) -> Float[Array, "N"]:
    return jnp.where(data.inputs.mask, data.y - process.mean(data.inputs), 0.0)


def sufficient(process: Process, data: Data) -> Statistics:
    """Covariance of the targets and their distance from the mean, one row per row of `data`."""
    if data.curves is not None:
        return statistics(process, data)
    return Statistics(gram(process, data.inputs), residual(process, data), jnp.zeros((), data.y.dtype))


def _log_density(chol: Float[Array, "N N"], quadratic: Float[Array, ""], constant: Float[Array, ""], data: Data) -> Float[Array, ""]:
    n = jnp.sum(data.inputs.mask)
    return constant - 0.5 * quadratic - jnp.sum(jnp.log(jnp.diagonal(chol))) - 0.5 * n * jnp.log(2 * jnp.pi).astype(quadratic.dtype)


def log_marginal_likelihood(process: Process, data: Data) -> Float[Array, ""]:
    """log N(y; m, K + noise I) in nats (Rasmussen & Williams 2006, eq. 2.30), of the rows that are no padding.

    nan only if the covariance itself is not finite: see `factorise` for the jitter.
    """
    matrix, rest, constant = sufficient(process, data)
    chol = factorise(matrix).chol
    white = jax.lax.linalg.triangular_solve(chol, rest[:, None], left_side=True, lower=True)
    return _log_density(chol, jnp.sum(white * white), constant, data)


def log_marginal_likelihood_and_grad(
    process_of: Callable[[Float[Array, "P"]], Process], theta: Float[Array, "P"], data: Data
) -> tuple[Float[Array, ""], Float[Array, "P"]]:
    """The value, and its gradient in theta as ½ tr((a aᵀ - K^-1) dK) + aᵀ dm with a = K^-1 (y - m) (ibid., eq. 5.9).

    One factorisation, one inverse and one pull-back through the covariance function; differentiating through the factorisation costs
    about three times as much.
    """
    theta = jax.lax.optimization_barrier(theta)
    (matrix, rest, constant), pull = jax.vjp(lambda t: sufficient(process_of(t), data), theta)
    chol = factorise(matrix).chol
    inverse = jax.scipy.linalg.cho_solve((chol, True), jnp.eye(chol.shape[0], dtype=chol.dtype))
    a = inverse @ rest
    (gradient,) = pull(Statistics(0.5 * (jnp.outer(a, a) - inverse), -a, jnp.ones_like(constant)))
    return _log_density(chol, jnp.vdot(rest, a), constant, data), gradient


@runtime_checkable
class Belief(Protocol):
    """A posterior as acquisitions see it, in whatever form it was computed."""

    @property
    def inputs(self) -> Inputs:
        """Observed, then pending."""

    def predict_mean(self, query: Inputs) -> Float[Array, "S M"]: ...

    def predict(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]: ...


class Posterior(NamedTuple):
    """S target vectors share one factor, because the covariance does not depend on the targets."""

    process: Any  # a Process
    inputs: Inputs
    whiten: Float[Array, "N N"]  # L^-1
    white: Float[Array, "N S"]  # L^-1 (y - m)
    jitter: Float[Array, ""]  # largest jitter that any of its factors needed

    def predict_mean(self, query: Inputs) -> Float[Array, "S M"]:
        """Posterior means of the noise-free function."""
        return self.process.mean(query) + (self.whiten.T @ self.white).T @ _cross(self, query)

    def predict(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
        """Posterior means and the variance, common to all S, of the noise-free function."""
        explained = self.whiten @ _cross(self, query)
        variance = self.process.var(query) - jnp.sum(explained * explained, axis=0)
        return self.process.mean(query) + self.white.T @ explained, jnp.maximum(variance, 1e-20)


def condition(process: Process, data: Data) -> Posterior:
    """The posterior given the observations: S = 1."""
    matrix, rest, _ = sufficient(process, data)
    factor = factorise(matrix)
    identity = jnp.eye(factor.chol.shape[0], dtype=factor.chol.dtype)
    whiten = jax.lax.linalg.triangular_solve(factor.chol, identity, left_side=True, lower=True)
    return Posterior(process, data.inputs, whiten, whiten @ rest[:, None], factor.jitter)


def _cross(post: Posterior, query: Inputs) -> Float[Array, "N M"]:
    return jnp.where(post.inputs.mask[:, None], post.process.cov(post.inputs, query), 0.0)


def predict_mean(post: Belief, query: Inputs) -> Float[Array, "S M"]:
    """Posterior means of the noise-free function."""
    return post.predict_mean(query)


def predict(post: Belief, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
    """Posterior means and the variance, common to all S, of the noise-free function."""
    return post.predict(query)


def predict_joint(post: Posterior, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M M"]]:
    """Posterior means and joint covariance of the noise-free function."""
    explained = post.whiten @ _cross(post, query)
    return post.process.mean(query) + post.white.T @ explained, post.process.cov(query, query) - explained.T @ explained


def join(a: Inputs, b: Inputs) -> Inputs:
    """The rows of a, then those of b."""
    return Inputs(jnp.concatenate([a.x, b.x]), jnp.concatenate([a.level, b.level]), a.levels, jnp.concatenate([a.mask, b.mask]))


def append(post: Posterior, new: Inputs, y: Float[Array, "P S"]) -> Posterior:
    """Condition on further targets, one column per member; extends the factor by a block and computes nothing anew.

    Has as many columns as y, which `post` must have too, unless it has one.
    """
    explained = jnp.where(new.mask[None], post.whiten @ _cross(post, new), 0.0)
    mean = post.process.mean(new)[:, None] + explained.T @ post.white
    factor = factorise(gram(post.process, new) - explained.T @ explained)
    identity = jnp.eye(factor.chol.shape[0], dtype=factor.chol.dtype)
    corner = jax.lax.linalg.triangular_solve(factor.chol, identity, left_side=True, lower=True)
    n, p = explained.shape
    below = -corner @ (explained.T @ post.whiten)
    whiten = jnp.block([[post.whiten, jnp.zeros((n, p), corner.dtype)], [below, corner]])
    white = corner @ jnp.where(new.mask[:, None], y - mean, 0.0)
    before = jnp.broadcast_to(post.white, (n, y.shape[1]))
    return Posterior(
        post.process, join(post.inputs, new), whiten, jnp.concatenate([before, white]), jnp.maximum(post.jitter, factor.jitter)
    )


def sample(key: Array, post: Posterior, query: Inputs, num: int) -> tuple[Float[Array, "M num"], Float[Array, ""]]:
    """Joint draws of the noise-free function at the query (first target vector), and the jitter their factor needed.

    One key per row: the draws do not depend on how many rows of padding follow.
    """
    mean, covariance = predict_joint(post, query)
    both = query.mask[:, None] & query.mask[None]
    factor = factorise(jnp.where(both, covariance, jnp.eye(covariance.shape[0], dtype=covariance.dtype)))
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(covariance.shape[0]))
    normal = jax.vmap(lambda k: jax.random.normal(k, (num,), covariance.dtype))(keys)
    return mean[0][:, None] + factor.chol @ normal, factor.jitter


def fantasise(key: Array, post: Posterior, pending: Inputs, num: int) -> Posterior:
    """Joint samples of the noise-free function at the pending inputs, appended as if they had been observed: S = num.

    Snoek, Larochelle, Adams (2012), section 3.2. Targets are integrated out over `num` draws; hyperparameters see observations only.
    """
    draws, jitter = sample(key, post, pending, num)
    extended = append(post, pending, draws)
    return extended._replace(jitter=jnp.maximum(extended.jitter, jitter))
