"""The capped data against the reference's procedure, written down as its description has it, over random histories."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mfgp
from experiments.benchmarks.synthetic import Curves
from experiments.simulation import Nothing
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.run import run
from schedulers.searchers.cap import BEST_SHARE, cap
from schedulers.searchers.gp import GPSearcher, Request
from schedulers.searchers.wrappers import TrialLimit

LEVELS = (1, 3, 9, 27)
# Of each trial: at how many levels it reported, and whether the first of them was skipped (another bracket).
histories = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40)


def levels_kept(trials: np.ndarray, resources: np.ndarray, most: int) -> dict[tuple[int, int], int]:
    """How many observations stay of the trials that reached a level, at each level: from the top level down, all data of the trials that
    reach it while they fit; of the first that do not, level by level from theirs down, until one must be cut."""
    kept, left = {}, most
    for top in reversed(LEVELS):
        group = [t for t in set(trials) if max(resources[trials == t]) == top]
        at = {r: sum(r in resources[trials == t] for t in group) for r in LEVELS}
        if sum(at.values()) <= left:
            kept |= {(top, r): n for r, n in at.items()}
            left -= sum(at.values())
            continue
        for r in reversed(LEVELS):
            kept[top, r] = min(left, at[r])
            left -= kept[top, r]
        break
    return kept


@given(histories, st.integers(1, 60), st.integers(0, 5))
def test_the_cap_keeps_what_the_description_says(drawn: list[tuple[int, bool]], most: int, seed: int) -> None:
    rows = [(t, r) for t, (num, skips) in enumerate(drawn) for r in LEVELS[int(skips) : num]]
    trials, resources = (np.array(column, int) for column in zip(*rows, strict=True)) if rows else (np.zeros(0, int),) * 2
    kept = cap(trials, resources, np.zeros(len(rows)), most, np.random.default_rng(seed))
    assert kept.sum() == min(most, len(rows))
    if len(set(resources)) < 2:
        return
    tops = np.array([max(resources[trials == t]) for t in trials])
    got = {(top, r): int(np.sum(kept & (tops == top) & (resources == r))) for top in LEVELS for r in LEVELS}
    wanted = levels_kept(trials, resources, most)
    assert {key: n for key, n in got.items() if n} == {key: n for key, n in wanted.items() if n}


def test_where_a_level_is_cut_every_trial_may_stay() -> None:
    trials, resources = np.arange(8), np.array([1] * 6 + [3] * 2)
    kept = sum(cap(trials, resources, np.zeros(8), 5, np.random.default_rng(seed)) for seed in range(300))
    assert np.all(kept[6:] == 300)
    assert np.all(np.abs(kept[:6] - 150) < 6 * np.sqrt(75))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.integers(1, 30))
def test_with_one_resource_the_best_quarter_stays(metrics: list[int], most: int) -> None:
    y = np.array(metrics, float)
    kept = cap(np.arange(len(y)), np.full(len(y), 9), y, most, np.random.default_rng(0))
    assert kept.sum() == min(most, len(y))
    best = np.sort(y)[: most // BEST_SHARE]
    assert all(np.sum(y[kept] == value) >= np.sum(best == value) for value in best)


@pytest.mark.parametrize("settings", [{"max_observations": 0}, {"max_observations": 10, "data": "all"}])
def test_a_cap_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"searcher\.max_observations="):
        GPSearcher(Curves(num_floats=2).space, surrogate=mfgp.exp_decay(), **settings)


def test_a_capped_searcher_fits_to_so_many_and_goes_on_refitting() -> None:
    benchmark = Curves(num_floats=2, num_ints=0, num_categoricals=0, r_max=9)
    surrogate = mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10)
    settings: dict[str, Any] = dict(num_init_random=4, num_candidates=100, num_fantasies=4, refit_always_below=8, refit_period=2)
    searcher = GPSearcher(benchmark.space, surrogate=surrogate, max_observations=12, **settings)
    seen: list[tuple[int, int, bool]] = []

    def answer(request: Request) -> mfgp.Suggestion:
        levels = {round(9 * float(r) + 0.5) for r in request.known.r}
        seen.append((len(request.known.y), max(levels), request.arguments["refit"]))
        return searcher._answer_alone(request)

    searcher.answer_with(answer)
    scheduler = AsyncHyperband(TrialLimit(searcher, 40), r_min=1, r_max=9)
    for _ in run(scheduler, SimulatedBackend(benchmark, 2), Nothing()):
        pass
    sizes, highest, refits = zip(*seen, strict=True)
    assert max(sizes) == 12 and sizes.count(12) > 10
    assert highest[-1] == 9
    assert any(refits[-10:])  # what is new is counted before it is capped
