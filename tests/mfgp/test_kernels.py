import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfgp import kernels
from mfgp.kernels import ExpDecay, matern52, squared_distance, warp
from tests.mfgp import reference


def exp_decay(d: int, **changes: float) -> ExpDecay:
    values = dict(scale=1.3, constant=0.3, alpha=1.5, mean_lambda=3.0, gamma=0.9, delta=0.5, noise=0.01) | changes
    return ExpDecay(inverse_bandwidth=jnp.full(d, 2.0), **{name: jnp.asarray(value) for name, value in values.items()})


def moments(process: ExpDecay, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = reference.inputs(x, u)
    return np.asarray(process.mean(points)), np.asarray(process.cov(points, points))


@pytest.mark.parametrize("delta", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("alpha", "mean_lambda"), [(1.0, 0.5), (2.5, 6.0)])
def test_mean_and_covariance_are_those_of_the_random_function(delta: float, alpha: float, mean_lambda: float) -> None:
    """f(x, r) = γ e^(-λr) + f(x) (1 - δ e^(-λr)) is drawn itself: λ from its Gamma distribution, f from its process."""
    rng = np.random.default_rng(int(100 * delta) + int(alpha))
    process = exp_decay(2, delta=delta, alpha=alpha, mean_lambda=mean_lambda)
    configs = rng.uniform(size=(3, 2))
    x, u = np.repeat(configs, 4, axis=0), np.tile(reference.RUNGS, 3)
    draws, chunks = 200_000, 5
    total, product = np.zeros(12), np.zeros((12, 12))
    root = np.linalg.cholesky(1.3 * reference.matern52(configs, configs, 2.0) + 1e-12 * np.eye(3))
    for _ in range(chunks):
        decay = np.exp(-rng.gamma(alpha, mean_lambda / alpha, size=(draws, 1)) * u)
        asymptote = np.repeat(0.3 + rng.standard_normal((draws, 3)) @ root.T, 4, axis=1)
        f = 0.9 * decay + asymptote * (1 - delta * decay)
        total, product = total + f.sum(0), product + f.T @ f
    n = draws * chunks
    mean, covariance = moments(process, x, u)
    np.testing.assert_allclose(mean, total / n, atol=6e-3)  # five standard errors of a unit-variance mean over 1e6 draws
    np.testing.assert_allclose(covariance, product / n - np.outer(total, total) / n**2, atol=1.2e-2)


def test_covariance_is_positive_semidefinite_for_any_hyperparameters() -> None:
    rng = np.random.default_rng(0)
    x, u = np.repeat(rng.uniform(size=(12, 3)), 4, axis=0), np.tile(reference.RUNGS, 12)
    points = reference.inputs(x, u)
    for _ in range(300):
        process = ExpDecay(
            inverse_bandwidth=jnp.asarray(np.exp(rng.normal(0.5, 0.7, 3))),
            scale=jnp.asarray(np.exp(rng.normal())),
            constant=jnp.asarray(rng.normal()),
            alpha=jnp.asarray(np.exp(rng.uniform(-4.6, 3))),
            mean_lambda=jnp.asarray(np.exp(rng.uniform(-4.6, 4))),
            gamma=jnp.asarray(rng.uniform(1e-4, 10)),
            delta=jnp.asarray(rng.uniform()),
            noise=jnp.asarray(0.1),
        )
        eigenvalues = np.linalg.eigvalsh(np.asarray(process.cov(points, points)))
        assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_factor_and_offset_equal_the_values_worked_out_by_hand() -> None:
    """α = 1, λ = 1/2: κ(.5) = .8, κ(1) = 2/3, so κ~(.5, .5) = .026667 and, for δ = 1/2, M = .366667."""
    x, u = np.array([[0.2]]), np.array([0.5])
    common = dict(alpha=1.0, mean_lambda=0.5, delta=0.5, constant=0.0)
    _, without_offset = moments(exp_decay(1, scale=1.0, gamma=0.0, **common), x, u)
    _, with_offset = moments(exp_decay(1, scale=1.0, gamma=1.0, **common), x, u)
    assert without_offset[0, 0] == pytest.approx(1 - 0.8 + 0.25 * 2 / 3, abs=1e-12)
    assert with_offset[0, 0] - without_offset[0, 0] == pytest.approx(2 / 3 - 0.64, abs=1e-12)


def test_delta_zero_means_parallel_curves_and_delta_one_a_common_value_at_zero() -> None:
    x, u = np.array([[0.1], [0.9], [0.1], [0.9]]), np.array([0.0, 0.0, 1.0, 1.0])
    _, parallel = moments(exp_decay(1, delta=0.0), x, u)
    contrast = np.array([1, -1, -1, 1])  # difference of the two curves' drops
    assert contrast @ parallel @ contrast == pytest.approx(0.0, abs=1e-12)
    mean, common = moments(exp_decay(1, delta=1.0, gamma=0.7), x, u)
    np.testing.assert_allclose(mean[:2], 0.7)
    np.testing.assert_allclose(common[:2, :2], 0.0, atol=1e-12)


FAMILIES = ["matern", "exp_decay", "matern_warped", "freeze_thaw", "independent", "coregional", "warped_inputs"]


@pytest.mark.parametrize("index", range(7), ids=FAMILIES)
def test_mean_covariance_and_variance_equal_the_formulas_per_pair(index: int) -> None:
    rng = np.random.default_rng(1)
    process = reference.processes(rng, 4)[index]
    x, u, z, v = rng.uniform(size=(7, 4)), rng.choice(reference.RUNGS, 7), rng.uniform(size=(5, 4)), rng.choice(reference.RUNGS, 5)
    z[:2] = x[:2]  # the same configurations
    a, b = (reference.inputs(*pair, levels=reference.RUNGS) for pair in ((x, u), (z, v)))
    plain = reference.as_numpy(process)
    np.testing.assert_allclose(process.mean(a), reference.mean(plain, x, u), rtol=1e-12)
    np.testing.assert_allclose(process.cov(a, b), reference.cov(plain, x, u, z, v), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(process.var(a), np.diagonal(reference.cov(plain, x, u, x, u)), rtol=1e-12)


def test_matern_has_a_finite_slope_at_distance_zero() -> None:
    assert jax.grad(matern52)(jnp.asarray(0.0)) == pytest.approx(-5 / 6)
    at, h = 0.3, 1e-6
    assert jax.grad(matern52)(jnp.asarray(at)) == pytest.approx(
        float(matern52(jnp.asarray(at + h)) - matern52(jnp.asarray(at - h))) / (2 * h), rel=1e-8
    )


@pytest.mark.parametrize("index", range(7), ids=FAMILIES)
def test_every_family_is_positive_semidefinite_on_a_grid_of_configs_and_levels(index: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        process = reference.processes(rng, 3)[index]
        points = reference.inputs(np.repeat(rng.uniform(size=(9, 3)), 4, axis=0), np.tile(reference.RUNGS, 9))
        eigenvalues = np.linalg.eigvalsh(np.asarray(process.cov(points, points)))
        assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_freeze_thaw_has_the_moments_of_curves_that_decay_each_at_its_own_rate() -> None:
    rng = np.random.default_rng(3)
    process = reference.processes(rng, 2)[3]
    configs = rng.uniform(size=(3, 2))
    x, u = np.repeat(configs, 4, axis=0), np.tile(reference.RUNGS, 3)
    p, n = reference.as_numpy(process), 400_000
    root = np.linalg.cholesky(p.scale * reference.matern52(configs, configs, p.inverse_bandwidth))
    asymptote = p.constant + rng.standard_normal((n, 3)) @ root.T
    rate = rng.gamma(p.alpha, p.mean_lambda / p.alpha, size=(n, 3))
    f = np.repeat(asymptote, 4, axis=1) + p.gamma * np.exp(-np.repeat(rate, 4, axis=1) * u)
    mean, covariance = moments(process, x, u)
    np.testing.assert_allclose(mean, f.mean(0), atol=1e-2)
    np.testing.assert_allclose(covariance, np.cov(f.T), atol=2e-2)


def test_warping_is_the_identity_at_one_and_leaves_the_ends_alone() -> None:
    t = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(warp(t, jnp.ones(11), jnp.ones(11)), t, atol=1e-8)
    got = warp(t, jnp.full(11, 2.0), jnp.full(11, 0.5))
    assert got[0] == 0 and got[-1] == 1
    np.testing.assert_allclose(got, reference.kumaraswamy(np.asarray(t), 2.0, 0.5), atol=1e-7)
    slope = jax.grad(lambda a: jnp.sum(warp(t, jnp.full(11, a), jnp.full(11, 0.5))))(2.0)
    assert np.isfinite(slope)


@pytest.mark.parametrize("few", [0, 10**6])
def test_the_slopes_of_squared_distances_are_those_of_the_definition(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either form, forwards, backwards, for many directions at once, and where both sides are the same points."""
    monkeypatch.setattr(kernels, "FEW", few)
    rng = np.random.default_rng(0)
    x, z, w, cotangent = (jnp.asarray(rng.random(shape)) for shape in ((5, 3), (4, 3), (3,), (5, 4)))

    def plain(x, z, w):
        return jnp.sum((w * (x[:, None] - z[None])) ** 2, axis=-1)

    for arguments in ((0,), (1,), (2,), (0, 1, 2), (0, 2)):
        forwards, backwards = (tuple(jac(f, arguments)(x, z, w) for f in (squared_distance, plain)) for jac in (jax.jacfwd, jax.jacrev))
        for found, expected in (forwards, backwards):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-13)
    own = [jax.jacrev(lambda x, w, f=f: f(x, x, w), (0, 1))(x, w) for f in (squared_distance, plain)]
    for a, b in zip(*own, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    second = [jax.hessian(lambda w, f=f: jnp.vdot(cotangent, f(x, z, w)))(w) for f in (squared_distance, plain)]
    np.testing.assert_allclose(*second, atol=1e-13)
