from importlib.metadata import version

import jax.numpy as jnp
import pytest
from scipy import stats

from mfgp.surrogates import NOISE, SCALE
from mfgp.tfp import tfd


def test_the_restored_name_is_known_to_hold_for_the_installed_versions() -> None:
    """A new tensorflow-probability: try without the restored name (mfgp/tfp.py). A new JAX: run the tests, then extend this list."""
    assert version("tensorflow-probability") == "0.25.0"
    assert version("jax").split(".")[:2] in (["0", "10"], ["0", "12"])


def test_hyperpriors_are_the_densities_they_name() -> None:
    value = 0.37
    assert float(tfd.Gamma(jnp.float64(0.1), jnp.float64(1.0)).log_prob(value)) == pytest.approx(stats.gamma(0.1).logpdf(value))
    assert float(tfd.LogNormal(jnp.float64(0.0), jnp.float64(1.0)).log_prob(value)) == pytest.approx(stats.lognorm(1.0).logpdf(value))
    assert NOISE.prior == (tfd.Gamma, 0.1, 1.0) and SCALE.prior == (tfd.LogNormal, 0.0, 1.0)
