"""PriorBand's mixture against the published table, hand-computed scores and the laws of its mutations."""

import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from scipy import stats

from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.priorband import PriorBandSearcher, base_weights, bracket_cost, mutations
from schedulers.searchers.user_prior import Prior
from schedulers.types import Slot
from tests.searchers.spaces import LEVELS, MIXED_PRIOR, R_MAX, add_trial, mixed_space, slot_of


def line_space():
    space = ConfigurationSpace()
    space.add(Float("x", (0.0, 1.0)))
    return space


def searcher(space=None, prior=None, **settings):
    return PriorBandSearcher(space or line_space(), prior=prior or {"x": {"default": 0.2, "confidence": "high"}}, **settings)


#        t  random  rest, eta = 3
TABLE = [(0, 0.5, 0.5), (1, 0.25, 0.75), (2, 0.1, 0.9), (3, 0.0357, 0.9643)]


@pytest.mark.parametrize("t, random, rest", TABLE)
def test_the_base_weights_are_the_published_ones(t, random, rest):
    np.testing.assert_allclose(base_weights(t, 3), (random, rest), atol=5e-5)
    history = History((1, 3, 9, 27))
    shares, _ = searcher().shares(history, Slot(0, t, history.levels[t], 27))
    np.testing.assert_allclose(shares, (random, rest, 0.0), atol=5e-5)


#        levels          sizes x increments
COSTS = [
    ((1, 3, 9, 27), 27 * 1 + 9 * 2 + 3 * 6 + 1 * 18),
    ((1, 3, 9), 9 * 1 + 3 * 2 + 1 * 6),
    ((9,), 9),
]


@pytest.mark.parametrize("levels, expected", COSTS)
def test_the_cost_of_the_lowest_bracket(levels, expected):
    assert bracket_cost(levels, 3) == expected


def test_the_incumbent_counts_after_one_bracket_and_one_full_run_not_before():
    history, priorband = History(LEVELS), searcher()
    add_trial(history, {"x": 0.9}, {1: 0.5, 3: 0.4, 9: 0.3})
    add_trial(history, {"x": 0.8}, {1: 0.5, 3: 0.5, 9: 0.5})
    assert priorband.shares(history, slot_of(history))[0].incumbent == 0  # 18 of 21
    for i in range(2):
        add_trial(history, {"x": 0.1 * i}, {1: 1.0})
    assert priorband.shares(history, slot_of(history))[0].incumbent == 0  # 20 of 21
    add_trial(history, {"x": 0.7}, {1: 1.0})
    assert priorband.shares(history, slot_of(history))[0].incumbent > 0
    other = History(LEVELS)
    for i in range(30):
        add_trial(other, {"x": i / 30}, {1: 1.0})
    assert searcher().shares(other, slot_of(other))[0].incumbent == 0  # enough spent, nothing at r_max


def test_prior_and_incumbent_share_by_the_rank_weighted_densities_of_the_best():
    """Six results at the lowest rung, of which the best three count with weights 3, 2, 1; two results at r_max are too few."""
    history = History(LEVELS)
    for x, metrics in [
        (0.90, {1: 0.1, 3: 0.11, 9: 0.12}),
        (0.15, {1: 0.2, 3: 0.2, 9: 0.2}),
        (0.70, {1: 0.05}),
        (0.50, {1: 0.8}),
        (0.40, {1: 0.9}),
        (0.30, {1: np.nan}),
    ]:
        add_trial(history, {"x": x}, metrics)
    shares, _ = searcher().shares(history, slot_of(history, bracket=1))
    law = {m: stats.truncnorm(-m / 0.125, (1 - m) / 0.125, m, 0.125) for m in (0.2, 0.7)}  # 0.7 has the lowest metric anywhere
    by_prior, by_incumbent = (3 * law[m].pdf(0.7) + 2 * law[m].pdf(0.9) + 1 * law[m].pdf(0.15) for m in (0.2, 0.7))
    expected = 0.75 * np.array([by_prior, by_incumbent]) / (by_prior + by_incumbent)
    np.testing.assert_allclose(shares, (0.25, *expected), rtol=1e-9)


def test_the_highest_rung_with_eta_results_decides():
    history = History(LEVELS)
    for x, metric in [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.4)]:
        add_trial(history, {"x": x}, {1: 1 - metric, 3: 1 - metric, 9: metric})
    for x in (0.2, 0.21, 0.22, 0.23):
        add_trial(history, {"x": x}, {1: 0.15})
    shares, why = searcher().shares(history, slot_of(history))
    assert "rung 9" in why and shares.incumbent > 0.49


