"""When hyperparameters are refitted, against a count by hand over random histories."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace
from hypothesis import given
from hypothesis import strategies as st

import mfgp
from experiments.benchmarks.synthetic import Curves
from experiments.simulation import Nothing
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.history import History
from schedulers.run import run
from schedulers.searchers.gp import GPSearcher, Request
from schedulers.searchers.refits import RefitSchedule, Seen
from schedulers.searchers.wrappers import TrialLimit
from schedulers.types import Proposal, Slot
from tests.searchers.spaces import LEVELS, add_trial, mixed_space, slot_of

# At each suggestion: what is new below r_max, what at it, and whether a fit would find nothing finite.
new_data = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=60)


@given(new_data, st.integers(0, 30), st.integers(1, 4), st.sampled_from(["any", "r_max"]))
def test_refits_come_as_a_count_by_hand_says(arrivals: list[tuple[int, int, bool]], always_below: int, period: int, on: Any) -> None:
    schedule, seen = RefitSchedule(always_below, period, on), Seen()
    num_below = num_final = news_since_fit = 0
    for below, final, fails in arrivals:
        num_below, num_final = num_below + below, num_final + final
        is_news = final > 0 or (on == "any" and below > 0)
        news_since_fit += is_news
        early = num_below + num_final < always_below and below + final > 0
        wanted = below + final > 0 and (early or news_since_fit >= period)
        got = schedule.is_due(seen, num_below + num_final, num_final)
        assert got == wanted
        seen = schedule.after(seen, num_below + num_final, num_final, got and not fails)
        news_since_fit = 0 if got and not fails else news_since_fit


def test_news_that_leaves_the_number_of_observations_as_it_is_counts_with_the_next() -> None:
    """With data=rungs_and_last a trial's last report may move to r_max."""
    schedule, seen = RefitSchedule(0, 1, "r_max"), Seen(10, 2)
    assert not schedule.is_due(seen, 10, 3)
    assert schedule.is_due(schedule.after(seen, 10, 3, False), 11, 3)


@pytest.mark.parametrize("settings", [{"refit_period": 3}, {"refit_on": "r_max"}])
def test_a_searcher_that_recalls_asks_as_the_one_that_proposed(settings: dict[str, Any]) -> None:
    benchmark = Curves(num_floats=2, num_ints=0, num_categoricals=0, r_max=9)
    surrogate = mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10)
    settings |= dict(surrogate=surrogate, num_init_random=4, num_candidates=100, num_fantasies=4, refit_always_below=6)
    first, second = (GPSearcher(benchmark.space, **settings) for _ in range(2))
    refits = []

    class Both:
        """The first searcher proposes; the second is asked the same, then only told."""

        def suggest(self, history: History, slot: Slot) -> Proposal | None:
            asked = [searcher.prepare(history, slot) for searcher in (first, second)]
            proposal = first.suggest(history, slot)
            if isinstance(asked[0], Request) and isinstance(asked[1], Request):
                refits.append(tuple(one.arguments["refit"] for one in asked))
            if proposal is not None:
                second.recall(history, slot, proposal)
            return proposal

        def __getattr__(self, name: str) -> Any:
            return getattr(first, name)

    scheduler = AsyncHyperband(TrialLimit(Both(), 25), r_min=1, r_max=9)
    for _ in run(scheduler, SimulatedBackend(benchmark, 2), Nothing()):
        pass
    assert set(refits) == {(True, True), (False, False)}


def test_a_study_refits_when_there_is_news_at_r_max(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, bool]] = []
    suggest = mfgp.suggest

    def watched(surrogate: Any, **arguments: Any) -> mfgp.Suggestion:
        asked.append((len(arguments["y"]), int(np.sum(arguments["r"] > 8 / 9)), bool(arguments["refit"])))
        return suggest(surrogate, **arguments)

    monkeypatch.setattr(mfgp, "suggest", watched)
    benchmark = Curves(num_floats=2, num_ints=0, num_categoricals=0, r_max=9)
    surrogate = mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10)
    settings: dict[str, Any] = dict(num_init_random=4, num_candidates=100, num_fantasies=4, refit_always_below=12, refit_on="r_max")
    scheduler = AsyncHyperband(TrialLimit(GPSearcher(benchmark.space, surrogate=surrogate, **settings), 30), r_min=1, r_max=9)
    for _ in run(scheduler, SimulatedBackend(benchmark, 2), Nothing()):
        pass
    late = [(now[2], now[1] > before[1]) for before, now in pairwise(asked) if now[0] >= 12]
    assert all(refitted == is_news for refitted, is_news in late)
    assert {refitted for refitted, _ in late} == {True, False}


def test_an_unknown_kind_of_news_is_refused() -> None:
    unknown: Any = "final"
    with pytest.raises(ValueError, match="searcher.refit_on=final is unknown: choose one of any, r_max"):
        GPSearcher(ConfigurationSpace({"x": (0.0, 1.0)}), surrogate=mfgp.exp_decay(), refit_on=unknown)


def test_what_arrives_while_an_answer_is_late_is_news_for_the_next() -> None:
    searcher = GPSearcher(mixed_space(), surrogate=mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10))
    history = History(LEVELS)
    for value in range(12):
        proposal = searcher.suggest(history, slot_of(history))
        assert proposal is not None
        add_trial(history, proposal, {1: float(value)})
        if value == 10:
            slot = slot_of(history)
            request = searcher.prepare(history, slot)
            assert isinstance(request, Request)
            answer = mfgp.suggest(searcher._surrogate, **request.arguments)
    proposal = searcher.conclude(history, slot, request, answer)
    assert proposal is not None and "11 observations" in proposal.note
    following = searcher.prepare(history, slot_of(history))
    assert isinstance(following, Request) and following.arguments["refit"]
