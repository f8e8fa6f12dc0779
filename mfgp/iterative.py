"""Posteriors of large histories by conjugate gradients: no matrix over all observations is ever stored.

The covariance acts on vectors in tiles that are computed, used and forgotten. Where it is a product of a kernel over configurations and
matrices over levels (latent Kronecker structure; Lin, Ament, Balandat, Bakshy 2024), the N observations are first added up by
configuration, so that only pairs of configurations are visited. A low-rank model on K landmarks (a sparse Gaussian process in the sense
of Titsias 2009) preconditions the iteration, and gives the variance where many are needed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mfgp.collapsed import NODES
from mfgp.data import Data, Inputs
from mfgp.posterior import factorise, join, residual

MAX_ITERATIONS = 500
TOLERANCE = 3e-4  # of the residual of the means, relative to the right-hand side
SHORTLIST_TOLERANCE = 1e-3  # of the variances, where an error enters squared
FEW = 64  # queries that are answered without tiles, and so can be differentiated


class Rows(NamedTuple):
    """N observations of C configurations."""

    data: Data
    config: Int[Array, "N"]  # index into configs
    configs: Float[Array, "C D"]
    landmarks: Int[Array, "K"]  # rows; their order of use does not matter


class Tables(NamedTuple):
    """Roots over R levels: cov = k_x Σ_q across across' + common[level, level'] + [same configuration] Σ_q own own'."""

    across: Float[Array, "R Q"]
    common: Float[Array, "R R"]
    own: Float[Array, "R O"] | None


def tables(process: Any, levels: Float[Array, "R"]) -> Tables | None:
    """None for a process that is no such product."""
    separated = process.separated(levels) if hasattr(process, "separated") else None
    if separated is None:
        return None
    across, common, own = separated
    rank = min(len(levels), NODES) if hasattr(process, "span") else len(levels)
    return Tables(_root(across, rank), jnp.zeros_like(across) if common is None else common, None if own is None else _root(own, rank))


def _root(table: Float[Array, "R R"], rank: int) -> Float[Array, "R Q"]:
    """Columns whose squares add up to the table, up to rounding where `rank` is its numerical rank: pivoted Cholesky."""

    def add(state: tuple[Array, Array], k: Int[Array, ""]) -> tuple[tuple[Array, Array], None]:
        root, left = state
        pivot = jnp.argmax(left)
        enough = left[pivot] > 1e-14 * jnp.max(jnp.diagonal(table))
        column = (table[:, pivot] - root @ root[pivot]) / jnp.sqrt(jnp.where(enough, left[pivot], 1.0))
        column = jnp.where(enough, column, 0.0)
        return (root.at[:, k].set(column), (left - column * column).at[pivot].set(0.0)), None

    start = jnp.zeros((len(table), rank), table.dtype), jnp.diagonal(table)
    return jax.lax.scan(add, start, jnp.arange(rank))[0][0]


def tile(size: int) -> int:
    """The largest divisor up to 640."""
    return next(width for width in range(min(640, size), 0, -1) if size % width == 0)


def tiled(kernel: Callable[[Any, Any], Array], a: Any, b: Any, v: Float[Array, "N S"]) -> Float[Array, "M S"]:
    """kernel(a, b) @ v for arguments whose leading axes are M and N, at no time more than a tile of it."""
    m, n = (len(jax.tree.leaves(side)[0]) for side in (a, b))
    height, width = tile(m), tile(n)
    rows, columns, values = (
        jax.tree.map(lambda x, t=t: x.reshape(-1, t, *x.shape[1:]), side) for side, t in ((a, height), (b, width), (v, width))
    )

    def one(row: Any) -> Array:
        def add(total: Array, column: tuple[Any, Array]) -> tuple[Array, None]:
            return total + kernel(row, column[0]) @ column[1], None

        return jax.lax.scan(add, jnp.zeros((height, v.shape[1]), v.dtype), (columns, values))[0]

    return jax.lax.map(one, rows).reshape(m, v.shape[1])