def test_without_a_rung_of_eta_results_the_prior_gets_eta_parts_and_the_incumbent_one():
    history = History((R_MAX,))
    add_trial(history, {"x": 0.5}, {R_MAX: 0.1})
    shares, _ = searcher().shares(history, slot_of(history))
    np.testing.assert_allclose(shares, (0.5, 0.5 * 3 / 4, 0.5 * 1 / 4))


def test_products_of_many_densities_do_not_underflow():
    space = ConfigurationSpace()
    space.add(*[Float(f"x{i}", (0.0, 1.0)) for i in range(300)])
    prior = {f"x{i}": {"default": 0.0, "confidence": "ultra"} for i in range(300)}
    priorband = searcher(space, prior)
    history = History((R_MAX,))
    for value in (0.9, 0.95, 0.99, 0.999):  # each density is about e^-160
        add_trial(history, {f"x{i}": value for i in range(300)}, {R_MAX: value})
    shares, _ = priorband.shares(history, slot_of(history))
    np.testing.assert_allclose(shares, (0.5, 0.0, 0.5), atol=1e-12)


def test_draws_follow_the_shares():
    """Each source's share of 600 first suggestions after one history, seed by seed."""
    history = History(LEVELS)
    for x, metric in [(0.45, 0.1), (0.5, 0.2), (0.3, 0.3)]:
        add_trial(history, {"x": x}, {1: metric, 3: metric, 9: metric})
    shares = searcher().shares(history, slot_of(history))[0]
    sources = [searcher(seed=seed).suggest(history, slot_of(history)).source for seed in range(600)]
    counts = [sources.count(name) for name in ("random", "prior", "incumbent")]
    assert min(shares) > 0.05
    assert stats.chisquare(counts, np.array(shares) * 600).pvalue > 1e-3


def test_mutations_change_half_of_the_hyperparameters_within_the_range():
    space = ConfigurationSpace()
    space.add(Float("x", (1e-3, 1.0), log=True), Integer("n", (1, 1000)), Categorical("c", ["a", "b", "c", "d"]))
    encoding = Encoding(space)
    prior = Prior(encoding, {"x": {"default": 0.1}})
    incumbent = encoding.vector({"x": 0.9, "n": 500, "c": "b"})
    drawn = mutations(encoding, prior, incumbent, 4000, np.random.default_rng(0))
    configs = encoding.configs(drawn)
    for name, value in (("x", 0.9), ("n", 500), ("c", "b")):
        num_changed = sum(config[name] != pytest.approx(value) for config in configs)
        # An integer's step of 0.25 of the range is rounded to 0 in about one case of 600.
        assert stats.binomtest(num_changed, 4000, 0.5).pvalue > 1e-3
    moved = np.array([1 - np.log(c["x"]) / np.log(1e-3) for c in configs if c["x"] != pytest.approx(0.9)])
    mean = 1 - np.log(0.9) / np.log(1e-3)
    assert stats.kstest(moved, stats.truncnorm(-mean / 0.25, (1 - mean) / 0.25, mean, 0.25).cdf).pvalue > 1e-3
    others = [c["c"] for c in configs if c["c"] != "b"]
    assert stats.chisquare([others.count(c) for c in "acd"]).pvalue > 1e-3


def test_mutations_of_a_conditional_incumbent_are_legal_and_new():
    history, priorband = History((R_MAX,)), searcher(mixed_space(), MIXED_PRIOR)
    encoding = Encoding(mixed_space())
    config = {"lr": 0.5, "drop": 0.1, "depth": 1, "op": "skip", "norm": False, "size": 5, "version": 3}
    add_trial(history, config, {R_MAX: 0.1})
    sources = set()
    for _ in range(60):
        proposal = priorband.suggest(history, slot_of(history))
        sources.add(proposal.source)
        vector = encoding.vector(proposal.config)[None]
        assert encoding.is_legal(vector)[0]
        assert np.array_equal(np.isnan(encoding.deactivate(np.nan_to_num(vector))), np.isnan(vector))
        assert proposal.config not in [trial.proposal.config for trial in history.trials]
        add_trial(history, proposal, {R_MAX: 0.2})
    assert sources == {"random", "prior", "incumbent"}
