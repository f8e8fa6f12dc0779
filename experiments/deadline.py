"""A watchdog over the searcher: a suggestion that fails or hangs becomes a random one, said in the log and in the records."""

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
    background, so that a suggestion need not wait for them.
    """

    def __init__(self, searcher: Searcher, fallback: Searcher, seconds: float) -> None:
        if seconds <= 0:
            raise ValueError(f"suggest_timeout={seconds} must be a positive number of seconds")
        self._searcher, self._fallback, self._seconds = searcher, fallback, seconds
        self._thread: threading.Thread | None = None
        self._compiler: threading.Thread | None = None
        self._compiling: Any = None
        self._compiled: set[Any] = set()

    def suggest(self, history: History, slot: Slot) -> Proposal | None:
        if self._thread is not None and self._thread.is_alive():
            return self._instead(history, slot, "an earlier suggestion still hangs")
        answer: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._ask, args=(history, slot, answer), daemon=True)
        self._thread.start()
        self._thread.join(self._seconds)
        self._look_ahead(history)
        if "proposal" in answer:
            proposal: Proposal | None = answer["proposal"]
            return proposal
        if "error" in answer:
            log.error("the searcher failed at trial %d", slot.trial_id, exc_info=answer["error"])
            return self._instead(history, slot, f"the searcher failed: {answer['error']!r}")
        return self._instead(history, slot, f"the searcher took more than {self._seconds:g} s")

    def recall(self, history: History, slot: Slot, proposal: Proposal) -> None:
        self._searcher.recall(history, slot, proposal)

    def bracket_weights(self, history: History) -> Sequence[float] | None:
        return self._searcher.bracket_weights(history)

    def score(self, history: History, paused: Sequence[tuple[int, int]]) -> Sequence[float] | None:
        return self._searcher.score(history, paused)

    def _instead(self, history: History, slot: Slot, reason: str) -> Proposal | None:
        log.warning("trial %d: %s; drawn at random instead", slot.trial_id, reason)
        proposal = self._fallback.suggest(history, slot)
        return proposal and proposal._replace(note=reason)

    def _ask(self, history: History, slot: Slot, answer: dict[str, Any]) -> None:
        try:
            if self._compiler is not None and self._needs(self._compiling, history, slot):
                self._compiler.join()  # rather than compile it twice
            answer["proposal"] = self._searcher.suggest(history, slot)
        except Exception as error:  # whatever it is, the study goes on; the caller logs it with its traceback
            answer["error"] = error

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
