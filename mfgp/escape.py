"""Out of a local optimum of the hyperparameters, of which there are many.

An inverse bandwidth that once became tiny has no slope to come back, and with tens of coordinates any subset of them may be switched off;
a noise of nothing and a noise that explains the decay are two more. A fit from an earlier fit's result would follow one of these optima
for ever, tens of nats behind a better one.

Four kinds of changes of the best point start another descent. Improvements by .1 nat per 1000 evaluations: with 30 one-hot coordinates
(architectures; fits of 99 to 284 observations, which had had no such escape) switching all on brought 28, redrawing half 3, the most
promising of joint changes 4, of single ones 6; with 7 coordinates (LCBench; fits behind the best of five fresh starts) 4, 9, 8 (12 if
given up early) and 6, a fresh start 8.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mfgp.data import Data, thin
from mfgp.minimise import Minimum
from mfgp.posterior import objective
from mfgp.surrogates import Surrogate

NEAR, FAR = 2.0, 4.0  # mostly logarithms
FLAT = 0.5  # nats: a change of one hyperparameter that matters less leads back to where it came from
SCREENED = 160  # rows at most on which changes are compared
NUM_JOINT = 6  # draws of each kind of joint change
DEEPEST = 2.5  # below the initial values: where small inverse bandwidths are raised to at least
KINDS = ("switched on", "redrawn", "joint", "single")


def one_by_one(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], d: int, num_levels: int
) -> Float[Array, "F P"]:
    """Points that differ from theta in one hyperparameter: redrawn around its initial value if far from that, else switched off."""
    _, positive, single = _flags(surrogate, d, num_levels)
    rows = np.eye(len(single), dtype=bool)[single]
    drawn = initial + jax.random.normal(key, (len(rows), len(single)), theta.dtype)
    changed = jnp.where(positive & (jnp.abs(theta - initial) < NEAR), initial - FAR, drawn)
    return jnp.where(rows, changed, theta)


def jointly(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], d: int, num_levels: int
) -> Float[Array, "F P"]:
    """Points with all bandwidths, all other hyperparameters, or everything drawn anew around the initial values."""
    per_coordinate, _, _ = _flags(surrogate, d, num_levels)
    rows = np.repeat([per_coordinate, ~per_coordinate, np.ones_like(per_coordinate)], NUM_JOINT, axis=0)
    return jnp.where(rows, initial + jax.random.normal(key, rows.shape, theta.dtype), theta)


def _flags(surrogate: Surrogate, d: int, num_levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each entry of theta: whether it is one of those for coordinates of x, is searched as a logarithm, and is not per level."""
    counts = [int(np.prod(shape)) for shape in surrogate.shapes(d, num_levels)]
    flags = [(p.per == ("coordinate",), p.positive, "level" not in p.per) for p in surrogate.parameters]
    per_coordinate, positive, single = np.repeat(np.array(flags), counts, axis=0).T
    return per_coordinate, positive, single


def switched_on(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], d: int, num_levels: int
) -> Float[Array, "P"]:
    """theta with all small inverse bandwidths raised to one height, and in half of the draws with all large ones lowered as well."""
    per_coordinate, _, _ = _flags(surrogate, d, num_levels)
    height_key, cap_key = jax.random.split(key)
    height = initial - jax.random.uniform(height_key, (), theta.dtype, 0.0, DEEPEST)
    cap = jnp.where(jax.random.bernoulli(cap_key), initial, jnp.inf)
    return jnp.where(per_coordinate, jnp.clip(theta, height, cap), theta)


def redrawn(key: Array, theta: Float[Array, "P"], initial: Float[Array, "P"]) -> Float[Array, "P"]:
    """theta with a random half of the hyperparameters drawn anew around their initial values."""
    which_key, key = jax.random.split(key)
    which = jax.random.bernoulli(which_key, shape=theta.shape)
    return jnp.where(which, initial + jax.random.normal(key, theta.shape, theta.dtype), theta)


def escape(
    key: Array, surrogate: Surrogate, best: Minimum, initial: Float[Array, "P"], data: Data, turn: Int[Array, ""]
) -> Float[Array, "P"]:
    """Where to start another descent: by turns of the KINDS, of which the last two are the most promising of many changes.

    The first two are not screened: they look worse than `best` until their descents are well under way.
    """
    d, num_levels = data.inputs.x.shape[1], data.inputs.levels.shape[0]
    low, high = (jnp.asarray(side, best.x.dtype) for side in surrogate.box(d, num_levels))
    kind = turn % len(KINDS)
    start = jax.lax.switch(
        jnp.minimum(kind, 2),
        [
            lambda: switched_on(key, surrogate, best.x, initial, d, num_levels),
            lambda: redrawn(key, best.x, initial),
            lambda: most_promising(key, surrogate, best.x, initial, data, kind == KINDS.index("joint")),
        ],
    )
    return jnp.clip(start, low, high)


def most_promising(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], data: Data, joint: Bool[Array, ""]
) -> Float[Array, "P"]:
    """The changed point with the least objective of the fit."""
    d, num_levels = data.inputs.x.shape[1], data.inputs.levels.shape[0]
    low, high = (jnp.asarray(side, theta.dtype) for side in surrogate.box(d, num_levels))
    part = thin(data, SCREENED)

    def loss(t: Float[Array, "P"]) -> Float[Array, ""]:
        value = objective(surrogate, t, part)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    singles = one_by_one(key, surrogate, theta, initial, d, num_levels)
    joints = jointly(key, surrogate, theta, initial, d, num_levels)
    size = max(len(singles), len(joints))
    points = jnp.clip(jnp.where(joint, jnp.resize(joints, (size, len(initial))), jnp.resize(singles, (size, len(initial)))), low, high)
    losses = jax.lax.map(loss, jnp.concatenate([points, theta[None]]))
    flat = ~joint & (jnp.abs(losses[:-1] - losses[-1]) < FLAT)
    return points[jnp.argmin(jnp.where(flat, jnp.finfo(losses.dtype).max, losses[:-1]))]
