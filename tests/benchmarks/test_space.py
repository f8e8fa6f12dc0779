"""A space in YAML means what ConfigSpace says it means, and each mistake is one sentence that names the parameter."""

import os
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from ConfigSpace import (
    Categorical,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    Float,
    ForbiddenAndConjunction,
    ForbiddenEqualsClause,
    InCondition,
    Integer,
    Normal,
    OrdinalHyperparameter,
)
from omegaconf import OmegaConf

from experiments.benchmarks.space import build_space

RATE = {"type": "uniform_float", "name": "rate", "lower": 1e-6, "upper": 1.0, "log": True}
UNITS = {"type": "uniform_int", "name": "units", "lower": 16, "upper": 1024, "log": True, "default_value": 128}


def rich_space() -> ConfigurationSpace:
    space = ConfigurationSpace(name="rich")
    optimiser = Categorical("optimiser", ["sgd", "adam", "lamb"], weights=[1, 2, 3])
    momentum = Float("momentum", (0.0, 0.99))
    layers = Integer("layers", (1, 5), default=2)
    width = OrdinalHyperparameter("width", [16, 64, 256])
    rate = Float("rate", (1e-6, 1.0), distribution=Normal(0.1, 0.2))
    space.add([optimiser, momentum, layers, width, rate, Constant("seed", 3)])
    space.add([EqualsCondition(momentum, optimiser, "sgd"), InCondition(width, layers, [2, 3])])
    space.add(ForbiddenAndConjunction(ForbiddenEqualsClause(optimiser, "lamb"), ForbiddenEqualsClause(layers, 5)))
    return space


def test_a_space_survives_the_way_through_a_yaml_file(tmp_path: Path) -> None:
    space = rich_space()
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(_lists(space.to_serialized_dict())))
    assert build_space(str(path)) == space
    assert build_space(path) == space


def test_a_space_survives_the_way_through_omegaconf_and_the_container_is_left_alone() -> None:
    container = OmegaConf.create(_lists(rich_space().to_serialized_dict()))
    before = OmegaConf.to_container(container)
    assert build_space(container) == rich_space()
    assert build_space(container.copy()) == rich_space()
    assert OmegaConf.to_container(container) == before


def test_names_may_be_keys_and_null_removes_a_parameter() -> None:
    by_name = {name: {k: v for k, v in item.items() if k != "name"} for name, item in (("rate", RATE), ("units", UNITS))}
    assert build_space({"hyperparameters": by_name}) == build_space({"hyperparameters": [RATE, UNITS]})
    assert list(build_space({"hyperparameters": {**by_name, "units": None}})) == ["rate"]


def test_a_number_in_exponent_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("hyperparameters: [{type: uniform_float, name: rate, lower: 1e-6, upper: 1, log: true}]")
    assert build_space(path)["rate"].lower == 1e-6


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, "it is empty"),
        ({"hyperparameters": []}, "it is empty"),
        ({"hyperparameters": 3}, "`hyperparameters` must be a list"),
        ({"hyperparameters": [3]}, "must be a mapping of fields"),
        (None, "expected a mapping"),
        ([RATE], "expected a mapping"),
        ({"parameters": [RATE]}, "unknown key 'parameters'"),
        ({"hyperparameters": [{**RATE, "name": None}]}, "has no `name`"),
        ({"hyperparameters": [{**RATE, "lower": 2.0}]}, "'rate': lower=2.0 must be below upper=1.0"),
        ({"hyperparameters": [{**RATE, "lower": 1.0}]}, "'rate': lower=1.0 must be below upper=1.0"),
        ({"hyperparameters": [{**RATE, "lower": 0}]}, "'rate': lower=0 must be positive because the range is logarithmic"),
        ({"hyperparameters": [{**UNITS, "lower": -3}]}, "'units': lower=-3 must be positive"),
        ({"hyperparameters": [{**UNITS, "default_value": 1025}]}, r"'units': default_value=1025 lies outside \[16, 1024\]"),
        ({"hyperparameters": [{**UNITS, "lower": 16.5}]}, "'units': lower=16.5 must be a whole number"),
        ({"hyperparameters": [{**RATE, "upper": float("nan")}]}, "'rate': upper=nan must be a finite number"),
        ({"hyperparameters": [{**RATE, "upper": "one"}]}, "'rate': upper='one' must be a finite number"),
        ({"hyperparameters": [{**RATE, "upper": True}]}, "'rate': upper=True must be a finite number"),
        ({"hyperparameters": [{**RATE, "type": "float"}]}, "'rate': unknown type 'float'; valid are uniform_float, uniform_int"),
        ({"hyperparameters": [{**RATE, "low": 3}]}, "'rate': unknown field 'low'"),
        ({"hyperparameters": [{"type": "uniform_float", "name": "rate", "lower": 0}]}, "'rate': a uniform_float needs the field 'upper'"),
        ({"hyperparameters": [RATE, UNITS, RATE]}, "'rate' occurs 2 times"),
        ({"hyperparameters": [{"type": "categorical", "name": "c", "choices": []}]}, "'c': `choices` must be a list of at least one"),
        ({"hyperparameters": [{"type": "categorical", "name": "c", "choices": "ab"}]}, "'c': `choices` must be a list"),
        ({"hyperparameters": [{"type": "categorical", "name": "c", "choices": ["a"], "default_value": "b"}]}, "'c': .*not in"),
        ({"hyperparameters": [{"type": "ordinal", "name": "c", "sequence": [1, 2], "default_value": 5}]}, "'c': .*not in"),
        ({"hyperparameters": [{"type": "constant", "name": "c", "value": 1}]}, "every parameter is a constant"),
        ({"hyperparameters": [RATE], "conditions": [{"type": "EQ", "child": "rate", "parent": "x", "value": 1}]}, "parameter 'x'"),
        ({"hyperparameters": [RATE, UNITS], "conditions": [{"type": "IS", "child": "rate", "parent": "units"}]}, "no valid type"),
        ({"hyperparameters": [RATE, UNITS], "conditions": [{"type": "EQ", "child": "rate", "parent": "units"}]}, "its conditions"),
        ({"hyperparameters": [RATE], "forbiddens": [{"type": "AND", "clauses": [{"type": "EQUALS", "name": "x"}]}]}, "parameter 'x'"),
        ({"hyperparameters": [RATE], "forbiddens": {"type": "EQUALS"}}, "must be a list"),
    ],
)
def test_a_mistake_is_one_sentence(spec: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        build_space(spec)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml' does not exist"):
        build_space(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("hyperparameters: [a, {")
    with pytest.raises(ValueError, match="cannot be read as YAML") as caught:
        build_space(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("MFGP_DATA_DIR" not in os.environ, reason="MFGP_DATA_DIR names no folder with other tools' files")
def test_the_conditional_space_of_another_tool_carries_over() -> None:
    space = build_space(Path(os.environ["MFGP_DATA_DIR"]) / "yahpo" / "nb301" / "config_space.json")
    assert (len(space), len(space.conditions)) == (35, 24)


def _lists(value: object) -> object:
    """YAML and OmegaConf know lists, ConfigSpace writes tuples."""
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
