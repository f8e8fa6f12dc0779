from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp.escape import DEEPEST, KINDS, escape, redrawn, switched_on
from mfgp.minimise import Minimum
from tests.mfgp import reference

SURROGATE = mfgp.exp_decay()
D, LEVELS = 3, 4


def start() -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Hyperparameters with one bandwidth switched off and one large; the initial ones; which are bandwidths."""
    initial = SURROGATE.flatten({}, D, reference.RUNGS, LEVELS)
    named = SURROGATE.readable(initial, D, reference.RUNGS, LEVELS)
    bandwidth = SURROGATE.flatten(named | {"inverse_bandwidth": [7.0] * D}, D, reference.RUNGS, LEVELS) > initial + 0.1
    assert bandwidth.sum() == D
    theta = initial + 0.3
    theta[np.flatnonzero(bandwidth)[:2]] = initial[np.flatnonzero(bandwidth)[:2]] + np.array([-8.0, 3.0])
    return jnp.asarray(theta), jnp.asarray(initial), bandwidth


def test_switching_on_raises_small_bandwidths_to_one_height_and_leaves_all_else() -> None:
    theta, initial, bandwidth = start()
    first = np.flatnonzero(bandwidth)[0]
    ends = np.array([switched_on(jax.random.key(i), SURROGATE, theta, initial, D, LEVELS) for i in range(40)])
    assert np.all(ends[:, ~bandwidth] == np.asarray(theta)[~bandwidth])
    raised = np.asarray(initial)[first] - ends[:, first]
    assert np.all((raised >= 0) & (raised <= DEEPEST)) and np.std(raised) > 0.3
    large = ends[:, first + 1]
    assert set(large) == {float(theta[first + 1]), float(initial[first + 1])}  # left, or lowered to its initial value


def test_redrawing_changes_about_half_of_the_hyperparameters_by_draws_around_the_initial_ones() -> None:
    theta, initial, _ = start()
    ends = np.array([redrawn(jax.random.key(i), theta, initial) for i in range(200)])
    changed = ends != np.asarray(theta)
    assert changed.mean(axis=0) == pytest.approx(0.5, abs=0.15)
    drawn = (ends - np.asarray(initial))[changed]
    assert abs(drawn.mean()) < 0.1 and drawn.std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("turn", range(len(KINDS)), ids=KINDS)
def test_every_kind_of_escape_stays_in_the_box_and_leaves_the_best_point(turn: int) -> None:
    theta, initial, _ = start()
    data = reference.data(*reference.study(np.random.default_rng(0), 40), 64, reference.RUNGS)
    low, high = SURROGATE.box(D, LEVELS)
    best = Minimum(theta, jnp.asarray(0.0), jnp.asarray(0))
    go: Any = jax.jit(partial(escape, surrogate=SURROGATE, best=best, initial=initial, data=data, turn=jnp.asarray(turn)))
    ends = np.array([go(jax.random.key(i)) for i in range(3)])
    assert np.all((ends >= low) & (ends <= high))
    assert np.all(np.any(ends != np.asarray(theta), axis=1))
