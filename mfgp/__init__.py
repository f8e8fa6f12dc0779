"""Multi-fidelity Gaussian-process surrogates for hyperparameter search, as pure functions of padded arrays."""

from mfgp.acquisition import ExpectedImprovement, LowerConfidenceBound, Thompson
from mfgp.mcmc import Nuts, SliceSampling
from mfgp.suggest import Space, Suggestion, suggest
from mfgp.surrogates import Surrogate, coregional, exp_decay, freeze_thaw, independent, matern, matern_warped

__all__ = [
    "ExpectedImprovement",
    "LowerConfidenceBound",
    "Nuts",
    "SliceSampling",
    "Space",
    "Suggestion",
    "Surrogate",
    "Thompson",
    "coregional",
    "exp_decay",
    "freeze_thaw",
    "independent",
    "matern",
    "matern_warped",
    "suggest",
]
