"""Searchers that hold another one: a limit on the number of trials, and the memory of an interrupted study."""

from __future__ import annotations

from collections.abc import Sequence

from schedulers.history import History
from schedulers.types import Proposal, Recording, Searcher, Slot


class TrialLimit:
    """No more than `max_trials` configurations: then the space counts as exhausted and what runs is finished."""

    def __init__(self, searcher: Searcher, max_trials: int) -> None:
        if max_trials < 1:
            raise ValueError(f"budget.trials={max_trials} must be at least 1 (or null for no limit)")
        self._searcher, self._max_trials = searcher, max_trials

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        return None if slot.trial_id >= self._max_trials else self._searcher.suggest(history, slot)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)


class PoolLimit:
    """Refuses more than a fifth of the `pool_size` configurations of a table: beyond that a search is easier than on its space."""

    def __init__(self, searcher: Searcher, pool_size: int) -> None:
        self._searcher, self._pool_size = searcher, pool_size

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        if slot.trial_id >= fifth(self._pool_size):
            raise ValueError(
                f"the study would evaluate more than a fifth of the {self._pool_size} configurations of its table: give it "
                f"budget.trials={fifth(self._pool_size)} or less, a shorter budget.seconds, or a larger table"
            )
        return self._searcher.suggest(history, slot)

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)


def fifth(pool_size: int) -> int:
    """How many configurations of a table a study may evaluate."""
    return pool_size // 5


class Recorded:
    """Repeats recorded proposals in their order; the searcher takes each over without computing.

    Where the recorded study asked in vain (its budget was spent), so does the repetition; after the recording the searcher goes on.
    """

    def __init__(self, searcher: Searcher, recording: Recording) -> None:
        self._searcher, self._recording = searcher, recording

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        if self._recording.is_over:
            return self._searcher.suggest(history, slot)
        proposal = self._recording.events[self._recording.repeated].proposal
        if proposal is not None:
            self._searcher.recall(history, slot, proposal)
        return proposal

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)
