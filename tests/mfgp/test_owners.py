"""One bandwidth for all coordinates of a hyperparameter: the same kernel with fewer values to be learned."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp.fit import loss_and_grad
from mfgp.query import Known, learn
from tests.mfgp import reference

OWNERS = (7, 2, 2, 2, 7)  # numbered anew in their order: 1, 0, 0, 0, 1
SURROGATES = [mfgp.exp_decay, mfgp.matern, mfgp.coregional]


def both(make, **options):
    """The surrogate whose coordinates share, and the one whose coordinates do not."""
    return make(bandwidths="hyperparameter", **options).over(OWNERS), make(**options).over(OWNERS)


def arrays(seed=0, n=30):
    rng = np.random.default_rng(seed)
    x, u, y = rng.random((n, 5)), rng.choice(reference.RUNGS, n), rng.standard_normal(n)
    return x, u, y


@pytest.mark.parametrize("make", SURROGATES)
@pytest.mark.parametrize("input_warping", [False, True])
def test_sharing_is_the_kernel_whose_coordinates_happen_to_agree(make, input_warping):
    shared, plain = both(make, input_warping=input_warping)
    data = reference.data(*arrays(), 32, reference.RUNGS)
    low, high = (jnp.asarray(side) for side in shared.box(5, 4))
    theta = jnp.clip(jnp.asarray(np.random.default_rng(1).standard_normal(len(low))), low, high)
    values = shared.readable(np.asarray(theta), 5, reference.RUNGS, 4)
    spread = {name: [value[1], *[value[0]] * 3, value[1]] if per_coordinate(shared, name) else value for name, value in values.items()}
    same = jnp.asarray(plain.flatten(spread, 5, reference.RUNGS, 4))
    (ours, slope), (theirs, slopes) = (jax.jit(loss_and_grad, static_argnums=0)(s, t, data) for s, t in ((shared, theta), (plain, same)))
    lost = loss_of_priors(plain, same, data) - loss_of_priors(shared, theta, data)  # a warping's prior counts once for each value
    assert float(ours) == pytest.approx(float(theirs - lost), abs=1e-9)
    of_priors = jax.grad(partial(loss_of_priors, shared))(theta, data), jax.grad(partial(loss_of_priors, plain))(same, data)
    np.testing.assert_allclose(slope - of_priors[0], summed(shared, plain, slopes - of_priors[1]), atol=1e-8)


def per_coordinate(surrogate, name):
    return any(p.name == name and "coordinate" in p.per for p in surrogate.parameters)


def loss_of_priors(surrogate, theta, data):
    return -surrogate.log_prior(theta, data.inputs)


def summed(shared, plain, slopes):
    """The gradient in shared values: the sum over those that share."""
    parts = plain._split(np.asarray(slopes), 5, 4)
    return np.concatenate(
        [
            (np.array([part[1:4].sum(), part[0] + part[4]]) if "coordinate" in p.per else part).ravel()
            for p, part in zip(plain.parameters, parts, strict=True)
        ]
    )


def test_what_is_learned_is_one_value_for_each_hyperparameter_and_can_be_used_again():
    surrogate, plain = both(mfgp.exp_decay)
    x, u, y = arrays()
    found = learn(surrogate, (0, 1), Known(x, u, y, np.empty((0, 5)), np.empty(0), 4))
    assert len(found["inverse_bandwidth"]) == 2
    again = surrogate.readable(surrogate.flatten(found, 5, reference.RUNGS, 4), 5, reference.RUNGS, 4)
    assert again["inverse_bandwidth"] == pytest.approx(found["inverse_bandwidth"])
    assert plain.owners == () and plain == mfgp.exp_decay()
    with pytest.raises(ValueError, match=r"warm\['inverse_bandwidth'\].* must be finite and of shape \(5,\)"):
        plain.flatten(found, 5, reference.RUNGS, 4)


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="surrogate.bandwidths=group must be one of coordinate, hyperparameter"):
        mfgp.matern(bandwidths="group")
    with pytest.raises(ValueError, match="this surrogate is for 5 coordinates, not 3"):
        both(mfgp.matern)[0].box(3, 4)
    with pytest.raises(ValueError, match="needs to know which coordinates belong together: see Surrogate.over"):
        mfgp.matern(bandwidths="hyperparameter").box(3, 4)
