"""The one place that imports tensorflow-probability (JAX substrate): distributions of hyperparameters, bijectors, MCMC kernels.

tensorflow-probability 0.25.0 looks for `jax.interpreters.xla.pytype_aval_mappings`, which jax removed in 0.7 (tensorflow/probability
issue 2009). The table itself still exists, so the name is put back before the import. Holds for jax 0.10.2 and 0.12.0; retry without
it with every tensorflow-probability after 0.25.0.
"""

import jax
from jax._src import core as _core

if not hasattr(jax.interpreters.xla, "pytype_aval_mappings"):
    setattr(jax.interpreters.xla, "pytype_aval_mappings", _core.pytype_aval_mappings)  # noqa: B010  (a plain assignment is no such attribute to mypy)

from tensorflow_probability.substrates.jax import bijectors as tfb
from tensorflow_probability.substrates.jax import distributions as tfd
from tensorflow_probability.substrates.jax import mcmc as tfmcmc

__all__ = ["tfb", "tfd", "tfmcmc"]
