"""The surrogate's beliefs at chosen points against dense linear algebra and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp.data import Inputs
from mfgp.query import Belief, Known, believe, draw, learn, log_expected_improvement, targets
from schedulers.searchers.model import Model

SURROGATE = mfgp.exp_decay(max_evaluations=15)
R_MAX = 9


def u(r):
    return (np.asarray(r, float) - 0.5) / R_MAX


def some_data(num=14, num_pending=0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((num, 2))
    r = rng.choice([1, 3, 9], size=num)
    y = (x[:, 0] - 0.3) ** 2 + x[:, 1] + 1 / r + 0.05 * rng.standard_normal(num)
    return Known(x, u(r), y, rng.random((num_pending, 2)), u(rng.choice([1, 3, 9], size=num_pending)), 4)


@pytest.fixture(scope="module")
def hyperparameters():
    return learn(SURROGATE, (0, 0), some_data())


def dense(known, hyperparameters, query_x, query_r, used):
    """Posterior mean and covariance with NumPy's solver; only the covariance function is the library's."""
    levels = np.unique(np.concatenate([known.r, query_r]))
    z = (known.y - known.y.mean()) / known.y.std()

    def inputs(x, r):
        return Inputs(jnp.asarray(x), jnp.asarray(np.searchsorted(levels, r)), jnp.asarray(levels), jnp.ones(len(r), bool))

    with jax.enable_x64(True):
        data, query = inputs(known.x[used], known.r[used]), inputs(query_x, query_r)
        theta = SURROGATE.flatten(hyperparameters, 2, levels, len(levels))
        process = SURROGATE.unflatten(jnp.asarray(theta), data)
        k, cross, prior = (np.asarray(process.cov(*pair)) for pair in ((data, data), (data, query), (query, query)))
        mean, mean_query, noise = np.asarray(process.mean(data)), np.asarray(process.mean(query)), float(process.noise)
    solved = np.linalg.solve(k + noise * np.eye(len(k)), np.column_stack([cross, z[used] - mean]))
    return mean_query + cross.T @ solved[:, -1], prior - cross.T @ solved[:, :-1]


@pytest.mark.parametrize("only_level", [None, 1])
def test_a_belief_is_the_dense_posterior_at_each_points_own_resource(hyperparameters, only_level):
    known, rng = some_data(), np.random.default_rng(1)
    used = np.ones(14, bool) if only_level is None else known.r == u(only_level)
    query_x, query_r = rng.random((7, 2)), u(rng.choice([1, 2, 3, 9], size=7))
    belief = believe(SURROGATE, hyperparameters, (0, 1), known, query_x, query_r, used=used, num_fantasies=1)
    mean, covariance = dense(known, hyperparameters, query_x, query_r, used)
    assert belief.mean.shape == (1, 7)
    np.testing.assert_allclose(belief.mean[0], mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(belief.std, np.sqrt(np.diag(covariance)), rtol=1e-6)
    draws = draw(SURROGATE, hyperparameters, (0, 1), known, query_x, query_r, 4000, used=used)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(np.diag(covariance).max() / 4000))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1 * np.diag(covariance).max())


def test_fantasies_spread_the_means_around_that_without_pending_evaluations(hyperparameters):
    known = some_data(num_pending=2)
    hyperparameters = hyperparameters | {"noise": 1e-4}  # lest an observation teach little
    query = np.concatenate([known.pending_x, [[0.5, 0.5]]]), np.concatenate([known.pending_r, u([9])])
    with_pending = believe(SURROGATE, hyperparameters, (0, 1), known, *query, num_fantasies=500)
    without = believe(
        SURROGATE, hyperparameters, (0, 1), known._replace(pending_x=np.empty((0, 2)), pending_r=np.empty(0)), *query, num_fantasies=1
    )
    assert with_pending.mean.shape == (500, 3)
    np.testing.assert_allclose(with_pending.mean.mean(0), without.mean[0], atol=5 * without.std.max() / np.sqrt(500))
    observed = known._replace(  # a variance does not depend on the metric
        x=np.concatenate([known.x, known.pending_x]), r=np.concatenate([known.r, known.pending_r]), y=np.append(known.y, known.y[:2])
    )
    _, covariance = dense(observed, hyperparameters, *query, np.ones(16, bool))
    np.testing.assert_allclose(with_pending.std, np.sqrt(np.diag(covariance)), rtol=1e-6)
    assert np.all(with_pending.std[:2] < 0.7 * without.std[:2])


def test_expected_improvement_is_its_monte_carlo_mean():
    rng = np.random.default_rng(2)
    belief = Belief(rng.standard_normal((3, 4)), rng.uniform(0.5, 2, 4))
    best = rng.standard_normal((3, 1))
    f = belief.mean[:, None] + belief.std * rng.standard_normal((3, 100_000, 4))
    improvement = np.maximum(best[:, None] - 0.1 - f, 0).mean(1).mean(0)
    np.testing.assert_allclose(np.exp(log_expected_improvement(belief, best, 0.1)), improvement, rtol=0.02)


def test_the_improvement_is_what_the_suggestion_reports(hyperparameters):
    known, rng = some_data(), np.random.default_rng(3)
    candidates = rng.random((64, 2))
    space = mfgp.Space(np.zeros(2), np.zeros(2, bool), np.zeros(2), np.ones(2))
    suggestion = mfgp.suggest(
        SURROGATE, seed=(0, 1), **known._asdict(), r_acq=float(u(3)), candidates=candidates, free=np.ones((64, 2), bool), space=space
    )
    model = Model(SURROGATE, suggestion.hyperparameters, (0, 1), known, float(u(3)), 20)
    np.testing.assert_allclose(model.log_improvement(suggestion.x), suggestion.acquisition, rtol=1e-5)


def test_hyperparameters_learnt_twice_are_the_same_and_explain_the_data(hyperparameters):
    assert learn(SURROGATE, (0, 0), some_data()) == hyperparameters
    belief = believe(SURROGATE, hyperparameters, (0, 0), some_data(), some_data().x, some_data().r)
    z = targets(SURROGATE, some_data())
    assert np.corrcoef(belief.mean[0], z)[0, 1] > 0.9


def test_a_query_without_data_is_refused(hyperparameters):
    with pytest.raises(ValueError, match="at least one observation"):
        believe(SURROGATE, hyperparameters, (0, 0), some_data(), np.ones((1, 2)), u([1]), used=np.zeros(14, bool))
