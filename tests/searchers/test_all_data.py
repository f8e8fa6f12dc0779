"""Studies whose surrogate sees every epoch: `searcher.data=all`."""

from typing import Any

import numpy as np
import pytest

import mfgp
from experiments.benchmarks.synthetic import Curves
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.run import run
from schedulers.searchers.gp import GPSearcher
from schedulers.searchers.wrappers import TrialLimit


class Journal:
    def append(self, event: Any) -> None: ...


def test_a_study_of_long_curves_sees_all_epochs_in_the_collapsed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, mfgp.Suggestion]] = []
    suggest = mfgp.suggest

    def watched(surrogate: Any, **arguments: Any) -> mfgp.Suggestion:
        seen.append((len(arguments["y"]), suggest(surrogate, **arguments)))
        return seen[-1][1]

    monkeypatch.setattr(mfgp, "suggest", watched)
    benchmark = Curves(num_floats=2, num_ints=0, num_categoricals=0, r_max=81, noise=0.01)
    surrogate = mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10)
    searcher = GPSearcher(benchmark.space, surrogate=surrogate, data="all", num_init_random=12, num_candidates=100, num_fantasies=4)
    scheduler = AsyncHyperband(TrialLimit(searcher, 15), r_min=1, r_max=81)
    for _ in run(scheduler, SimulatedBackend(benchmark, 2), Journal()):
        pass
    assert len(seen) == 3
    for num_observed, suggestion in seen:
        assert num_observed > 128 and suggestion.form.startswith("collapsed") and suggestion.form.endswith(f"{num_observed} observations")
        assert np.all(np.isfinite(suggestion.acquisition)) and np.isfinite(suggestion.loss)
