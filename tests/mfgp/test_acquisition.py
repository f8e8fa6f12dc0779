import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from mfgp import acquisition, posterior
from mfgp.acquisition import log_h
from tests.mfgp import reference


def test_expected_improvement_is_the_value_worked_out_by_hand() -> None:
    """Mean 0, standard deviation 1, incumbent 0, ξ = .01: EI = .393962."""
    assert float(jnp.exp(log_h(jnp.asarray(-0.01)))) == pytest.approx(0.393962, abs=5e-7)


@pytest.mark.parametrize("v", [4.0, 0.5, 0.0, -0.99, -1.01, -3.0, -8.0, -24.9, -25.1, -60.0, -1e3])
def test_log_expected_improvement_equals_quadrature_far_into_the_tail(v: float) -> None:
    """E max(v + z, 0) = φ(v) ∫ t exp(-t²/2 + v t) dt over t > 0; the exponential is taken out for large v only."""
    scale = max(1.0, -v)
    integral = quad(lambda t: t * np.exp(-0.5 * (t / scale) ** 2 + v * t / scale), 0, 60, epsabs=0, epsrel=1e-12, limit=500)[0] / scale**2
    assert float(log_h(jnp.asarray(v))) == pytest.approx(norm.logpdf(v) + np.log(integral), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("v", [3.0, 0.0, -0.9, -1.1, -10.0, -24.0, -26.0, -500.0])
def test_the_slope_of_log_expected_improvement_equals_finite_differences(v: float) -> None:
    h = 1e-4 * max(1.0, abs(v))
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    expected = sum(w * (log_h(jnp.asarray(v + k * h)) - log_h(jnp.asarray(v - k * h))) for k, w in weights.items()) / h
    assert float(jax.grad(log_h)(jnp.asarray(v))) == pytest.approx(float(expected), rel=1e-7)


def test_log_expected_improvement_is_finite_and_increasing_over_all_magnitudes() -> None:
    v = jnp.asarray(np.concatenate([-np.logspace(8, -3, 400), np.logspace(-3, 8, 400)]))
    value, slope = log_h(v), jax.vmap(jax.grad(log_h))(v)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(slope))
    assert np.all(np.diff(value) > 0) and np.all(slope > 0)


def fantasies(rng: np.random.Generator, n: int = 15, p: int = 2, num: int = 6):
    process, (x, u, y) = reference.processes(rng, 3)[1], reference.study(rng, n)
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    px, pu = rng.uniform(size=(p, 3)), np.full(p, reference.RUNGS[2])
    return x, u, px, posterior.fantasise(jax.random.key(3), post, reference.inputs(px, pu, 4, reference.RUNGS), num)


def test_expected_improvement_averages_the_columns() -> None:
    rng = np.random.default_rng(0)
    *_, post = fantasies(rng)
    query = reference.inputs(rng.uniform(size=(7, 3)), np.full(7, reference.RUNGS[3]), levels=reference.RUNGS)
    best = acquisition.incumbent(post, jnp.asarray(3))
    mean, variance = (np.asarray(part) for part in posterior.predict(post, query))
    s = np.sqrt(variance)
    v = (np.asarray(best)[:, None] - mean - 0.02) / s
    expected = np.mean(s * (norm.pdf(v) + v * norm.cdf(v)), axis=0)
    got = acquisition.log_expected_improvement(post, best, jnp.asarray(0.02), query)
    np.testing.assert_allclose(np.exp(got), expected, rtol=1e-9)


def test_the_incumbent_is_the_least_mean_over_configs_observed_or_pending_at_the_level() -> None:
    rng = np.random.default_rng(1)
    x, u, px, post = fantasies(rng)
    for level, configs in ((2, np.concatenate([x[u == reference.RUNGS[2]], px])), (3, x[u == reference.RUNGS[3]])):
        query = reference.inputs(configs, np.full(len(configs), reference.RUNGS[level]), levels=reference.RUNGS)
        expected = np.min(posterior.predict(post, query)[0], axis=1)
        np.testing.assert_allclose(acquisition.incumbent(post, jnp.asarray(level)), expected, rtol=1e-9)


def test_without_a_config_at_the_level_all_configs_are_predicted_there() -> None:
    rng = np.random.default_rng(2)
    process = reference.processes(rng, 2)[1]
    x, u, y = rng.uniform(size=(5, 2)), np.full(5, reference.RUNGS[0]), rng.normal(size=5)
    post = posterior.condition(process, reference.data(x, u, y, 16, reference.RUNGS))
    query = reference.inputs(x, np.full(5, reference.RUNGS[3]), levels=reference.RUNGS)
    np.testing.assert_allclose(acquisition.incumbent(post, jnp.asarray(3)), np.min(posterior.predict(post, query)[0]), rtol=1e-9)


def test_the_lower_confidence_bound_is_kappa_deviations_below_the_mean() -> None:
    rng = np.random.default_rng(5)
    *_, post = fantasies(rng)
    query = reference.inputs(rng.uniform(size=(7, 3)), np.full(7, reference.RUNGS[3]), levels=reference.RUNGS)
    mean, variance = posterior.predict(post, query)
    got = acquisition.LowerConfidenceBound(kappa=2.0).value(post, jnp.zeros(6), jnp.asarray(1.0), query)
    np.testing.assert_allclose(-got, np.mean(mean, 0) - 2 * np.sqrt(variance), rtol=1e-9)


def test_draws_of_hyperparameters_are_averaged_as_improvements_not_as_logarithms() -> None:
    values = jnp.log(jnp.asarray([[0.1, 0.5], [0.3, 0.1]]))
    np.testing.assert_allclose(np.exp(acquisition.ExpectedImprovement().average(values)), [0.2, 0.3])
    np.testing.assert_allclose(acquisition.LowerConfidenceBound().average(values), np.mean(values, 0))