def _bare(inputs: Inputs) -> tuple[Array, Array]:
    return inputs.x, inputs.level


def cross_times(process: Any, query: Inputs, rows: Rows, v: Float[Array, "N S"]) -> Float[Array, "M S"]:
    """cov(query, observations) @ v; v is 0 where padded."""
    levels, many = rows.data.inputs.levels, len(query.level) > FEW
    product = tiled if many else (lambda kernel, a, b, w: kernel(a, b) @ w)
    roots = tables(process, levels)
    if roots is None:

        def cov(a: Any, b: Any) -> Array:
            left, right = (Inputs(x, level, levels, jnp.ones(len(level), bool)) for x, level in (a, b))
            return process.cov(left, right)

        return product(cov, _bare(query), _bare(rows.data.inputs), v)

    def by_config(root: Float[Array, "R Q"]) -> Float[Array, "C QS"]:
        weighted = root[rows.data.inputs.level][:, :, None] * v[:, None]
        return jax.ops.segment_sum(weighted.reshape(len(v), -1), rows.config, len(rows.configs))

    def at_query(root: Float[Array, "R Q"], sums: Float[Array, "M QS"]) -> Float[Array, "M S"]:
        return jnp.einsum("mq,mqs->ms", root[query.level], sums.reshape(len(sums), root.shape[1], -1))

    total = at_query(roots.across, product(process.over_x, query.x, rows.configs, by_config(roots.across)))
    total += roots.common[query.level] @ jax.ops.segment_sum(v, rows.data.inputs.level, len(levels))
    if roots.own is not None:

        def same(x: Array, z: Array) -> Array:
            return jnp.all(x[:, None] == z[None], axis=-1).astype(v.dtype)

        total += at_query(roots.own, product(same, query.x, rows.configs, by_config(roots.own)))
    return total


def gram_times(process: Any, rows: Rows, v: Float[Array, "N S"]) -> Float[Array, "N S"]:
    """Covariance of the observations times v; the identity where padded."""
    inputs = rows.data.inputs
    mask = inputs.mask[:, None]
    inside = jnp.where(mask, v, 0.0)
    roots = tables(process, inputs.levels)
    if roots is None:
        total = cross_times(process, inputs, rows, inside)
    else:

        def by_config(root: Float[Array, "R Q"], over_configs: Callable[[Array], Array]) -> Float[Array, "N S"]:
            weighted = root[inputs.level][:, :, None] * inside[:, None]
            sums = jax.ops.segment_sum(weighted.reshape(len(v), -1), rows.config, len(rows.configs))
            spread = over_configs(sums)[rows.config].reshape(len(v), root.shape[1], -1)
            return jnp.einsum("nq,nqs->ns", root[inputs.level], spread)

        # As above, but each configuration once.
        total = roots.common[inputs.level] @ jax.ops.segment_sum(inside, inputs.level, len(inputs.levels))
        total += by_config(roots.across, lambda sums: tiled(process.over_x, rows.configs, rows.configs, sums))
        if roots.own is not None:
            total += by_config(roots.own, lambda sums: sums)
    return jnp.where(mask, total + process.noise * inside, v)


class Sparse(NamedTuple):
    """The model in which what is at the landmarks is all there is to know: K ~ A Aᵀ + noise."""

    landmarks: Inputs
    features: Float[Array, "N K"]  # A; 0 where padded
    whiten: Float[Array, "K K"]  # inverse root of the landmarks' covariance
    inverse_root: Float[Array, "K K"]  # of noise + Aᵀ A
    jitter: Float[Array, ""]


