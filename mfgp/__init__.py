"""Multi-fidelity Gaussian-process surrogates for hyperparameter search, as pure functions of padded arrays."""

from mfgp.suggest import Space, Suggestion, suggest
from mfgp.surrogates import Surrogate, exp_decay, matern

__all__ = ["Space", "Suggestion", "Surrogate", "exp_decay", "matern", "suggest"]
