"""Studies in lock step have the events that each of them has alone."""

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import mfgp
from experiments.lockstep import simulate_together, together
from experiments.overrides import composed
from experiments.simulation import simulate

SMALL = [
    "surrogate=matern",
    "searcher.num_candidates=32",
    "searcher.num_fantasies=4",
    "searcher.num_init_random=4",
    "searcher.refit_period=10",
]
BASE = ["backend=simulated", "benchmark=curves", "benchmark.r_max=9", "budget.trials=12", "budget.seconds=null", "brackets=2", "workers=3"]
CFG = composed([*BASE, *SMALL])


@pytest.fixture(scope="module")
def alone() -> dict[int, pa.Table]:
    return {seed: simulate(CFG, seed) for seed in range(5)}


@pytest.mark.parametrize(("seeds", "width"), [((0,), 1), ((0, 1), 2), ((4, 0, 2), 2), ((0, 1, 2, 3, 4), 5)])
def test_a_study_is_the_same_alone_and_in_any_company(
    alone: dict[int, pa.Table], seeds: tuple[int, ...], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = mfgp.suggest_many
    monkeypatch.setattr(
        mfgp, "suggest_many", lambda surrogate, requests, **more: sizes.append(len(requests)) or answer(surrogate, requests, **more)
    )
    for seed, table in zip(seeds, simulate_together(CFG, seeds, width), strict=True):
        assert table.equals(alone[seed])
    assert not alone[0].equals(alone[1])
    assert sum(sizes) == 8 * len(seeds) and max(sizes) == len(seeds)  # every trial but the four random ones


def test_a_surrogate_for_the_space_is_the_same_in_company() -> None:
    cfg = composed([*BASE, *SMALL, "surrogate=exp_decay_shared"])
    assert [table.equals(simulate(cfg, seed)) for seed, table in zip((0, 1), simulate_together(cfg, (0, 1), 2), strict=True)] == [True] * 2


def test_requests_of_all_that_still_run_are_answered_together() -> None:
    asked: list[list[Any]] = []

    def answer_all(requests: list[Any]) -> list[Any]:
        asked.append(requests)
        return [2 * request for request in requests]

    def study(number: int, ask: Callable[[Any], Any]) -> list[Any]:
        time.sleep(0.01 * (2 - number))  # they arrive in another order
        return [ask(10 * number + i) for i in range(number + 1)]

    assert together(3, study, answer_all) == [[0], [20, 22], [40, 42, 44]]
    assert asked == [[0, 10, 20], [11, 21], [22]]


def test_a_study_that_fails_ends_all_with_its_own_error() -> None:
    def study(number: int, ask: Callable[[Any], Any]) -> Any:
        if number == 1:
            raise ValueError("no such cell")
        return ask(number)

    with pytest.raises(ValueError, match="no such cell"):
        together(3, study, lambda requests: requests)

    def no_answer(requests: list[Any]) -> list[Any]:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        together(2, lambda number, ask: ask(number), no_answer)


def test_a_searcher_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="lock step is for searcher=gp"):
        simulate_together(composed([*BASE, "searcher=random"]), (0, 1), 2)
