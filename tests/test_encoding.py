"""The arrays of a space against ConfigSpace itself, and the encoding rules by hand."""

import numpy as np
import pytest
from ConfigSpace import (
    Categorical,
    Configuration,
    ConfigurationSpace,
    Constant,
    Float,
    ForbiddenAndConjunction,
    ForbiddenEqualsClause,
    ForbiddenInClause,
    GreaterThanCondition,
    InCondition,
    Integer,
    NormalFloatHyperparameter,
    OrdinalHyperparameter,
)

from schedulers.encoding import Encoding


def full_space():
    space = ConfigurationSpace()
    space.add(Float("lr", (1e-6, 1), log=True), Integer("b", (8, 128), log=True), Categorical("act", ["a", "b", "c"], weights=[1, 2, 3]))
    space.add(Constant("k", 3), OrdinalHyperparameter("o", [1, 2, 5]), NormalFloatHyperparameter("n", mu=0.0, sigma=1.0, lower=-3, upper=3))
    space.add(Categorical("t", [True, False]), Integer("z", (1, 3)))
    space.add(InCondition(space["b"], space["act"], ["a", "b"]), GreaterThanCondition(space["z"], space["b"], 9))
    space.add(ForbiddenAndConjunction(ForbiddenEqualsClause(space["act"], "a"), ForbiddenInClause(space["o"], [1, 2])))
    return space


@pytest.fixture(scope="module")
def encoding():
    return Encoding(full_space())


@pytest.fixture(scope="module")
def drawn(encoding):
    return encoding.sample(1500, np.random.default_rng(0))


def test_every_draw_is_a_legal_configuration(encoding, drawn):
    assert len(drawn) == 1500
    for config in encoding.configs(drawn[:300]):
        Configuration(encoding.space, values=config)  # ConfigSpace checks conditions and forbidden clauses


def test_each_coordinate_has_the_hyperparameter_that_moves_it(encoding, drawn):
    owners, rows = np.array(encoding.owners()), encoding.rows(drawn)
    assert len(owners) == encoding.dim and "k" not in {list(encoding.space)[owner] for owner in owners}
    for column in encoding.columns:
        same = encoding.rows(drawn[:200]) == encoding.rows(np.where(np.arange(drawn.shape[1]) == column.index, drawn[200:400], drawn[:200]))
        assert same[:, owners != column.index].all()
    assert rows.shape[1] == len(owners)


def test_rows_and_vectors_are_inverse_to_each_other(encoding, drawn):
    rows = encoding.rows(drawn)
    assert rows.shape == (1500, encoding.dim) and rows.min() >= 0 and rows.max() <= 1
    np.testing.assert_allclose(encoding.vectors(rows), drawn, atol=1e-12)
    np.testing.assert_allclose([encoding.vector(config) for config in encoding.configs(drawn[:50])], drawn[:50], atol=1e-12)


def test_neighbours_are_legal_and_differ(encoding, drawn):
    rng = np.random.default_rng(1)
    for vector in drawn[:20]:
        near = encoding.neighbours(vector, 40, rng)
        for config in encoding.configs(near):
            Configuration(encoding.space, values=config)
        assert all(key != encoding.keys(vector[None])[0] for key in encoding.keys(near))


@pytest.mark.parametrize(
    ("parameter", "values", "coordinates"),
    [
        (Integer("p", (1, 5)), [1, 3, 5], [0.1, 0.5, 0.9]),
        (Integer("p", (16, 1024), log=True), [16, 1024], [0.0076, 0.9999]),
        (Float("p", (1e-4, 1.0), log=True), [1e-4, 1e-2, 1.0], [0.0, 0.5, 1.0]),
        (OrdinalHyperparameter("p", [1, 2, 5]), [1, 2, 5], [1 / 6, 1 / 2, 5 / 6]),
        (Categorical("p", ["x", "y"]), ["x", "y"], [0.25, 0.75]),
    ],
)
def test_single_coordinates_are_those_of_the_tables(parameter, values, coordinates):
    encoding = Encoding(ConfigurationSpace(space=[parameter]))
    rows = encoding.rows(np.array([encoding.vector({"p": value}) for value in values]))
    np.testing.assert_allclose(rows[:, 0], coordinates, atol=1e-4)


def test_three_categories_are_one_hot_and_a_constant_takes_no_room():
    encoding = Encoding(ConfigurationSpace({"c": ["x", "y", "z"], "k": 1}))
    assert encoding.dim == 3 and encoding.num_hyperparameters == 1
    np.testing.assert_array_equal(encoding.rows(encoding.vector({"c": "y", "k": 1})[None]), [[0, 1, 0]])


def test_an_inactive_parameter_sits_at_its_default_with_its_activity_bit_off(encoding):
    off = encoding.vector({"act": "c", "k": 3, "lr": 0.1, "o": 5, "n": 0.0, "t": True})
    on = encoding.vector({"act": "b", "k": 3, "lr": 0.1, "o": 5, "n": 0.0, "t": True, "b": int(encoding.space["b"].default_value), "z": 2})
    a, b = encoding.rows(np.array([off, on]))
    bits = np.flatnonzero(a != b)
    # the category changes in two coordinates; b and z are both at their defaults, so of them only the two bits differ
    assert len(bits) == 4
    assert not encoding.free(off[None])[0, bits].any()


def test_integers_are_drawn_with_the_full_mass_of_their_ends():
    encoding = Encoding(ConfigurationSpace(space=[Integer("p", (1, 4))]))
    values = [config["p"] for config in encoding.configs(encoding.sample(8000, np.random.default_rng(0)))]
    np.testing.assert_allclose(np.bincount(values)[1:] / 8000, 0.25, atol=0.02)


def test_enumeration_gives_each_legal_configuration_once():
    space = ConfigurationSpace({"a": (1, 4), "c": ["x", "y", "z"], "d": [True, False]})
    space.add(InCondition(space["d"], space["c"], ["x"]), ForbiddenEqualsClause(space["a"], 4))
    encoding = Encoding(space)
    configs = [tuple(sorted(config.items(), key=str)) for config in encoding.configs(encoding.enumerate())]
    assert len(configs) == len(set(configs)) == 3 * (2 + 1 + 1)


def test_a_configuration_of_another_space_is_refused_by_name(encoding):
    with pytest.raises(ValueError, match="momentum"):
        encoding.vector({"momentum": 0.9})
    with pytest.raises(ValueError, match="lr=7"):
        encoding.vector({"lr": 7.0})
