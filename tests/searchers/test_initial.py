"""Initial designs: order, completion, repetitions, coverage."""

from functools import partial

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace, Float
from scipy.stats import qmc

from schedulers.encoding import Encoding
from schedulers.searchers.initial import InitialDesign
from schedulers.searchers.random import RandomSearcher
from tests.searchers.spaces import mixed_space, play, tiny_space


def design(space, num=None, **settings):
    searcher = InitialDesign(space, inner=partial(RandomSearcher, seed=5), **settings)
    trials = play(searcher, num or 100, lambda config, r: 0.0).trials
    return [t.proposal for t in trials]


DEFAULT = {"lr": 0.01, "drop": 0.45, "units": 16, "depth": 2, "op": "conv", "norm": True, "size": 1, "version": 3}


def test_defaults_come_first_then_the_points_completed_by_them_each_once_then_the_searcher():
    points = [{"op": "skip", "norm": False}, {"lr": 0.1}, {}, {"lr": 0.1, "depth": 2}]
    proposals = design(mixed_space(), 5, initial_points=points)
    skip = {name: value for name, value in DEFAULT.items() if name != "units"} | {"op": "skip", "norm": False}
    expected = [DEFAULT, skip, DEFAULT | {"lr": 0.1}]
    for proposal, config in zip(proposals, expected, strict=False):
        assert proposal.config == pytest.approx(config)
    assert [p.source for p in proposals] == ["default", "initial", "initial", "random", "random"]
    alone = play(RandomSearcher(mixed_space(), seed=5), 5, lambda config, r: 0.0)
    assert [p.config for p in proposals[3:]] == [t.proposal.config for t in alone.trials[3:]]


def test_the_first_point_can_be_the_users():
    proposals = design(mixed_space(), 2, initial_points=[{"lr": 0.1}], default_first=False)
    assert proposals[0].config["lr"] == pytest.approx(0.1) and proposals[0].source == "initial"


def test_sobol_points_cover_the_space_better_than_random_ones_and_depend_on_the_seed():
    space = ConfigurationSpace()
    space.add(*[Float(f"x{i}", (0.0, 1.0)) for i in range(3)])
    points = [np.array([[p.config[f"x{i}"] for i in range(3)] for p in design(space, 33, num_sobol=32, seed=s)[1:]]) for s in (0, 1)]
    for each in points:
        assert qmc.discrepancy(each) < 0.3 * np.mean([qmc.discrepancy(np.random.default_rng(i).random((32, 3))) for i in range(20)])
        assert all(np.bincount((each[:, i] * 4).astype(int)).tolist() == [8] * 4 for i in range(3))
    assert not np.allclose(*points)


def test_sobol_points_are_legal_distinct_and_as_many_as_asked_for():
    encoding = Encoding(mixed_space())
    proposals = design(mixed_space(), 31, num_sobol=30)
    vectors = np.array([encoding.vector(p.config) for p in proposals])
    assert [p.source for p in proposals] == ["default"] + ["initial"] * 30
    assert encoding.is_legal(vectors).all() and len(set(encoding.keys(vectors))) == 31


def test_a_space_smaller_than_the_design_is_exhausted_without_repetition():
    proposals = design(tiny_space(), num_sobol=20)
    assert len(proposals) == len({str(sorted(p.config.items())) for p in proposals}) == 5


MISTAKES = [
    ({"rate": 1}, "names 'rate', which the space does not have"),
    ({"lr": 7.0}, "lr=7.0 is not a legal value"),
    ({"op": "skip", "units": 16}, "units is inactive"),
    ({"op": "pool", "norm": True}, "forbidden"),
    (3, "no mapping"),
]


@pytest.mark.parametrize("point, sentence", MISTAKES)
def test_a_point_that_is_not_of_the_space_is_one_sentence(point, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        design(mixed_space(), 1, initial_points=[point])
    assert "\n" not in str(caught.value)
