import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_triangular
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

import mfgp
from mfgp import posterior
from mfgp.data import bucket
from mfgp.fit import loss_and_grad
from tests.mfgp import reference

SURROGATES = {
    "matern": mfgp.matern,
    "matern_warped": mfgp.matern_warped,
    "exp_decay": mfgp.exp_decay,
    "freeze_thaw": mfgp.freeze_thaw,
    "independent": mfgp.independent,
    "coregional": mfgp.coregional,
    "input_warping": lambda: mfgp.exp_decay(input_warping=True),
}
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["matern", "exp_decay"])


def dense(process, x, u, y, z, v):
    """Posterior mean and variance of the noise-free function by a dense solve."""
    p = reference.as_numpy(process)
    k = reference.cov(p, x, u, x, u) + p.noise * np.eye(len(u))
    cross = reference.cov(p, x, u, z, v)
    mean = reference.mean(p, z, v) + cross.T @ np.linalg.solve(k, y - reference.mean(p, x, u))
    return mean, reference.cov(p, z, v, z, v) - cross.T @ np.linalg.solve(k, cross)


@FAMILIES
@pytest.mark.parametrize("n", [1, 5, 16, 17])
def test_padding_leaves_the_log_marginal_likelihood_equal_to_scipy(family: int, n: int) -> None:
    rng = np.random.default_rng(n)
    process, (x, u, y) = reference.processes(rng, 3)[family], reference.study(rng, n)
    p = reference.as_numpy(process)
    covariance = reference.cov(p, x, u, x, u) + p.noise * np.eye(n)
    expected = multivariate_normal(reference.mean(p, x, u), covariance).logpdf(y)
    for rows in (n, bucket(n)):
        got = posterior.log_marginal_likelihood(process, reference.data(x, u, y, rows))
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("name", SURROGATES)
def test_the_analytic_gradient_equals_finite_differences_of_an_independent_likelihood(name: str) -> None:
    surrogate = SURROGATES[name]()
    rng = np.random.default_rng(3)
    x, u, y = reference.study(rng, 11)
    padded = reference.data(x, u, y, 16)
    num_levels = len(padded.inputs.levels)
    low, high = surrogate.box(3, num_levels)
    initial = surrogate.flatten({}, 3, np.asarray(padded.inputs.levels), num_levels)
    theta = np.clip(initial + 0.3 * rng.normal(size=low.shape), low + 0.1, high - 0.1)

    def value(t: np.ndarray) -> float:
        p = reference.as_numpy(surrogate.unflatten(jnp.asarray(t), padded.inputs))
        k = reference.cov(p, x, u, x, u) + p.noise * np.eye(11)
        return -multivariate_normal(reference.mean(p, x, u), k).logpdf(y) - float(surrogate.log_prior(jnp.asarray(t), padded.inputs))

    loss, gradient = jax.jit(lambda t: loss_and_grad(surrogate, t, padded))(jnp.asarray(theta))
    assert float(loss) == pytest.approx(value(theta), rel=1e-9)
    # The central difference of order eight: error about h^8, rounding about 1e-15 / h.
    weights, h = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}, 2e-2
    for i, got in enumerate(gradient):
        e = np.eye(len(theta))[i] * h
        expected = sum(w * (value(theta + k * e) - value(theta - k * e)) for k, w in weights.items()) / h
        assert float(got) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@FAMILIES
