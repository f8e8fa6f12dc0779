"""Out of a local optimum of the hyperparameters, of which there are many.

An inverse bandwidth that once became tiny has no slope to come back, and with tens of coordinates any subset of them may be switched off;
a noise of nothing and a noise that explains the decay are two more. A fit from an earlier fit's result would follow one of these optima
for ever, tens of nats behind a better one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mfgp.data import Data, thin
from mfgp.minimise import Minimum
from mfgp.posterior import objective
from mfgp.surrogates import Surrogate

NEAR, FAR = 2.0, 4.0  # mostly logarithms
FLAT = 0.5  # nats: a change of one hyperparameter that matters less leads back to where it came from
SCREENED = 160  # rows at most on which changes are compared
NUM_JOINT = 6  # draws of each kind of joint change


def one_by_one(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], d: int, num_levels: int
) -> Float[Array, "F P"]:
    """Points that differ from theta in one hyperparameter: redrawn around its initial value if far from that, else switched off; the
    last one has all small bandwidths raised."""
    per_coordinate, positive, single = _flags(surrogate, d, num_levels)
    rows = np.eye(len(single), dtype=bool)[single]
    drawn = initial + jax.random.normal(key, (len(rows), len(single)), theta.dtype)
    changed = jnp.where(positive & (jnp.abs(theta - initial) < NEAR), initial - FAR, drawn)
    raised = jnp.where(per_coordinate, jnp.maximum(theta, initial - NEAR), theta)
    return jnp.concatenate([jnp.where(rows, changed, theta), raised[None]])


def jointly(
    key: Array, surrogate: Surrogate, theta: Float[Array, "P"], initial: Float[Array, "P"], d: int, num_levels: int
) -> Float[Array, "F P"]:
    """Points with all bandwidths, all other hyperparameters, or everything drawn anew around the initial values."""
    per_coordinate, _, _ = _flags(surrogate, d, num_levels)
    rows = np.repeat([per_coordinate, ~per_coordinate, np.ones_like(per_coordinate)], NUM_JOINT, axis=0)
    return jnp.where(rows, initial + jax.random.normal(key, rows.shape, theta.dtype), theta)


def _flags(surrogate: Surrogate, d: int, num_levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each entry of theta: whether it belongs to one coordinate of x, is searched as a logarithm, and is not one of many per level."""
    counts = [int(np.prod(p.shape(d, num_levels))) for p in surrogate.parameters]
    flags = [(p.per == ("coordinate",), p.positive, "level" not in p.per) for p in surrogate.parameters]
    per_coordinate, positive, single = np.repeat(np.array(flags), counts, axis=0).T
    return per_coordinate, positive, single


def most_promising(
    key: Array, surrogate: Surrogate, best: Minimum, initial: Float[Array, "P"], data: Data, joint: Bool[Array, ""]
) -> Float[Array, "P"]:
    """The changed point with the least objective of the fit: where to start another descent."""
    d, num_levels = data.inputs.x.shape[1], data.inputs.levels.shape[0]
    low, high = (jnp.asarray(side, best.x.dtype) for side in surrogate.box(d, num_levels))

    part = thin(data, SCREENED)

    def loss(t: Float[Array, "P"]) -> Float[Array, ""]:
        value = objective(surrogate, t, part)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    singles = one_by_one(key, surrogate, best.x, initial, d, num_levels)
    joints = jointly(key, surrogate, best.x, initial, d, num_levels)
    size = max(len(singles), len(joints))
    points = jnp.clip(jnp.where(joint, jnp.resize(joints, (size, len(initial))), jnp.resize(singles, (size, len(initial)))), low, high)
    losses = jax.lax.map(loss, jnp.concatenate([points, best.x[None]]))
    flat = ~joint & (jnp.abs(losses[:-1] - losses[-1]) < FLAT)
    return points[jnp.argmin(jnp.where(flat, jnp.finfo(losses.dtype).max, losses[:-1]))]
