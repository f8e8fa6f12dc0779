"""Random search guided by a user's prior: with promotion it is ASHA with priors over hyperparameters, architectures or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from schedulers.draws import Uniforms, generator
from schedulers.history import History
from schedulers.searchers.drawing import first_new
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.user_prior import Confidence, Part, Prior, PriorScale
from schedulers.types import Proposal, Slot

BLOCK = 64


class PriorSearcher:
    """Draws from the prior with probability `fraction`, else exactly what random search with this seed would draw.

    prior, confidence, prior_scale, part: see `user_prior.Prior`. mode_first: the first trial is the prior's mode (NePS 0.11 has
    fraction 1 and no such first trial; the joint-prior experiments used 0.8 and 0.5).
    """

    def __init__(
        self,
        space: ConfigurationSpace,
        *,
        prior: Mapping[str, Any],
        fraction: float = 1.0,
        confidence: Confidence = "medium",
        prior_scale: PriorScale = "neps11",
        part: Part = "joint",
        mode_first: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"searcher.fraction={fraction} must be a probability, from 0 to 1")
        self._random = RandomSearcher(space, seed=seed, default_first=False)
        self._encoding, self._tried = self._random.encoding, self._random.tried
        self.prior = Prior(self._encoding, prior, confidence=confidence, prior_scale=prior_scale, part=part)
        self._fraction, self._mode_first, self._seed = fraction, mode_first, seed
        self._coins = Uniforms(seed, "from prior")
        self._number, self._block = -1, np.empty((0, 0))

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        self._tried.update(history)
        if slot.trial_id == 0 and self._mode_first and (mode := legal_mode(self.prior, self._encoding)) is not None:
            return Proposal(self._encoding.configs(mode[None])[0], "prior", note="the prior's mode")
        if self._coins[slot.trial_id] >= self._fraction:
            return self._random.suggest(history, slot)
        vector = self._drawn(slot.trial_id)
        if vector is None or not self._tried.is_new(vector[None])[0]:
            rng = generator(self._seed, "redraw from prior", slot.trial_id)
            vector = first_new(self._encoding, self._tried, lambda num: self.prior.full(num, rng))
        if vector is None:  # what the prior favours was all tried
            return self._random.suggest(history, slot)
        return Proposal(self._encoding.configs(vector[None])[0], "prior")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        """Nothing to take over: all it knows is in the history."""

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return None

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return None

    def _drawn(self, trial_id: int) -> np.ndarray | None:
        number, offset = divmod(trial_id, BLOCK)
        if number != self._number:
            self._block, self._number = self.prior.sample(BLOCK, generator(self._seed, "prior", number)), number
        return self._block[offset] if offset < len(self._block) else None


def legal_mode(prior: Prior, encoding: Any) -> np.ndarray | None:
    """[P] the prior's mode, unless a forbidden clause holds there."""
    mode = prior.mode()
    return mode if encoding.is_legal(mode[None])[0] else None
