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
LEAST_VARIANCE = 1e-20
LEAF = 100  # rows up to which a triangle is not halved


class Factor(NamedTuple):
    chol: Float[Array, "N N"]  # lower; not finite if even the largest jitter was too small
    jitter: Float[Array, ""]  # what was added to the diagonal


def factorise(matrix: Float[Array, "N N"]) -> Factor:
    """Cholesky factor of `matrix` plus the least jitter of the ladder that makes it finite."""
    ladder = jnp.asarray(JITTERS[matrix.dtype], matrix.dtype) * jnp.maximum(1.0, jnp.mean(jnp.diagonal(matrix)))

    def attempt(state: tuple[Float[Array, "N N"], Int[Array, ""]]) -> tuple[Float[Array, "N N"], Int[Array, ""]]:
        _, tried = state
        shifted = matrix + ladder[tried] * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        return _cholesky(shifted), tried + 1

    def failed(state: tuple[Float[Array, "N N"], Int[Array, ""]]) -> Any:
        chol, tried = state
        return (tried < len(ladder)) & ~jnp.isfinite(jnp.sum(jnp.diagonal(chol)))

    # The first attempt adds nothing and is the rule: in the loop it would cost copies.
    first = _cholesky(matrix)
    chol, tried = jax.lax.while_loop(failed, attempt, (first, jnp.ones((), jnp.int32)))
    return Factor(chol, ladder[tried - 1])


def _cholesky(matrix: Float[Array, "N N"]) -> Float[Array, "N N"]:
    """LAPACK works on columns, XLA on rows: transposed arrays of their own keep its layout out of everything before and after, whose
    loops would else go against their operands' and take twice as long."""
    return _transposed(_transposed(jax.lax.linalg.cholesky(matrix.T, symmetrize_input=False)))


