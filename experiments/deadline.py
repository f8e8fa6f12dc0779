"""A watchdog over the searcher: a suggestion that fails or hangs becomes a random one, said in the log and in the records.

It also works ahead while workers train, so that none of them need wait: the next suggestion, and the programs of those after it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from experiments.compilation import announced
from schedulers.history import History
from schedulers.types import Proposal, Searcher, Slot

log = logging.getLogger(__name__)


class Deadline:
    """Asks `searcher` in a thread; after `seconds`, or if it raises, `fallback` answers, and keeps answering while the thread hangs.

    A searcher that compiles programs (it has `upcoming`, `compile` and `asks_the_model`) has those it will need next compiled in the
    background, and its suggestions made in advance for the slots given to `prepare`, which is for searchers that weigh no brackets and
    score no trials: those are asked in the caller's thread.
    """

    def __init__(self, searcher: Searcher, fallback: Searcher, seconds: float) -> None:
        if seconds <= 0:
            raise ValueError(f"suggest_timeout={seconds} must be a positive number of seconds")
        self._searcher, self._fallback, self._seconds = searcher, fallback, seconds
        self._task: _Task | None = None  # under way, or made in advance
        self._compiler: threading.Thread | None = None
        self._compiling: Any = None
        self._compiled: set[Any] = set()

    def prepare(self, history: History, slot: Slot) -> None:
        """Begin with the suggestion for `slot`, if it takes the model; returns at once.

        It is made from what `history` holds now. What is reported until it is asked for counts as pending in it: which suggestion it is
        depends on the events up to this call, not on how long anything takes.
        """
        if self._task is not None and (self._task.slot == slot or self._task.is_alive):
            return
        if hasattr(self._searcher, "asks_the_model") and self._searcher.asks_the_model(history, slot):
            self._look_ahead(history)
            self._task = _Task(self, history.copy(), slot)

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        task = self._task
        if task is not None and task.slot != slot and not task.ends_within(0 if task.is_late else self._seconds):
            return self._instead(history, slot, "an earlier suggestion still hangs")
        if task is None or task.slot != slot:
            task = self._task = _Task(self, history, slot)
        if not task.ends_within(self._seconds):
            return self._instead(history, slot, f"the searcher took more than {self._seconds:g} s")
        self._task = None
        self._look_ahead(history)
        if task.error is not None:
            log.error("the searcher failed at trial %d", slot.trial_id, exc_info=task.error)
            return self._instead(history, slot, f"the searcher failed: {task.error!r}")
        return task.proposal

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)

    def finish(self) -> None:
        """The study is over: wait for what is being made in advance, as a process that ends while XLA runs in a thread may abort."""
        if self._task is not None:
            self._task.ends_within(0 if self._task.is_late else self._seconds)

    def _instead(self, history: History, slot: Slot, reason: str) -> Proposal | None:
        log.warning("trial %d: %s; drawn at random instead", slot.trial_id, reason)
        proposal = self._fallback.suggest(history, slot)
        return proposal and proposal._replace(note=reason)

    def ask(self, history: History, slot: Slot) -> Proposal | None:
        """The searcher's answer; called in the thread of a task."""
        if self._compiler is not None and self._needs(self._compiling, history, slot):
            self._compiler.join()  # rather than compile it twice
        return self._searcher.suggest(history, slot)

    def _needs(self, size: Any, history: History, slot: Slot) -> bool:
        return size in self._upcoming(history)[:1] and self._searcher.asks_the_model(history, slot)  # type: ignore[attr-defined]

    def _upcoming(self, history: History) -> list[Any]:
        return self._searcher.upcoming(history) if hasattr(self._searcher, "upcoming") else []

    def _look_ahead(self, history: History) -> None:
        """Start compiling what will be needed, one program after the other."""
        if self._compiler is not None and self._compiler.is_alive():
            return
        todo = [size for size in self._upcoming(history) if size not in self._compiled]
        if todo:
            self._compiling = todo[0]
            self._compiled.add(todo[0])
            # No daemon: a process that ends while XLA compiles in one aborts.
            self._compiler = threading.Thread(target=self._compile, args=(history, todo[0]))
            self._compiler.start()

    def _compile(self, history: History, size: tuple[int, ...]) -> None:
        try:
            with announced(f"the surrogate for up to {size[0]} observations, in the background"):
                self._searcher.compile(history, size)  # type: ignore[attr-defined]
        except Exception:  # the suggestion that needs it will fail in the same way, and be replaced
            log.exception("compiling the surrogate for %d observations failed", size[0])


class _Task:
    """One suggestion, in a thread of its own."""

    def __init__(self, owner: Deadline, history: History, slot: Slot) -> None:
        self.slot, self.is_late = slot, False
        self.proposal: Proposal | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(owner, history), daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ends_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        self.is_late = self.is_alive
        return not self.is_late

    def _run(self, owner: Deadline, history: History) -> None:
        try:
            self.proposal = owner.ask(history, self.slot)
        except Exception as error:  # whatever it is, the study goes on; the caller logs it with its traceback
            self.error = error
