"""Users' priors against quadrature, SciPy and frequencies."""

import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from scipy import stats

from schedulers.encoding import Encoding
from schedulers.history import History
from schedulers.searchers.prior import PriorSearcher
from schedulers.searchers.random import RandomSearcher
from schedulers.searchers.user_prior import Prior
from tests.searchers.spaces import LEVELS, MIXED_PRIOR, add_trial, mixed_space, play, slot_of


def one(hp, entry, **settings):
    space = ConfigurationSpace()
    space.add(hp)
    encoding = Encoding(space)
    return encoding, Prior(encoding, {hp.name: entry}, **settings)


def density(encoding, prior, values):
    return np.exp(prior.log_density(np.array([encoding.vector({next(iter(encoding.space)): value}) for value in values])))


#      scale     confidence  std of the range
STDS = [
    ("neps11", "low", 0.5),
    ("neps11", "medium", 0.25),
    ("neps11", "high", 0.125),
    ("neps11", "ultra", 0.05),
    ("neps26", "low", 0.75),
    ("neps26", "medium", 0.5),
    ("neps26", "high", 0.25),
]


@pytest.mark.parametrize("scale, confidence, std", STDS)
@pytest.mark.parametrize("default", [1e-5, 3e-3, 1.0])
def test_the_density_of_a_float_is_scipys_truncated_normal_and_integrates_to_one(scale, confidence, std, default):
    hp = Float("x", (1e-5, 1.0), log=True)
    encoding, prior = one(hp, {"default": default, "confidence": confidence}, prior_scale=scale)
    unit = np.linspace(0, 1, 2001)
    values = density(encoding, prior, np.exp(np.log(1e-5) * (1 - unit)).clip(1e-5, 1.0))
    mean = 1 - np.log(default) / np.log(1e-5)
    np.testing.assert_allclose(values, stats.truncnorm(-mean / std, (1 - mean) / std, mean, std).pdf(unit), rtol=1e-6)
    assert np.trapezoid(values, unit) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("confidence", ["low", "ultra"])
def test_the_masses_of_an_integer_sum_to_one_and_are_what_is_drawn(log, confidence):
    encoding, prior = one(Integer("x", (2, 40), log=log), {"default": 40, "confidence": confidence})
    values = np.arange(2, 41)
    edges = np.array([values - 0.5, values + 0.5])
    edges = np.log(edges) if log else edges
    width = (edges[1] - edges[0]) / (edges[1, -1] - edges[0, 0])
    masses = density(encoding, prior, values) * width
    assert masses.sum() == pytest.approx(1, abs=1e-7)
    assert np.all(np.isfinite(np.log(masses)))
    drawn = [config["x"] for config in encoding.configs(prior.sample(20000, np.random.default_rng(0)))]
    counts = np.bincount(drawn, minlength=41)[2:]
    common = masses * 20000 >= 5
    assert stats.chisquare(counts[common], masses[common] / masses[common].sum() * counts[common].sum()).pvalue > 1e-3
    assert counts[~common].sum() <= 10 + 2 * 20000 * masses[~common].sum()


def test_floats_are_drawn_from_their_density():
    encoding, prior = one(Float("x", (-2.0, 6.0)), {"default": 5.0, "confidence": "high"})
    drawn = np.array([config["x"] for config in encoding.configs(prior.sample(5000, np.random.default_rng(1)))])
    mean, std = 7 / 8, 0.125
    law = stats.truncnorm(-mean / std, (1 - mean) / std, mean, std)
    assert stats.kstest((drawn + 2) / 8, law.cdf).pvalue > 1e-3


#      scale     confidence  P(default) among 4
WEIGHTS = [
    ("neps11", "low", 2 / 5),
    ("neps11", "medium", 4 / 7),
    ("neps11", "high", 6 / 9),
    ("neps11", "ultra", 8 / 11),
    ("neps26", "low", 0.25),
    ("neps26", "medium", 0.5),
    ("neps26", "high", 0.75),
]


@pytest.mark.parametrize("scale, confidence, expected", WEIGHTS)
def test_a_default_category_has_the_published_weight(scale, confidence, expected):
    encoding, prior = one(Categorical("x", list("abcd")), {"default": "c", "confidence": confidence}, prior_scale=scale)
    probabilities = density(encoding, prior, list("abcd")) / 4
    np.testing.assert_allclose(probabilities, [(1 - expected) / 3] * 2 + [expected] + [(1 - expected) / 3])
    drawn = [config["x"] for config in encoding.configs(prior.sample(4000, np.random.default_rng(2)))]
    assert stats.chisquare([drawn.count(c) for c in "abcd"], probabilities * 4000).pvalue > 1e-3


def test_a_table_gives_exactly_its_probabilities_and_may_rule_a_choice_out():
    encoding, prior = one(Categorical("x", [1, 2, 3]), {"probabilities": {1: 0.7, 2: 0.3, 3: 0.0}})
    np.testing.assert_allclose(density(encoding, prior, [1, 2, 3]) / 3, [0.7, 0.3, 0.0], atol=1e-12)
    drawn = [config["x"] for config in encoding.configs(prior.sample(4000, np.random.default_rng(3)))]
    assert drawn.count(3) == 0
    assert stats.binomtest(drawn.count(1), 4000, 0.7).pvalue > 1e-3


