"""What may steer the Gaussian-process searcher: a user's prior, say, or an ensemble over resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from schedulers.history import History
from schedulers.searchers.model import Model
from schedulers.types import Proposal, Slot


class Guide(Protocol):
    """Has a say in where a GPSearcher starts, what it chooses from, how it chooses, and in the brackets."""

    def initial(self, history: History, slot: Slot) -> Proposal | None:
        """A configuration of the initial design; None: random search draws it."""
        ...

    def candidates(self, num: int, slot: Slot) -> np.ndarray:
        """[<= num, P] legal candidates that take the place of some of `num` draws from the space."""
        ...

    def scores(self, model: Model, history: History, slot: Slot, vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
        """[n] scores of the candidates, higher is better, and a note for the log."""
        ...

    def bracket_weights(self, history: History) -> Sequence[float] | None: ...
