"""DyHPO's scores against a direct computation, and the step-wise scheduler that follows them."""

import numpy as np
import pytest

import mfgp
from mfgp.query import believe, learn
from schedulers.encoding import Encoding
from schedulers.history import History, State
from schedulers.searchers.dyhpo import DyHPOSearcher
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.refits import checkpoint
from schedulers.stepwise import Stepwise
from schedulers.types import Decision, Proposal, Report
from tests.searchers.spaces import mixed_space, slot_of

SURROGATE = mfgp.exp_decay(max_evaluations=15)
LEVELS = (1, 2, 3, 4)


def searcher(**settings):
    return DyHPOSearcher(mixed_space(), surrogate=SURROGATE, num_candidates=40, num_fantasies=4, **settings)


def paused_history(num=6, seed=0):
    """Trials paused at levels 1, 2, 3, 1, 2, 3, ... and one running towards level 2."""
    rng, history = np.random.default_rng(seed), History(LEVELS)
    random = RandomSearcher(mixed_space(), seed=seed)
    for trial_id in range(num + 1):
        history.launch(random.suggest(history, slot_of(history)), 0, 1, 1)
        for r in range(1, 1 + (1 if trial_id == num else 1 + trial_id % 3)):
            if r > 1:
                history.promote(trial_id, r, r)
            history.observe(Report(trial_id, r, float(rng.random()) / r))
            history.pause(trial_id)
    history.promote(num, 2, 2)
    return history


def test_a_score_is_the_expected_improvement_at_the_next_level_on_the_best_value_observed_there():
    history, dyhpo = paused_history(), searcher()
    paused = [(i, 2 + i % 3) for i in range(6)]
    scores = np.array(dyhpo.score(history, paused))
    known = dyhpo._known(history)
    prefix = checkpoint(len(known.y), 4)
    hyperparameters = learn(SURROGATE, (0, prefix), known._replace(x=known.x[:prefix], r=known.r[:prefix], y=known.y[:prefix]))
    rows = Encoding(mixed_space()).rows(dyhpo._tried.vectors())
    at = np.array([(r - 0.5) / 4 for _, r in paused])
    belief = believe(SURROGATE, hyperparameters, (0, 7), known, rows[:6], at, num_fantasies=4)
    y = np.array(history.observed_metrics)
    z = (y - y.mean()) / y.std()
    resources = np.array(history.observed_resources)
    rng = np.random.default_rng(1)
    for i, (_, r) in enumerate(paused):
        best = z[resources == r].min() if r < 4 else z.min()  # nobody was at 4
        draws = belief.mean[:, i, None] + belief.std[i] * rng.standard_normal((4, 200_000))
        improvement = np.maximum(best - draws, 0).mean()
        if improvement > 1e-3:
            assert np.exp(scores[i]) == pytest.approx(improvement, rel=0.05)
        else:
            assert scores[i] < np.log(2e-3)


def test_the_new_configuration_is_scored_by_what_suggest_then_proposes():
    history, dyhpo = paused_history(), searcher()
    (score,) = dyhpo.score(history, [(7, 1)])
    proposal = dyhpo.suggest(history, slot_of(history))
    assert proposal.note == f"log expected improvement {score:.3g} at r=1"
    again = searcher()
    again.score(history, [(0, 2), (7, 1)])
    assert again.suggest(history, slot_of(history)) == proposal


def test_scores_are_a_function_of_the_history_whatever_was_asked_before():
    history, asked, fresh = paused_history(4), searcher(), searcher()
    asked.score(history, [(0, 2)])
    longer = paused_history(6)
    followed = searcher()
    followed.score(longer, [(1, 3), (7, 1)])
    followed.suggest(longer, slot_of(longer))
    assert followed.score(longer, [(0, 2), (7, 1)]) == fresh.score(longer, [(0, 2), (7, 1)])


#        n   checkpoints from 4: 4 5 7 9 12 15 19
POINTS = [(3, 0), (4, 4), (5, 5), (6, 5), (8, 7), (9, 9), (14, 12), (18, 15), (19, 19)]


@pytest.mark.parametrize("n, expected", POINTS)
def test_models_are_fitted_at_checkpoints_that_grow_geometrically(n, expected):
    assert checkpoint(n, 4) == expected