def inverse_of_triangle(chol: Float[Array, "N N"]) -> Float[Array, "N N"]:
    """L^-1 by halves: [[A, 0], [B, C]]^-1 = [[A^-1, 0], [-C^-1 B A^-1, C^-1]], down to leaves that LAPACK solves.

    Two thirds of the work of solving for the identity, and all but the leaves' share is products of matrices, which XLA spreads over
    the cores and does several times faster than LAPACK's triangular solver.
    """
    size = chol.shape[0]
    if size <= LEAF:
        return jax.lax.linalg.triangular_solve(chol, jnp.eye(size, dtype=chol.dtype), left_side=True, lower=True)
    half = -(-size // 2)
    first, last = inverse_of_triangle(chol[:half, :half]), inverse_of_triangle(chol[half:, half:])
    below = -(last @ (chol[half:, :half] @ first))
    return jnp.concatenate([_widen(first, size), jnp.concatenate([below, last], axis=1)])


def _half_gradient(whiten: Float[Array, "N N"], a: Float[Array, "N"]) -> Float[Array, "N N"]:
    """½ (a aᵀ - K^-1), with K^-1 = L^-T L^-1, but with what belongs above the diagonal blocks added to what is below.

    So its trace with any symmetric matrix is the same, and a third of the work is enough.
    """
    size = whiten.shape[0]
    if size <= LEAF:
        return 0.5 * (jnp.outer(a, a) - _transposed(whiten) @ whiten)
    half = -(-size // 2)
    below, last = whiten[half:, :half], whiten[half:, half:]
    first = _half_gradient(whiten[:half, :half], a[:half]) - 0.5 * (_transposed(below) @ below)
    corner = jnp.outer(a[half:], a[:half]) - _transposed(last) @ below
    return jnp.concatenate([_widen(first, size), jnp.concatenate([corner, _half_gradient(last, a[half:])], axis=1)])


def _widen(block: Float[Array, "N K"], size: int) -> Float[Array, "N size"]:
    return jnp.pad(block, ((0, 0), (0, size - block.shape[1])))


def _transposed(matrix: Float[Array, "N K"]) -> Float[Array, "K N"]:
    """The transpose as an array of its own: XLA's product with a transposed left operand takes twice as long on the CPU."""
    return jax.lax.optimization_barrier(matrix.T)


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


def objective(surrogate: Any, theta: Float[Array, "P"], data: Data) -> Float[Array, ""]:
    """What `fit` minimises: -log marginal likelihood - log prior of the hyperparameters, nats."""
    return -log_marginal_likelihood(surrogate.unflatten(theta, data.inputs), data) - surrogate.log_prior(theta, data.inputs)


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
    whiten = inverse_of_triangle(chol)
    a = (whiten @ rest) @ whiten
    (gradient,) = pull(Statistics(_half_gradient(whiten, a), -a, jnp.ones_like(constant)))
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
        return self.process.mean(query) + (_cross(self, query) @ (self.whiten.T @ self.white)).T

    def predict(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
        """Posterior means and the variance, common to all S, of the noise-free function."""
        explained = _cross(self, query) @ self.whiten.T
        variance = self.process.var(query) - jnp.sum(explained * explained, axis=1)
        return self.process.mean(query) + (explained @ self.white).T, jnp.maximum(variance, LEAST_VARIANCE)


class Outline(NamedTuple):
    """A Posterior at a fraction of its cost, to screen many queries with: the mean over its target vectors, and of the variance what
    the first rows leave, an upper bound."""

    process: Any
    inputs: Inputs
    weights: Float[Array, "N"]  # K^-1 (y - m), averaged
    whiten: Float[Array, "K K"]  # of the first K rows: a corner of the whole one's

    def predict_mean(self, query: Inputs) -> Float[Array, "1 M"]:
        return self.process.mean(query)[None] + (_cross(self, query) @ self.weights)[None]

    def predict(self, query: Inputs) -> tuple[Float[Array, "1 M"], Float[Array, "M"]]:
        cross = _cross(self, query)
        explained = cross[:, : len(self.whiten)] @ self.whiten.T
        variance = self.process.var(query) - jnp.sum(explained * explained, axis=1)
        return self.process.mean(query)[None] + (cross @ self.weights)[None], jnp.maximum(variance, LEAST_VARIANCE)


def outline(post: Posterior, share: int = 3) -> Outline:
    """Of one in `share` of the rows."""
    weights = jnp.mean(post.white, axis=1) @ post.whiten
    rows = -(-post.whiten.shape[-1] // share)
    return Outline(post.process, post.inputs, weights, post.whiten[:rows, :rows])


def condition(process: Process, data: Data) -> Posterior:
    """The posterior given the observations: S = 1."""
    return condition_and_weigh(process, data)[0]


def condition_and_weigh(process: Process, data: Data) -> tuple[Posterior, Float[Array, ""]]:
    """The posterior given the observations (S = 1), and their log marginal likelihood from the same factor."""
    matrix, rest, constant = sufficient(process, data)
    factor = factorise(matrix)
    whiten = inverse_of_triangle(factor.chol)
    white = whiten @ rest[:, None]
    density = _log_density(factor.chol, jnp.sum(white * white), constant, data)
    return Posterior(process, data.inputs, whiten, white, factor.jitter), density


def _cross(post: Posterior | Outline, query: Inputs) -> Float[Array, "M N"]:
    return jnp.where(post.inputs.mask[None], post.process.cov(query, post.inputs), 0.0)


def predict_mean(post: Belief, query: Inputs) -> Float[Array, "S M"]:
    """Posterior means of the noise-free function."""
    return post.predict_mean(query)


def predict(post: Belief, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
    """Posterior means and the variance, common to all S, of the noise-free function."""
    return post.predict(query)


def predict_joint(post: Posterior, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M M"]]:
    """Posterior means and joint covariance of the noise-free function."""
    explained = _cross(post, query) @ post.whiten.T
    return post.process.mean(query) + (explained @ post.white).T, post.process.cov(query, query) - explained @ explained.T


def join(a: Inputs, b: Inputs) -> Inputs:
    """The rows of a, then those of b."""
    return Inputs(jnp.concatenate([a.x, b.x]), jnp.concatenate([a.level, b.level]), a.levels, jnp.concatenate([a.mask, b.mask]))


def append(post: Posterior, new: Inputs, y: Float[Array, "P S"]) -> Posterior:
    """Condition on further targets, one column per member; extends the factor by a block and computes nothing anew.

    Has as many columns as y, which `post` must have too, unless it has one.
    """
    explained = jnp.where(new.mask[:, None], _cross(post, new) @ post.whiten.T, 0.0)
    mean = post.process.mean(new)[:, None] + explained @ post.white
    factor = factorise(gram(post.process, new) - explained @ explained.T)
    corner = inverse_of_triangle(factor.chol)
    p, n = explained.shape
    below = -corner @ (explained @ post.whiten)
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
