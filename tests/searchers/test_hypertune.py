"""Hyper-Tune's trust by hand and on curves whose lower levels mislead or not."""

from functools import partial

import numpy as np
import pytest

import mfgp
from experiments.benchmarks.synthetic import Curves
from experiments.simulation import Nothing
from mfgp.query import Belief
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.history import History
from schedulers.run import run
from schedulers.rungs import bracket_weights
from schedulers.searchers.gp import GPSearcher
from schedulers.searchers.hypertune import HyperTuneGuide, Trust, adapted_weights, ensemble, ranking_loss, share_of_wins
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.wrappers import TrialLimit
from tests.searchers.spaces import LEVELS, add_trial, mixed_space, play, slot_of

SURROGATE = mfgp.exp_decay(max_evaluations=15)


def guide(**settings):
    return HyperTuneGuide(mixed_space(), surrogate=SURROGATE, brackets=3, **settings)


def observed(lowest, num=24):
    """A history where 1, 3 and 9 are reached by all; `lowest(value, rng)` is seen at r = 1 and 3, value at 9."""
    rng, history = np.random.default_rng(0), History(LEVELS)
    random = RandomSearcher(mixed_space(), seed=1)
    for _ in range(num):
        proposal = random.suggest(history, slot_of(history))
        value = proposal.config["drop"] + 0.3 * proposal.config["depth"]
        add_trial(history, proposal, {1: lowest(value, rng), 3: lowest(value, rng), 9: value})
    return history


def test_the_ranking_loss_counts_discordant_pairs():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    draws = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 1, 3, 4]])
    np.testing.assert_allclose(ranking_loss(draws, y), [0, 1, 1 / 6])


def test_ties_count_for_all_that_tie():
    losses = np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.1]])  # wins: 2 and 2
    np.testing.assert_allclose(share_of_wins(losses), [0.5, 0.5])
    np.testing.assert_allclose(share_of_wins(np.array([[0.1, 0.2], [0.2, 0.3]])), [1.0, 0.0])


def test_brackets_share_the_mass_of_supported_levels_by_trust_over_resource():
    """Levels 1, 3, 9, 27; 1 and 3 are supported, so 9 and 27 keep theirs."""
    law = bracket_weights((1, 3, 9, 27), 4)
    weights = adapted_weights(law, (1, 3, 9, 27), Trust((1, 3), np.array([0.1, 0.9])))
    np.testing.assert_allclose(weights[2:], law[2:])
    np.testing.assert_allclose(weights[:2], (law[0] + law[1]) * np.array([0.1, 0.3]) / 0.4)
    assert adapted_weights(law[:1], (1, 3, 9, 27), Trust((1, 3), np.array([0.0, 1.0]))) is None


def test_the_ensemble_adds_means_and_squared_shares_of_variances():
    one, two = Belief(np.array([[1.0, 2.0]]), np.array([1.0, 2.0])), Belief(np.array([[3.0, 0.0], [5.0, 0.0]]), np.array([2.0, 1.0]))
    whole = ensemble([one, None, two], np.array([0.25, 0.0, 0.75]))
    np.testing.assert_allclose(whole.mean, [[2.5, 0.5], [4.0, 0.5]])
    np.testing.assert_allclose(whole.std, np.sqrt([0.0625 * 1 + 0.5625 * 4, 0.0625 * 4 + 0.5625 * 1]))


def test_lower_levels_are_trusted_where_they_rank_alike_and_not_where_they_mislead():
    alike = guide().trust(observed(lambda value, rng: 2 * value + 1))
    opposite = guide().trust(observed(lambda value, rng: -value))
    assert alike.levels == opposite.levels == LEVELS
    assert alike.theta.sum() == pytest.approx(1) and alike.theta[:2].sum() > 0.5
    assert opposite.theta[2] > 0.95
    law = np.array(bracket_weights(LEVELS, 3))
    assert guide().bracket_weights(observed(lambda value, rng: -value))[2] > 5 * law[2]


def test_nothing_is_said_before_a_second_level_has_six_observations():
    history = History(LEVELS)
    for i in range(15):
        proposal = RandomSearcher(mixed_space(), seed=2).suggest(history, slot_of(history))
        add_trial(history, proposal, {1: float(i), 3: float(i)} if i < 5 else {1: float(i)})
    assert guide().bracket_weights(history) is None


def test_trust_is_a_function_of_the_history_whatever_was_asked_before():
    asked, fresh, history = guide(), guide(), observed(lambda value, rng: value, num=8)
    asked.trust(history)
    random = RandomSearcher(mixed_space(), seed=3)
    for i in range(8):
        proposal = random.suggest(history, slot_of(history))
        add_trial(history, proposal, {1: 0.1 * i, 3: 0.2 * i})
        asked.trust(history)
    assert np.array_equal(asked.trust(history).theta, fresh.trust(history).theta)


def test_the_searcher_improves_with_the_ensemble():
    make = partial(HyperTuneGuide, surrogate=SURROGATE, brackets=3)
    searcher = GPSearcher(mixed_space(), surrogate=SURROGATE, num_init_random=14, num_candidates=200, num_fantasies=4, guide=make)

    def metric(config, r):
        return config["drop"] + 0.2 / r

    history = play(searcher, 20, metric, reaches=lambda i: 9 if i % 2 else 3)
    late = history.trials[15:]
    assert any("trust" in t.proposal.note for t in late)
    assert np.median([t.proposal.config["drop"] for t in late]) < 0.15


@pytest.mark.parametrize("most", [3, 8])
def test_a_cap_that_leaves_nothing_of_a_trusted_level(most):
    """Trust is judged on all observations; the belief about a level that the cap has emptied counts for nothing."""
    benchmark = Curves(num_floats=2, num_ints=0, num_categoricals=0, r_max=9, noise=0)
    surrogate = mfgp.exp_decay(restarts=1, warm_restarts=0, escapes=0, max_evaluations=10)
    settings = dict(surrogate=surrogate, seed=1, num_init_random=4, num_candidates=100, num_fantasies=4, max_observations=most)
    searcher = GPSearcher(benchmark.space, **settings, guide=partial(HyperTuneGuide, surrogate=surrogate, brackets=1))
    proposals, conclude = [], searcher.conclude
    searcher.conclude = lambda *asked: proposals.append(conclude(*asked)) or proposals[-1]
    scheduler = AsyncHyperband(TrialLimit(searcher, 60), r_min=1, r_max=9)
    for _ in run(scheduler, SimulatedBackend(benchmark, 2), Nothing()):
        pass
    assert len(proposals) > 50
    assert any("trust 0.00 in r=1" in proposal.note for proposal in proposals)