class Scored:
    """Prefers what `favourites` says, by trial id; the new one is "new"."""

    def __init__(self, limit=3):
        self.limit, self.favourites = limit, {}

    def suggest(self, history, slot):
        return None if slot.trial_id >= self.limit else Proposal({"x": slot.trial_id}, "random")

    def score(self, history, paused):
        return [self.favourites.get("new" if i == len(history.trials) else i, 0.0) for i, _ in paused]

    def bracket_weights(self, history):
        return None

    def recall(self, history, slot, proposal): ...


def test_the_highest_score_goes_on_by_one_step():
    scored = Scored()
    scheduler = Stepwise(scored, r_min=1, r_max=3, rank_probability=0.0)
    for i in range(3):
        job = scheduler.ask()  # ties go to the new one
        assert (job.trial_id, job.r_from, job.r_to) == (i, 0, 1)
        assert scheduler.tell(Report(i, 1, 0.5)).decision is Decision.PAUSE
    scored.favourites = {1: 2.0, 2: 1.0}
    first, second = scheduler.ask(), scheduler.ask()
    assert [(j.trial_id, j.r_from, j.r_to) for j in (first, second)] == [(1, 1, 2), (2, 1, 2)]
    assert scheduler.history.pending == {1: 2, 2: 2}
    assert scheduler.tell(Report(1, 2, 0.4)).decision is Decision.PAUSE
    assert (scheduler.ask().trial_id, scheduler.history.trials[1].r_to) == (1, 3)
    assert scheduler.tell(Report(1, 3, 0.3)).decision is Decision.STOP
    assert scheduler.history.trials[1].state is State.COMPLETED


def test_an_exhausted_space_leaves_the_paused_trials_and_then_nothing():
    scored = Scored(limit=1)
    scored.favourites = {"new": 9.0}
    scheduler = Stepwise(scored, r_min=1, r_max=3, rank_probability=0.0)
    scheduler.ask()
    assert scheduler.ask() is None
    scheduler.tell(Report(0, 1, 0.5))
    assert scheduler.ask().r_to == 2
    scheduler.tell(Report(0, 2, float("nan"), error="it diverged"))
    assert scheduler.history.trials[0].state is State.FAILED
    assert scheduler.ask() is None and not scheduler.history.pending


def test_a_searcher_without_scores_is_refused():
    with pytest.raises(ValueError, match="scheduler=stepwise needs a searcher that scores paused trials"):
        Stepwise(RandomSearcher(mixed_space()), r_min=1, r_max=3)


def test_by_rank_the_best_paused_trial_of_the_highest_level_that_passes_goes_on():
    scored = Scored(limit=20)
    scored.favourites = {"new": 9.0}
    scheduler = Stepwise(scored, r_min=1, r_max=3, rank_probability=1.0)
    metrics = [0.5, 0.3, 0.4, 0.1]
    assert scheduler.ask().trial_id == 0 and scheduler.ask().trial_id == 1  # nothing to promote yet
    for i in (0, 1):
        scheduler.tell(Report(i, 1, metrics[i]))
    job = scheduler.ask()
    assert (job.trial_id, job.r_to) == (1, 2)  # within the best floor(2 / 2)
    assert scheduler.ask().trial_id == 2  # trial 0 is behind
    scheduler.tell(Report(1, 2, 0.2))
    assert scheduler.ask().trial_id == 3  # floor(1 2 / 3) = 0 of level 2
    for i in (2, 3):
        scheduler.tell(Report(i, 1, metrics[i]))
    assert [(j.trial_id, j.r_to) for j in (scheduler.ask(), scheduler.ask())] == [(3, 2), (4, 1)]  # 0.1 0.3 | 0.4 0.5
    scheduler.tell(Report(3, 2, 0.6))
    assert [(j.trial_id, j.r_to) for j in (scheduler.ask(), scheduler.ask())] == [(1, 3), (5, 1)]


def test_good_curves_get_further():
    scheduler = Stepwise(searcher(num_init_random=8), r_min=1, r_max=4, rank_probability=0.5)

    def curve(config, r):
        return config["drop"] + 0.5 / r

    for _ in range(30):
        job = scheduler.ask()
        scheduler.tell(Report(job.trial_id, job.r_to, curve(job.config, job.r_to)))
    trials = scheduler.history.trials
    order = sorted(trials, key=lambda t: curve(t.proposal.config, 4))
    third = len(trials) // 3
    assert np.mean([t.r for t in order[:third]]) > np.mean([t.r for t in order[-third:]]) + 0.5