def sparse(process: Any, rows: Rows) -> Sparse:
    inputs = rows.data.inputs
    landmarks = inputs._replace(x=inputs.x[rows.landmarks], level=inputs.level[rows.landmarks], mask=inputs.mask[rows.landmarks])
    # Rows may repeat a landmark: a little more than rounding on the diagonal keeps the factor finite.
    among = process.cov(landmarks, landmarks)
    ridge = 100 * jnp.finfo(among.dtype).eps * jnp.max(jnp.diagonal(among))
    identity = jnp.eye(len(rows.landmarks), dtype=among.dtype)
    factor = factorise(among + ridge * identity)
    whiten = jax.lax.linalg.triangular_solve(factor.chol, identity, left_side=True, lower=True)
    width = tile(len(rows.config))

    def features(part: tuple[Array, Array, Array]) -> Array:
        some = Inputs(part[0], part[1], inputs.levels, part[2])
        return jnp.where(some.mask[:, None], process.cov(some, landmarks), 0.0) @ whiten.T

    parts = jax.tree.map(lambda a: a.reshape(-1, width, *a.shape[1:]), (inputs.x, inputs.level, inputs.mask))
    a = jax.lax.map(features, parts).reshape(len(rows.config), -1)
    inner = jax.lax.linalg.cholesky(process.noise * identity + a.T @ a, symmetrize_input=False)
    inverse_root = jax.lax.linalg.triangular_solve(inner, identity, left_side=True, lower=True)
    return Sparse(landmarks, a, whiten, inverse_root, factor.jitter)


