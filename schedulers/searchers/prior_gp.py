"""A user's prior handed over to the surrogate: it weighs the acquisition and supplies candidates, the less the more trials there are.

Hvarfner et al. 2022 (πBO), eq. 6, multiply the acquisition by the prior's density to the power β / t. Here t counts the trials that
began, and the share of candidates that the prior supplies falls in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from schedulers.draws import generator
from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.model import Model
from schedulers.searchers.prior import PriorSearcher
from schedulers.searchers.user_prior import Confidence, Part, Prior, PriorScale
from schedulers.types import Proposal, Slot

LOG_LEAST_DENSITY = float(np.log(1e-12))  # what a table rules out stays possible, as in πBO


class PriorGuide:
    """Guide of a GPSearcher: log EI + (beta / t) log prior.

    fraction: of the initial design, and of the candidates until t = beta; after that their share is fraction * beta / t.
    prior, confidence, prior_scale, part: see `user_prior.Prior`.
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        prior: Mapping[str, Any],
        beta: float = 10.0,
        fraction: float = 0.8,
        confidence: Confidence = "medium",
        prior_scale: PriorScale = "neps11",
        part: Part = "joint",
        seed: int = 0,
    ) -> None:
        if not beta >= 0:
            raise ValueError(f"searcher.guide.beta={beta} must not be negative")
        if not 0 <= fraction <= 1:
            raise ValueError(f"searcher.guide.fraction={fraction} must lie between 0 and 1")
        self._prior = Prior(Encoding(space), prior, confidence=confidence, prior_scale=prior_scale, part=part)
        self._design = PriorSearcher(
            space, prior=prior, fraction=fraction, confidence=confidence, prior_scale=prior_scale, part=part, seed=seed
        )
        self._beta, self._fraction, self._seed = beta, fraction, seed

    def initial(self, history: History, slot: Slot) -> Proposal | None:
        return self._design.suggest(history, slot)

    def candidates(self, num: int, slot: Slot) -> np.ndarray:
        share = self._fraction * min(1.0, self._beta / max(1, slot.trial_id))
        return self._prior.sample(round(share * num), generator(self._seed, "prior candidates", slot.trial_id))

    def scores(self, model: Model, history: History, slot: Slot, vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
        exponent = self._beta / max(1, slot.trial_id)
        weight = exponent * np.maximum(self._prior.log_density(vectors), LOG_LEAST_DENSITY)
        return model.log_improvement(rows) + weight, f"prior to the power {exponent:.3g}"

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None
