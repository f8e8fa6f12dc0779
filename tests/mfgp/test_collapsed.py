"""The collapsed form against the dense one and against SciPy: histories of many epochs per configuration."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import mfgp
from mfgp import posterior
from mfgp.collapsed import NODES, collapse
from mfgp.data import Data, Inputs, bucket, pad
from tests.mfgp import reference
from tests.mfgp.test_suggest import SPACE, assert_sensible, valid

SURROGATES = {
    "exp_decay": mfgp.exp_decay(),
    "exp_decay_additive": mfgp.exp_decay(0.0),
    "exp_decay_delta1": mfgp.exp_decay(1.0),
    "freeze_thaw": mfgp.freeze_thaw(),
    "input_warping": mfgp.exp_decay(input_warping=True),
}
EPOCHS = 27


def history(rng: np.random.Generator, configs: int, epochs: int = EPOCHS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, level, y): every epoch of curves that stop at 1, 3, 9, ... epochs, in the order of time."""
    u = (np.arange(1, epochs + 1) - 0.5) / epochs
    x, last = rng.uniform(size=(configs, 3)), rng.choice([1, 3, 9, epochs], configs)
    level, config = (a.ravel() for a in np.meshgrid(np.arange(epochs), np.arange(configs), indexing="ij"))
    seen = level < last[config]
    level, x = level[seen], x[config[seen]]
    y = np.sin(4 * x[:, 0]) + (x[:, 1] - 0.4) ** 2 + np.exp(-3 * u[level]) * (1 + 0.3 * x[:, 2]) + 0.1 * rng.normal(size=len(x))
    return x, level, y


def dense_data(x: np.ndarray, level: np.ndarray, y: np.ndarray, epochs: int = EPOCHS) -> Data:
    u = (np.arange(1, epochs + 1) - 0.5) / epochs
    table, rows = np.concatenate([u, np.full(bucket(epochs, 8) - epochs, u[-1])]), bucket(len(y))
    inputs = Inputs(pad(x, rows), pad(level.astype(np.int32), rows), table, np.arange(rows) < len(y))
    return jax.tree.map(jnp.asarray, Data(inputs, np.concatenate([y, np.zeros(rows - len(y))])))


def both_forms(seed: int = 0, configs: int = 30) -> tuple[Data, Data]:
    dense = dense_data(*history(np.random.default_rng(seed), configs))
    collapsed = collapse(dense, 8)
    assert collapsed is not None and len(collapsed.y) < len(dense.y)
    return dense, jax.tree.map(jnp.asarray, collapsed)


def theta_of(surrogate: mfgp.Surrogate, data: Data, rng: np.random.Generator) -> Any:
    """Random hyperparameters whose noise is that of `history`."""
    levels = np.unique(np.asarray(data.inputs.levels))
    low, high = surrogate.box(3, len(data.inputs.levels))
    initial = surrogate.flatten({}, 3, levels, len(data.inputs.levels))
    noise = surrogate.flatten(
        surrogate.readable(initial, 3, levels, len(data.inputs.levels)) | {"noise": 0.02}, 3, levels, len(data.inputs.levels)
    )
    return np.clip(noise + 0.3 * rng.normal(size=low.shape) * (low < high), low, high)


@pytest.mark.parametrize("name", SURROGATES)
def test_likelihood_and_gradient_equal_those_of_all_observations(name: str) -> None:
    surrogate, (dense, collapsed) = SURROGATES[name], both_forms()
    evaluate = jax.jit(
        lambda theta, data: posterior.log_marginal_likelihood_and_grad(lambda t: surrogate.unflatten(t, data.inputs), theta, data)
    )
    for seed in range(3):
        theta = theta_of(surrogate, dense, np.random.default_rng(seed))
        (value, gradient), (expected, expected_gradient) = evaluate(theta, collapsed), evaluate(theta, dense)
        np.testing.assert_allclose(value, expected, rtol=1e-8)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-8, atol=1e-8 * np.max(np.abs(expected_gradient)))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_likelihood_equals_scipys_of_all_observations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, level, y = history(rng, 34)
    process = reference.processes(rng, 3)[1]
    p, u = reference.as_numpy(process), (level + 0.5) / EPOCHS
    covariance = reference.cov(p, x, u, x, u) + p.noise * np.eye(len(y))
    expected = multivariate_normal(reference.mean(p, x, u), covariance).logpdf(y)
    collapsed = collapse(dense_data(x, level, y), 0)
    assert collapsed is not None
    value = jax.jit(posterior.log_marginal_likelihood)(process, jax.tree.map(jnp.asarray, collapsed))
    np.testing.assert_allclose(value, expected, rtol=1e-8)