def solve(
    process: Any, rows: Rows, model: Sparse, right: Float[Array, "N S"], tolerance: float
) -> tuple[Float[Array, "N S"], Float[Array, ""]]:
    """K^-1 right, by preconditioned conjugate gradients (Saad 2003, algorithm 9.1), and the largest relative residual of a column.

    The residual is computed anew from the solution: not the one that the recursion carries.
    """
    scale = jnp.linalg.norm(right, axis=0)
    safe = jnp.where(scale > 0, scale, 1.0)

    def precondition(r: Float[Array, "N S"]) -> Float[Array, "N S"]:
        inner = model.inverse_root @ (model.features.T @ r)
        return (r - model.features @ (model.inverse_root.T @ inner)) / process.noise

    def turn(state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, direction, slope, iteration = state
        image = gram_times(process, rows, direction)
        curvature = jnp.sum(direction * image, axis=0)
        step = jnp.where(curvature > 0, slope / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        x, r = x + step * direction, r - step * image
        z = precondition(r)
        new = jnp.sum(r * z, axis=0)
        direction = z + jnp.where(slope > 0, new / jnp.where(slope > 0, slope, 1.0), 0.0) * direction
        return x, r, direction, new, iteration + 1

    def unfinished(state: tuple[Any, ...]) -> Array:
        return (jnp.max(jnp.linalg.norm(state[1], axis=0) / safe) > tolerance) & (state[4] < MAX_ITERATIONS)

    first = precondition(right)
    start = jnp.zeros_like(right), right, first, jnp.sum(right * first, axis=0), jnp.zeros((), jnp.int32)
    x = jax.lax.while_loop(unfinished, turn, start)[0]
    left = right - gram_times(process, rows, x)
    return x, jnp.max(jnp.linalg.norm(left, axis=0) / safe)


class Iterative(NamedTuple):
    """The posterior given the observations and S draws at P pending inputs; answers as posterior.Posterior does.

    Its means are exact up to the solver's tolerance. Its variance is the sparse model's, which is too large where data are dense:
    `at` has the exact one.
    """

    process: Any
    rows: Rows
    model: Sparse
    solved: Float[Array, "N 1+P"]  # K^-1 times (targets, covariance with the pending inputs)
    pending: Inputs
    corner: Float[Array, "P P"]  # inverse root of the pending observations' covariance given the others
    white: Float[Array, "P S"]
    jitter: Float[Array, ""]
    relative_residual: Float[Array, ""]

    @property
    def inputs(self) -> Inputs:
        return join(self.rows.data.inputs, self.pending)

    def _moments(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "P M"]]:
        """Means, and how much of the query's variance the pending inputs explain beside the observations, as a root."""
        products = cross_times(self.process, query, self.rows, self.solved)
        cross = jnp.where(self.pending.mask[:, None], self.process.cov(self.pending, query) - products[:, 1:].T, 0.0)
        explained = self.corner @ cross
        return self.process.mean(query) + products[:, 0] + self.white.T @ explained, explained

    def predict_mean(self, query: Inputs) -> Float[Array, "S M"]:
        return self._moments(query)[0]

    def predict(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
        mean, explained = self._moments(query)
        features = self.model.whiten @ self.process.cov(self.model.landmarks, query)
        left = self.model.inverse_root @ features
        variance = self.process.var(query) - jnp.sum(features * features, axis=0) + self.process.noise * jnp.sum(left * left, axis=0)
        return mean, jnp.maximum(variance - jnp.sum(explained * explained, axis=0), 1e-20)


class At(NamedTuple):
    """What is believed at the queries that it was made for."""

    inputs: Inputs
    mean: Float[Array, "S M"]
    variance: Float[Array, "M"]

    def predict_mean(self, query: Inputs) -> Float[Array, "S M"]:
        return self.mean

    def predict(self, query: Inputs) -> tuple[Float[Array, "S M"], Float[Array, "M"]]:
        return self.mean, self.variance


def condition(key: Array, process: Any, rows: Rows, pending: Inputs, num: int) -> Iterative:
    """The posterior given the observations and `num` joint draws of the function at the pending inputs.

    The draws are those that the dense form makes of the same key: solving for the P pending columns costs less than pathwise
    sampling's `num`, and needs no approximate draw from the prior.
    """
    inputs, model = rows.data.inputs, sparse(process, rows)
    both = inputs.mask[:, None] & pending.mask[None]
    cross = jnp.where(both, process.cov(inputs, pending), 0.0)
    right = jnp.concatenate([residual(process, rows.data)[:, None], cross], axis=1)
    solved, left = solve(process, rows, model, right, TOLERANCE)
    among, identity = pending.mask[:, None] & pending.mask[None], jnp.eye(len(pending.mask), dtype=right.dtype)
    latent = process.cov(pending, pending) - cross.T @ solved[:, 1:]
    drawing = factorise(jnp.where(among, 0.5 * (latent + latent.T), identity))
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(pending.mask)))
    draws = drawing.chol @ jax.vmap(lambda k: jax.random.normal(k, (num,), right.dtype))(keys)
    factor = factorise(jnp.where(among, 0.5 * (latent + latent.T), 0.0) + jnp.diag(jnp.where(pending.mask, process.noise, 1.0)))
    corner = jax.lax.linalg.triangular_solve(factor.chol, identity, left_side=True, lower=True)
    white = corner @ jnp.where(pending.mask[:, None], draws, 0.0)
    return Iterative(process, rows, model, solved, pending, corner, white, jnp.maximum(drawing.jitter, factor.jitter), left)


def at(post: Iterative, query: Inputs) -> tuple[At, Float[Array, ""]]:
    """Means and exact variances at a few queries, by solving for each; and the largest relative residual."""
    inputs, process = post.rows.data.inputs, post.process
    cross = jnp.where(inputs.mask[:, None], process.cov(inputs, query), 0.0)
    solved, left = solve(process, post.rows, post.model, cross, SHORTLIST_TOLERANCE)
    mean, explained = post._moments(query)
    # (2 k - K s)ᵀ s instead of kᵀ s: an error of the solution s enters squared.
    known = jnp.sum(solved * (2 * cross - gram_times(process, post.rows, solved)), axis=0)
    variance = process.var(query) - known - jnp.sum(explained * explained, axis=0)
    return At(query, mean, jnp.maximum(variance, 1e-20)), left
