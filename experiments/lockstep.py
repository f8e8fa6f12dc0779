"""Studies of one configuration and several seeds in lock step: their model-based suggestions are computed in one call of fixed width.

Each study runs in a thread of its own up to the next request for its model. When all that still run wait, `mfgp.suggest_many` answers
them together; on an accelerator that is one program over `width` studies. What a study is answered does not depend on who else asks, so
its events are those that it has alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import mfgp
from experiments.overrides import made
from experiments.simulation import has_model, simulate
from schedulers.searchers.gp import Request

Answer = TypeVar("Answer")


class Meeting:
    """Where `num` studies wait for each other: `answer_all` is called with the requests of all that are left, in order of their numbers."""

    def __init__(self, num: int, answer_all: Callable[[list[Any]], Sequence[Answer]]) -> None:
        self._answer_all = answer_all
        self._present = num
        self._requests: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def ask(self, number: int, request: Any) -> Any:
        """Wait until every other study asks too or has left; the answer to `request`."""
        with self._changed:
            self._requests[number] = request
            self._answer_if_complete()
            self._changed.wait_for(lambda: number in self._answers or self._error is not None)
            if self._error is not None:
                raise RuntimeError("another study of the lock step failed") from self._error
            return self._answers.pop(number)

    def leave(self, error: BaseException | None = None) -> None:
        """A study is over; after an error all others end too."""
        with self._changed:
            self._present -= 1
            self._error = self._error or error
            self._answer_if_complete()
            self._changed.notify_all()

    def _answer_if_complete(self) -> None:
        if self._error is not None or not self._requests or len(self._requests) < self._present:
            return
        order = sorted(self._requests)
        try:
            answers = self._answer_all([self._requests[number] for number in order])
        except BaseException as error:
            self._error = error
        else:
            self._answers |= dict(zip(order, answers, strict=True))
        self._requests.clear()
        self._changed.notify_all()


def together(
    num: int, study: Callable[[int, Callable[[Any], Any]], Answer], answer_all: Callable[[list[Any]], Sequence[Any]]
) -> list[Answer]:
    """The results of study(0, ask), ..., study(num - 1, ask), each in a thread of its own; `ask` goes through a `Meeting`."""
    meeting, results, errors = Meeting(num, answer_all), dict[int, Answer](), list[BaseException]()

    def one(number: int) -> None:
        error = None
        try:
            results[number] = study(number, lambda request: meeting.ask(number, request))
        except BaseException as raised:
            error = raised
            errors.append(raised)
        finally:
            meeting.leave(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error.__cause__ for error in errors if isinstance(error.__cause__, Exception)), None) or errors[0]
    return [results[number] for number in range(num)]


def simulate_together(cfg: Any, seeds: Sequence[int], width: int) -> list[Any]:
    """`simulation.simulate` of each seed, at most `width` in lock step at a time on the device."""
    if not has_model(cfg):
        raise ValueError(f"lock step is for searcher=gp and its relatives: {cfg.searcher._target_} asks no model in this way")
    acquisition = made(cfg.searcher.acquisition)

    def answer_all(requests: list[Request]) -> list[mfgp.Suggestion]:
        arguments = [request.arguments for request in requests]
        surrogate, num_fantasies = requests[0].surrogate, cfg.searcher.num_fantasies  # all search one space
        return mfgp.suggest_many(surrogate, arguments, width=width, num_fantasies=num_fantasies, acquisition=acquisition)

    return together(len(seeds), lambda number, ask: simulate(cfg, seeds[number], ask, len(seeds)), answer_all)
