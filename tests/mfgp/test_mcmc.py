import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mfgp
from mfgp.mcmc import draw, log_posterior
from tests.mfgp import reference
from tests.mfgp.test_suggest import assert_sensible, problem


def with_free(surrogate: mfgp.Surrogate, name: str) -> mfgp.Surrogate:
    """All other hyperparameters held at their initial values."""
    parameters = tuple(p if p.name == name else dataclasses.replace(p, low=p.init, high=p.init) for p in surrogate.parameters)
    return dataclasses.replace(surrogate, parameters=parameters)


@pytest.mark.parametrize("sampler", [mfgp.Nuts(draws=1500, warmup=200), mfgp.SliceSampling(draws=1500, thin=3)], ids=["nuts", "slice"])
def test_draws_of_one_hyperparameter_have_the_moments_of_its_posterior_on_a_grid(sampler: mfgp.Nuts | mfgp.SliceSampling) -> None:
    surrogate = with_free(mfgp.matern(), "scale")
    data = reference.data(*reference.study(np.random.default_rng(0), 10), 16, reference.RUNGS)
    start = jnp.asarray(surrogate.flatten({}, 3, reference.RUNGS, 4))
    at = [p.name for p in surrogate.parameters].index("scale") + 2  # after three bandwidths, which are one parameter
    grid = np.linspace(np.log(1e-3), np.log(1e3), 800)
    density = jax.jit(jax.vmap(lambda value: log_posterior(surrogate, data)(start.at[at].set(value))))(grid)
    weight = np.exp(density - np.max(density))
    weight /= weight.sum()
    mean = weight @ grid
    std = np.sqrt(weight @ (grid - mean) ** 2)
    draws = np.asarray(jax.jit(lambda key: draw(key, sampler, surrogate, data, start))(jax.random.key(0)))
    np.testing.assert_allclose(np.delete(draws, at, axis=1), np.delete(np.tile(start, (1500, 1)), at, axis=1), atol=1e-12)
    assert draws[:, at].mean() == pytest.approx(mean, abs=0.2 * std)
    assert draws[:, at].std() == pytest.approx(std, rel=0.15)


def test_the_posterior_density_has_the_slope_of_finite_differences() -> None:
    surrogate = mfgp.exp_decay()
    data = reference.data(*reference.study(np.random.default_rng(1), 10), 16, reference.RUNGS)
    density = jax.jit(log_posterior(surrogate, data))
    theta = jnp.asarray(surrogate.flatten({}, 3, reference.RUNGS, 4)) + 0.05
    gradient = jax.jit(jax.grad(log_posterior(surrogate, data)))(theta)
    for i in range(len(theta)):
        step = jnp.zeros(len(theta)).at[i].set(1e-5)
        assert float(gradient[i]) == pytest.approx(float(density(theta + step) - density(theta - step)) / 2e-5, rel=1e-5, abs=1e-6)


def test_a_suggestion_averages_over_draws_and_keeps_them_without_a_refit() -> None:
    surrogate = mfgp.exp_decay(restarts=1, max_evaluations=15, mcmc=mfgp.SliceSampling(draws=3, warmup=5, thin=2))
    first = mfgp.suggest(surrogate, **problem(14))
    assert_sensible(first)
    assert len(first.hyperparameters["draws"]) == 3
    assert first.hyperparameters["draws"][0] != first.hyperparameters["draws"][1]
    kept = mfgp.suggest(surrogate, **problem(14, warm=first.hyperparameters, refit=False))
    for before, after in zip(first.hyperparameters["draws"], kept.hyperparameters["draws"], strict=True):
        for name in before:
            np.testing.assert_allclose(before[name], after[name], rtol=1e-9)
