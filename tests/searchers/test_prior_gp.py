"""The prior's hand-over to the surrogate."""

from functools import partial

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace, Float

import mfgp
from schedulers.encoding import Encoding
from schedulers.searchers.gp import GPSearcher
from schedulers.searchers.prior_gp import PriorGuide
from schedulers.searchers.user_prior import Prior
from schedulers.types import Slot
from tests.searchers.spaces import R_MAX, play, slot_of

PRIOR = {"x": {"default": 0.9, "confidence": "high"}}


def line_space():
    space = ConfigurationSpace()
    space.add(Float("x", (0.0, 1.0)), Float("y", (0.0, 1.0)))
    return space


def searcher(**guide):
    guide = partial(PriorGuide, prior=PRIOR, **guide)
    return GPSearcher(
        line_space(), surrogate=mfgp.exp_decay(max_evaluations=15), num_init_random=5, num_candidates=200, num_fantasies=4, guide=guide
    )


def flat(config, r):
    return 1.0 / r


def test_the_acquisition_is_weighted_by_the_prior_to_the_power_beta_over_t():
    """On flat curves with a huge beta the choice is the prior's peak; with none the prior says nothing."""
    history = play(searcher(beta=1e6), 8, flat)
    chosen = [t.proposal.config["x"] for t in history.trials if t.proposal.source == "model"]
    assert len(chosen) == 3 and np.all(np.abs(np.array(chosen) - 0.9) < 0.05)
    free = play(searcher(beta=0.0, fraction=0.0), 12, lambda config, r: config["x"])
    chosen = [t.proposal.config["x"] for t in free.trials if t.proposal.source == "model"]
    assert len(chosen) == 7 and np.median(chosen) < 0.2


def test_scores_are_the_sum_of_log_improvement_and_log_weight():
    guide = PriorGuide(line_space(), prior=PRIOR, beta=7.0)
    encoding = Encoding(line_space())
    vectors = encoding.sample(30, np.random.default_rng(0))

    class Fixed:
        def log_improvement(self, rows):
            return rows[:, 1]

    scores, note = guide.scores(Fixed(), None, Slot(14, 0, 1, R_MAX), vectors, encoding.rows(vectors))
    np.testing.assert_allclose(scores, encoding.rows(vectors)[:, 1] + 0.5 * Prior(encoding, PRIOR).log_density(vectors))
    assert "0.5" in note


#       t    share of 1000 candidates with beta=10, fraction=0.8
SHARES = [(1, 800), (10, 800), (20, 400), (80, 100)]


@pytest.mark.parametrize("t, num", SHARES)
def test_the_priors_share_of_candidates_falls_as_its_weight_does(t, num):
    assert len(PriorGuide(line_space(), prior=PRIOR).candidates(1000, Slot(t, 0, 1, R_MAX))) == num


def test_a_misleading_prior_is_overcome():
    def metric(config, r):
        return (config["x"] - 0.1) ** 2 + 0.1 / r

    history = play(searcher(beta=2.0), 24, metric)
    assert np.median([t.proposal.config["x"] for t in history.trials[:5]]) > 0.6
    assert np.median([abs(t.proposal.config["x"] - 0.1) for t in history.trials[16:]]) < 0.1


def test_the_design_starts_at_the_mode_and_draws_from_the_prior():
    history = play(searcher(fraction=1.0), 5, flat)
    assert [t.proposal.source for t in history.trials] == ["prior"] * 5
    assert history.trials[0].proposal.config["x"] == pytest.approx(0.9)
    assert slot_of(history).trial_id == 5


@pytest.mark.parametrize("settings", [{"beta": -1.0}, {"fraction": 2.0}])
def test_a_bad_setting_is_named(settings):
    with pytest.raises(ValueError, match=rf"searcher\.guide\.{next(iter(settings))}="):
        searcher(**settings)
