"""Multi-fidelity Gaussian-process surrogates for hyperparameter search, as pure functions of padded arrays."""

from mfgp.acquisition import ExpectedImprovement, LowerConfidenceBound, Thompson
from mfgp.data import bucket
from mfgp.many import precompile, suggest_many
from mfgp.mcmc import Nuts, SliceSampling
from mfgp.problem import Space
from mfgp.suggest import Suggestion, suggest
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
    "bucket",
    "coregional",
    "exp_decay",
    "freeze_thaw",
    "independent",
    "matern",
    "matern_warped",
    "precompile",
    "suggest",
    "suggest_many",
]
