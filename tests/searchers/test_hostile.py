"""Metrics that no well-behaved benchmark reports: every suggestion of the model is legal, new and finite, and none raises."""

import math

import numpy as np
import pytest
from ConfigSpace import Configuration

import mfgp
from mfgp.surrogates import alone
from schedulers.encoding import Encoding
from schedulers.history import History, State
from schedulers.searchers.gp import GPSearcher
from tests.searchers.spaces import LEVELS, add_trial, mixed_space, slot_of

METRICS = {
    "constant": lambda rng, r: 0.25,
    "tiny": lambda rng, r: 1e-12 * rng.random(),
    "denormal": lambda rng, r: 1e-310 * rng.random(),
    "huge": lambda rng, r: 1e12 + 1e12 * rng.random(),
    "largest": lambda rng, r: 1e300 * rng.choice([-1.0, 1.0]),
    "two values": lambda rng, r: float(rng.integers(2)),
    "mostly diverged": lambda rng, r: rng.random() if rng.random() < 0.3 else math.nan,
    "heavy tails": lambda rng, r: 1e6 * rng.standard_cauchy(),
    "rising": lambda rng, r: r**3 + 1e-9 * rng.random(),
    "one outlier": lambda rng, r: rng.random() if rng.random() < 0.95 else 1e15,
    "infinite": lambda rng, r: math.inf if rng.random() < 0.2 else rng.random(),
}
SURROGATES = {
    "exp_decay": mfgp.exp_decay,
    "matern per rung": lambda **options: mfgp.matern(targets="per_rung", **options),
    "coregional copula": lambda **options: mfgp.coregional(targets="copula", **options),
    "freeze_thaw": mfgp.freeze_thaw,
    "independent": mfgp.independent,
    "matern_warped": lambda **options: mfgp.matern_warped(input_warping=True, **options),
    "exp_decay delta 1": lambda **options: mfgp.exp_decay(delta=1.0, **options),
}
NUM_TRIALS = 34


def suggestions(surrogate, metric, seed):
    """The number of the model's suggestions along one study; what must hold for each is asserted."""
    rng = np.random.default_rng(seed)
    space = mixed_space()
    encoding = Encoding(space)
    searcher = GPSearcher(space, surrogate=surrogate, seed=seed, num_init_random=4, num_candidates=64, num_fantasies=3)
    history, seen, num = History(LEVELS), set(), 0
    for _ in range(NUM_TRIALS):
        proposal = searcher.suggest(history, slot_of(history))
        assert proposal is not None
        Configuration(space, values=proposal.config)  # ConfigSpace checks what is legal
        key = encoding.keys(encoding.vector(proposal.config)[None])[0]
        assert key not in seen, f"trial {len(history.trials)} repeats a configuration"
        seen.add(key)
        if proposal.state is not None:
            num += 1
            fitted = proposal.state["hyperparameters"]
            for optimum in (alone(fitted), fitted.get("runner_up", {})):
                assert all(np.all(np.isfinite(value)) for name, value in optimum.items() if name != "levels")
        reach = rng.choice([0, *LEVELS])  # 0: still running, pending
        if reach == 0:
            history.launch(proposal, 0, LEVELS[0], LEVELS[-1])
        else:
            add_trial(history, proposal, {r: METRICS[metric](rng, r) for r in LEVELS if r <= reach})
        running = [trial for trial in history.trials if trial.state is State.RUNNING]
        if len(running) > 6:  # as many as there are workers
            history.end(running[0].trial_id, State.FAILED)
    return num


@pytest.mark.parametrize(("surrogate", "first"), [("exp_decay", 0), ("matern per rung", 1), ("coregional copula", 2)])
def test_hostile_metrics_leave_every_suggestion_legal_new_and_finite(surrogate, first):
    """About 300 in all: each surrogate has every third metric."""
    family = SURROGATES[surrogate](restarts=1, escapes=1, max_evaluations=8)
    assert sum(suggestions(family, metric, seed) for seed, metric in enumerate(list(METRICS)[first::3])) >= 75


@pytest.mark.soak
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_ten_thousand_hostile_suggestions_leave_none_illegal_or_repeated(surrogate):
    family, num, seed = SURROGATES[surrogate](), 0, 100
    while num < 10_000 / len(SURROGATES):
        num += suggestions(family, list(METRICS)[seed % len(METRICS)], seed)
        seed += 1