def test_mean_variance_and_covariance_equal_a_dense_solve_padded_or_not(family: int) -> None:
    rng = np.random.default_rng(4)
    process, (x, u, y) = reference.processes(rng, 3)[family], reference.study(rng, 19)
    z, v = rng.uniform(size=(6, 3)), rng.choice(reference.RUNGS, 6)
    query = reference.inputs(z, v, levels=reference.RUNGS)
    mean, covariance = dense(process, x, u, y, z, v)
    for rows in (19, 32):
        post = posterior.condition(process, reference.data(x, u, y, rows, reference.RUNGS))
        got_mean, got_variance = posterior.predict(post, query)
        np.testing.assert_allclose(got_mean[0], mean, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(got_variance, np.diagonal(covariance), rtol=1e-8)
        np.testing.assert_allclose(posterior.predict_joint(post, query)[1], covariance, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(posterior.predict_mean(post, query), got_mean, rtol=1e-9, atol=1e-10)


def test_the_matern_posterior_equals_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    x, u, y = reference.study(rng, 21)
    process = reference.processes(rng, 3)[0]._replace(constant=jnp.asarray(0.0))
    w = np.append(process.inverse_bandwidth, process.resource_inverse_bandwidth)
    kernel = ConstantKernel(float(process.scale), "fixed") * Matern(1 / w, "fixed", nu=2.5)
    other = GaussianProcessRegressor(kernel, alpha=float(process.noise), optimizer=None).fit(np.column_stack([x, u]), y)
    z, v = rng.uniform(size=(9, 3)), rng.choice(reference.RUNGS, 9)
    mean, std = other.predict(np.column_stack([z, v]), return_std=True)
    post = posterior.condition(process, reference.data(x, u, y, 32, reference.RUNGS))
    got, variance = posterior.predict(post, reference.inputs(z, v, levels=reference.RUNGS))
    np.testing.assert_allclose(got[0], mean, rtol=1e-8)
    np.testing.assert_allclose(variance, std**2, rtol=1e-8)


@FAMILIES
def test_a_fantasy_is_conditioning_on_the_drawn_value(family: int) -> None:
    rng = np.random.default_rng(6)
    process, (x, u, y) = reference.processes(rng, 3)[family], reference.study(rng, 14)
    px, pu = rng.uniform(size=(3, 3)), reference.RUNGS[[0, 0, 1]]
    z, v = rng.uniform(size=(5, 3)), reference.RUNGS[[3, 3, 2, 1, 0]]
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    pending = reference.inputs(px, pu, 4, reference.RUNGS)
    key = jax.random.key(0)
    draws, _ = posterior.sample(key, post, pending, 5)
    mean, variance = posterior.predict(posterior.fantasise(key, post, pending, 5), reference.inputs(z, v, levels=reference.RUNGS))
    for column in range(5):
        all_y = np.concatenate([y, draws[:3, column]])
        expected, covariance = dense(process, np.concatenate([x, px]), np.concatenate([u, pu]), all_y, z, v)
        np.testing.assert_allclose(mean[column], expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(variance, np.diagonal(covariance), rtol=1e-8)


def test_no_pending_evaluation_means_the_observations_alone() -> None:
    rng = np.random.default_rng(7)
    process, (x, u, y) = reference.processes(rng, 3)[1], reference.study(rng, 14)
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    nothing = reference.inputs(np.zeros((0, 3)), np.zeros(0), 4, reference.RUNGS)
    query = reference.inputs(rng.uniform(size=(5, 3)), np.full(5, reference.RUNGS[2]), levels=reference.RUNGS)
    fantasies = posterior.fantasise(jax.random.key(0), post, nothing, 3)
    for got, expected in zip(posterior.predict(fantasies, query), posterior.predict(post, query), strict=True):
        np.testing.assert_allclose(got, jnp.broadcast_to(expected, got.shape), rtol=1e-12)


def test_draws_have_the_joint_posterior_moments_and_ignore_padding() -> None:
    rng = np.random.default_rng(8)
    process, (x, u, y) = reference.processes(rng, 3)[1], reference.study(rng, 6)
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    z, v = rng.uniform(size=(3, 3)), reference.RUNGS[[0, 3, 3]]
    draws, jitter = posterior.sample(jax.random.key(1), post, reference.inputs(z, v, 3, reference.RUNGS), 100_000)
    mean, covariance = posterior.predict_joint(post, reference.inputs(z, v, levels=reference.RUNGS))
    assert jitter == 0
    np.testing.assert_allclose(np.mean(draws, 1), mean[0], atol=5 * np.sqrt(float(jnp.max(covariance)) / 1e5))
    np.testing.assert_allclose(np.cov(draws), covariance, atol=0.03)
    padded, _ = posterior.sample(jax.random.key(1), post, reference.inputs(z, v, 8, reference.RUNGS), 100_000)
    np.testing.assert_allclose(padded[:3], draws, atol=1e-12)


def test_the_jitter_grows_until_a_singular_covariance_has_a_factor_and_is_reported() -> None:
    well = jnp.eye(16) + 0.1
    assert posterior.factorise(well).jitter == 0
    np.testing.assert_allclose(posterior.factorise(well).chol, np.linalg.cholesky(well), rtol=1e-12)
    for worst in (0.0, -1e-7, -1e-3):
        values = np.array([worst, 1.0, 1.0, 2.0])
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
        chol, jitter = posterior.factorise(jnp.asarray(q @ np.diag(values) @ q.T))
        assert np.all(np.isfinite(chol)) and -worst <= float(jitter) <= max(-20 * worst, 1e-9)


@pytest.mark.parametrize("n", [1, 7, 100, 101, 250, 403])
def test_the_inverse_by_halves_is_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    chol = np.tril(rng.normal(size=(n, n))) / np.sqrt(n) + np.diag(rng.uniform(1, 3, n))
    expected = solve_triangular(chol, np.eye(n), lower=True)
    np.testing.assert_allclose(posterior.inverse_of_triangle(jnp.asarray(chol)), expected, atol=1e-10 * np.abs(expected).max())


@FAMILIES
def test_the_gradient_of_many_rows_is_that_of_differentiating_through_the_factorisation(family: int) -> None:
    """More rows than a triangle's leaf, padded."""
    rng = np.random.default_rng(9)
    surrogate = (mfgp.matern(), mfgp.exp_decay())[family]
    x, u, y = reference.study(rng, 230)
    data = reference.data(x, u, y, 256)
    theta = jnp.asarray(surrogate.flatten({}, 3, np.asarray(data.inputs.levels), len(data.inputs.levels))) + 0.1

    def likelihood(t: jax.Array) -> jax.Array:
        return posterior.log_marginal_likelihood(surrogate.unflatten(t, data.inputs), data)

    value, gradient = posterior.log_marginal_likelihood_and_grad(lambda t: surrogate.unflatten(t, data.inputs), theta, data)
    np.testing.assert_allclose(value, likelihood(theta), rtol=1e-10)
    np.testing.assert_allclose(gradient, jax.jacfwd(likelihood)(theta), rtol=1e-7, atol=1e-7)
    _, density = posterior.condition_and_weigh(surrogate.unflatten(theta, data.inputs), data)
    np.testing.assert_allclose(density, value, rtol=1e-10)


@FAMILIES
def test_the_outline_has_the_mean_over_fantasies_and_a_variance_from_above(family: int) -> None:
    rng = np.random.default_rng(10)
    process, (x, u, y) = reference.processes(rng, 3)[family], reference.study(rng, 60)
    data = reference.data(x, u, y, 64, reference.RUNGS)
    pending = reference.inputs(rng.uniform(size=(2, 3)), reference.RUNGS[[0, 1]], 4, reference.RUNGS)
    post = posterior.fantasise(jax.random.key(0), posterior.condition(process, data), pending, 5)
    query = reference.inputs(rng.uniform(size=(40, 3)), np.full(40, reference.RUNGS[2]), levels=reference.RUNGS)
    mean, variance = posterior.outline(post).predict(query)
    exact_mean, exact = post.predict(query)
    np.testing.assert_allclose(mean[0], np.mean(exact_mean, axis=0), rtol=1e-9, atol=1e-9)
    assert np.all(variance >= exact * (1 - 1e-9)) and np.all(variance <= process.var(query) * (1 + 1e-9))
    everything = posterior.outline(post, 1)
    np.testing.assert_allclose(everything.predict(query)[1], exact, rtol=1e-9)
    np.testing.assert_allclose(everything.predict_mean(query), mean, rtol=1e-9, atol=1e-9)