@pytest.mark.parametrize("name", SURROGATES)
def test_means_variances_and_fantasies_equal_those_of_all_observations(name: str) -> None:
    surrogate, (dense, collapsed), rng = SURROGATES[name], both_forms(), np.random.default_rng(5)
    theta = theta_of(surrogate, dense, rng)
    query = Inputs(jnp.asarray(rng.uniform(size=(20, 3))), jnp.full(20, 8), dense.inputs.levels, jnp.ones(20, bool))
    pending = Inputs(jnp.asarray(rng.uniform(size=(4, 3))), jnp.asarray([2, 8, 8, 26]), dense.inputs.levels, jnp.arange(4) < 3)

    @jax.jit
    def believe(data: Data) -> Any:
        post = posterior.condition(surrogate.unflatten(jnp.asarray(theta), data.inputs), data)
        return posterior.predict(posterior.fantasise(jax.random.key(3), post, pending, 5), query)

    (mean, variance), (expected, expected_variance) = believe(collapsed), believe(dense)
    assert np.ptp(expected, axis=0).max() > 1e-3  # fantasies differ
    np.testing.assert_allclose(mean, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-8)


def test_repeated_observations_count_each() -> None:
    x, level, y = history(np.random.default_rng(0), 20)
    x, level, y = np.concatenate([x, x[::3]]), np.concatenate([level, level[::3]]), np.concatenate([y, y[::3] + 0.05])
    process, dense = reference.processes(np.random.default_rng(0), 3)[1], dense_data(x, level, y)
    collapsed = collapse(dense, 8)
    assert collapsed is not None
    likelihood = jax.jit(posterior.log_marginal_likelihood)
    np.testing.assert_allclose(likelihood(process, jax.tree.map(jnp.asarray, collapsed)), likelihood(process, dense), rtol=1e-8)


@pytest.mark.parametrize("level", [5, 8, 13, 26])
def test_a_configuration_observed_at_the_acquisitions_level_keeps_a_node_there(level: int) -> None:
    x, at, y = history(np.random.default_rng(1), 40)
    collapsed = collapse(dense_data(x, at, y), level)
    assert collapsed is not None
    inputs = collapsed.inputs
    kept = inputs.x[np.asarray(inputs.mask) & (np.asarray(inputs.level) == level)]
    assert len(kept) == len(x[at == level])
    assert np.array_equal(np.unique(kept, axis=0), np.unique(x[at == level], axis=0))
    assert np.max(np.unique(inputs.x[np.asarray(inputs.mask)], axis=0, return_counts=True)[1]) == NODES


def test_few_observations_per_configuration_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    dense = dense_data(rng.uniform(size=(300, 3)), rng.integers(0, EPOCHS, 300), rng.normal(size=300))
    assert collapse(dense, 8) is None


def arguments(seed: int, configs: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, level, y = history(rng, configs)
    x = valid(rng, configs)[np.unique(x, axis=0, return_inverse=True)[1]]  # on the grid of SPACE
    u = (level + 0.5) / EPOCHS
    return dict(seed=(seed, 1), x=x, r=u, y=y, pending_x=valid(rng, 2), pending_r=u[:2], r_acq=float(8.5 / EPOCHS)) | dict(
        candidates=valid(rng, 200), free=np.ones((200, 3), bool), space=SPACE, num_fantasies=5, pending_size=4
    )


def test_a_suggestion_from_curves_is_that_from_all_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = mfgp.exp_decay(restarts=1, max_evaluations=15)
    fast = mfgp.suggest(surrogate, **arguments(0))
    assert_sensible(fast)
    assert fast.form.startswith("collapsed")
    held = dict(warm=fast.hyperparameters, refit=False)
    fast = mfgp.suggest(surrogate, **arguments(0), **held)
    monkeypatch.setattr("mfgp.collapsed.MIN_ROWS", 10**9)
    slow = mfgp.suggest(surrogate, **arguments(0), **held)
    assert slow.form.startswith("dense")
    np.testing.assert_allclose(fast.loss, slow.loss, atol=1e-5)
    np.testing.assert_allclose(fast.acquisition, slow.acquisition, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fast.x[0], slow.x[0], atol=1e-4)