def test_in_a_conditional_space_the_joint_density_averages_to_one_over_random_search():
    encoding = Encoding(mixed_space())
    spec = {name: entry for name, entry in MIXED_PRIOR.items() if name not in ("op", "norm")}  # what clauses forbid is independent of these
    prior = Prior(encoding, spec)
    weights = np.exp(prior.log_density(encoding.sample(20000, np.random.default_rng(4))))
    assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / np.sqrt(len(weights)))
    assert weights.std() > 0.3


def test_draws_are_legal_and_inactive_where_they_must_be():
    encoding = Encoding(mixed_space())
    drawn = Prior(encoding, MIXED_PRIOR).sample(500, np.random.default_rng(5))
    assert len(drawn) == 500 and encoding.is_legal(drawn).all()
    for config in encoding.configs(drawn):
        assert ("units" in config) == (config["op"] == "conv")


def test_a_moved_prior_peaks_at_the_new_place():
    encoding = Encoding(mixed_space())
    prior = Prior(encoding, MIXED_PRIOR)
    vectors = encoding.sample(200, np.random.default_rng(6))
    config = {"lr": 0.5, "drop": 0.1, "depth": 1, "op": "skip", "norm": False, "size": 5, "version": 3}
    there = encoding.vector(config)
    moved = prior.centred_at(there)
    assert moved.log_density(there[None])[0] >= moved.log_density(vectors[vectors[:, encoding.space.index_of["op"]] != 0]).max()
    assert prior.log_density(there[None])[0] < moved.log_density(there[None])[0]


def test_part_selects_architecture_or_hyperparameters():
    encoding = Encoding(mixed_space())
    vectors = encoding.sample(50, np.random.default_rng(7))
    joint, hp, arch = (Prior(encoding, MIXED_PRIOR, part=part).log_density(vectors) for part in ("joint", "hp", "arch"))
    np.testing.assert_allclose(joint, hp + arch)
    assert np.abs(hp).min() > 0 and set(np.round(np.exp(arch), 6)) == {1.8, 0.9, 0.3}


MISTAKES = [
    ({"rate": {"default": 1}}, "the space has no such hyperparameter"),
    ({"lr": {"default": 7.0}}, "prior.lr.default=7.0 is not a legal value"),
    ({"lr": {"default": 0.1, "confidence": "sure"}}, "prior.lr.confidence=sure is unknown"),
    ({"lr": 0.1}, "give either default"),
    ({"lr": {"probabilities": {"a": 1.0}}}, "only a hyperparameter with two or more categories has a table"),
    ({"op": {"probabilities": {"conv": 1.0}}}, "must give one number for each of conv, skip, pool"),
    ({"op": {"probabilities": {"conv": 0.9, "skip": 0.3, "pool": 0.1}}}, "with sum 1"),
    ({"version": {"default": 3}}, "a constant needs no prior"),
    ({}, "says nothing"),
]


@pytest.mark.parametrize("spec, sentence", MISTAKES)
def test_a_mistake_in_a_prior_is_one_sentence(spec, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        PriorSearcher(mixed_space(), prior=spec)
    assert "\n" not in str(caught.value)


def test_fraction_zero_is_random_search_and_the_rest_is_shared_with_it():
    space = mixed_space()
    random = play(RandomSearcher(space, seed=3, default_first=False), 40, lambda config, r: 0.0)
    none = play(PriorSearcher(space, prior=MIXED_PRIOR, fraction=0.0, mode_first=False, seed=3), 40, lambda config, r: 0.0)
    assert [t.proposal.config for t in none.trials] == [t.proposal.config for t in random.trials]
    half = play(PriorSearcher(space, prior=MIXED_PRIOR, fraction=0.5, mode_first=False, seed=3), 400, lambda config, r: 0.0)
    shared = [t.trial_id for t in half.trials if t.proposal.source == "random"]
    assert stats.binomtest(len(shared), 400, 0.5).pvalue > 1e-3
    assert all(half.trials[i].proposal.config == random.trials[i].proposal.config for i in shared if i < 40)


def test_the_first_trial_is_the_mode():
    searcher = PriorSearcher(mixed_space(), prior=MIXED_PRIOR | {"lr": {"default": 0.02}})
    history = History(LEVELS)
    proposal = searcher.suggest(history, slot_of(history))
    assert proposal.source == "prior" and proposal.config["lr"] == pytest.approx(0.02)
    assert (proposal.config["op"], proposal.config["units"], proposal.config["size"], proposal.config["norm"]) == ("conv", 32, 2, True)
    add_trial(history, proposal, {1: 0.0})
    assert searcher.suggest(history, slot_of(history)).config != proposal.config


def test_a_forbidden_mode_is_not_proposed():
    spec = {"op": {"default": "pool"}, "norm": {"default": True}}
    encoding = Encoding(mixed_space())
    history = History(LEVELS)
    proposal = PriorSearcher(mixed_space(), prior=spec).suggest(history, slot_of(history))
    assert encoding.is_legal(encoding.vector(proposal.config)[None])[0]
