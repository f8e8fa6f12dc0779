"""A search space in YAML: ConfigSpace's own serialised form, so that spaces, priors and conditions of other tools carry over.

ConfigSpace reports many mistakes by the name of a Python argument, some not at all; everything a person can get wrong in a YAML file
is therefore checked here first and answered with one sentence.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ConfigSpace import ConfigurationSpace, Constant
from ConfigSpace.read_and_write.dictionary import CONDITION_DECODERS, FORBIDDEN_DECODERS, HYPERPARAMETER_ENCODERS
from omegaconf import OmegaConf

from schedulers.types import Config

TYPES = {type_name: parameter_class for parameter_class, (type_name, _) in HYPERPARAMETER_ENCODERS.items()}
# Older versions of the format; ConfigSpace itself translates them.
LEGACY_FIELDS = {"default", "q", "probabilities"}


def build_space(spec: Any) -> ConfigurationSpace:
    """The space described by `spec`: a mapping, or the path of a YAML or JSON file that holds one.

    Keys: `hyperparameters`, `conditions`, `forbiddens` as `ConfigurationSpace.to_serialized_dict` writes them (`name` and versions may
    be missing). `hyperparameters` may also be a mapping name -> fields, so that a single field can be overridden on a command line.
    """
    if isinstance(spec, ConfigurationSpace):
        return spec
    plain = _plain(spec)
    unknown = set(plain) - {"hyperparameters", "conditions", "forbiddens", "name"} - {key for key in plain if key.endswith("version")}
    if unknown:
        raise ValueError(f"space: unknown key {sorted(unknown)[0]!r}; valid are hyperparameters, conditions, forbiddens, name")
    parameters = _as_list(plain.get("hyperparameters"))
    if not parameters:
        raise ValueError("space: it is empty; list at least one parameter under `hyperparameters`")
    for item in parameters:
        _check_parameter(item)
    names = [item["name"] for item in parameters]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(f"space: the parameter name {duplicates[0]!r} occurs {names.count(duplicates[0])} times; names must be unique")
    conditions, forbiddens = plain.get("conditions") or [], plain.get("forbiddens") or []
    _check_clauses("condition", conditions, names, set(CONDITION_DECODERS))
    _check_clauses("forbidden clause", forbiddens, names, set(FORBIDDEN_DECODERS))
    space = _decode({"name": plain.get("name"), "hyperparameters": parameters, "conditions": conditions, "forbiddens": forbiddens})
    if all(isinstance(parameter, Constant) for parameter in space.values()):
        raise ValueError("space: every parameter is a constant; at least one must vary")
    return space


def plain_values(config: Config) -> dict[str, Any]:
    """`config` as a dictionary of Python's own types, as a user's script and JSON expect them."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in config.items()}


def _plain(spec: Any) -> dict[str, Any]:
    """`spec` as a plain dictionary of its own (ConfigSpace's decoders consume what they are given)."""
    if isinstance(spec, str | Path):
        spec = _read(Path(spec))
    if OmegaConf.is_config(spec):
        spec = OmegaConf.to_container(spec, resolve=True)
    if not isinstance(spec, Mapping):
        raise ValueError(f"space: expected a mapping with the key `hyperparameters` or the path of a YAML file, got {spec!r}")
    return copy.deepcopy(dict(spec))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"space: the file {str(path)!r} does not exist (looked in {Path.cwd()})")
    try:
        # Not yaml.safe_load: it reads 1e-6 as a string, while the same text in a Hydra file is a number.
        return OmegaConf.load(path)
    except Exception as error:  # the parser's own family, OSError, UnicodeDecodeError
        raise ValueError(f"space: the file {str(path)!r} cannot be read as YAML: {' '.join(str(error).split())}") from error


def _as_list(parameters: Any) -> list[dict[str, Any]]:
    if isinstance(parameters, Mapping):
        return [{"name": name, **_fields(name, fields)} for name, fields in parameters.items() if fields is not None]
    if parameters is not None and not isinstance(parameters, list | tuple):
        raise ValueError(f"space: `hyperparameters` must be a list, or a mapping of names to fields; got {parameters!r}")
    return [dict(_fields("?", item)) for item in parameters or []]


def _fields(name: str, fields: Any) -> Mapping[str, Any]:
    if not isinstance(fields, Mapping):
        raise ValueError(f"space: parameter {name!r} must be a mapping of fields (type, lower, upper, ...); got {fields!r}")
    return fields


def _check_parameter(item: dict[str, Any]) -> None:
    if not isinstance(item.get("name"), str):
        raise ValueError(f"space: a parameter has no `name` (a string): {item}")
    where = f"space: parameter {item['name']!r}"
    if item.get("type") not in TYPES:
        raise ValueError(f"{where}: unknown type {item.get('type')!r}; valid are {', '.join(TYPES)}")
    fields = inspect.signature(TYPES[item["type"]]).parameters
    for key in item.keys() - fields.keys() - LEGACY_FIELDS - {"type"}:
        raise ValueError(f"{where}: unknown field {key!r}; a {item['type']} has {', '.join(fields)}")
    for key, field in fields.items():
        if field.default is inspect.Parameter.empty and key not in item:
            raise ValueError(f"{where}: a {item['type']} needs the field {key!r}")
    if "lower" in fields:
        _check_bounds(where, item)
    for key in {"choices", "sequence"} & fields.keys():
        if not isinstance(item[key], list | tuple) or not item[key]:
            raise ValueError(f"{where}: `{key}` must be a list of at least one value; got {item[key]!r}")


def _check_bounds(where: str, item: dict[str, Any]) -> None:
    lower, upper = (_number(where, key, item[key], item["type"]) for key in ("lower", "upper"))
    if not lower < upper:
        raise ValueError(f"{where}: lower={item['lower']} must be below upper={item['upper']}")
    if item.get("log") and lower <= 0:
        raise ValueError(f"{where}: lower={item['lower']} must be positive because the range is logarithmic (log: true)")
    default = item.get("default_value", item.get("default"))
    if default is not None and not lower <= _number(where, "default_value", default, item["type"]) <= upper:
        raise ValueError(f"{where}: default_value={default} lies outside [{item['lower']}, {item['upper']}]")


def _number(where: str, key: str, value: Any, type_name: str) -> float:
    """The number `value`, or one sentence; bool is no number here although Python's bool is an int."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: {key}={value!r} must be a finite number")
    if type_name.endswith("_int") and value != int(value):
        raise ValueError(f"{where}: {key}={value!r} must be a whole number for the type {type_name}")
    return value


def _check_clauses(kind: str, clauses: Any, names: list[str], types: set[str]) -> None:
    """Raise unless each clause has a known type and speaks of known parameters."""
    if not isinstance(clauses, list | tuple):
        raise ValueError(f"space: the {kind}s must be a list; got {clauses!r}")
    for clause in _flatten(clauses):
        if not isinstance(clause, Mapping) or clause.get("type") not in types:
            raise ValueError(f"space: {kind} {clause} has no valid type; valid are {', '.join(sorted(types))}")
        for role in {"child", "parent", "name", "left", "right"} & clause.keys():
            if clause[role] not in names:
                raise ValueError(f"space: a {kind} speaks of the unknown parameter {clause[role]!r}; known are {', '.join(names)}")


def _flatten(clauses: Any) -> Iterator[Any]:
    for clause in clauses:
        yield clause
        if isinstance(clause, Mapping):
            yield from _flatten([*clause.get("conditions", []), *clause.get("clauses", [])])


def _decode(serialised: dict[str, Any]) -> ConfigurationSpace:
    """Parameters first, one by one, so that an error of ConfigSpace can be given its parameter's name."""
    for item in serialised["hyperparameters"]:
        _from_dict({"hyperparameters": [copy.deepcopy(item)]}, f"space: parameter {item['name']!r}")
    return _from_dict(serialised, "space: its conditions or forbidden clauses")


def _from_dict(serialised: dict[str, Any], where: str) -> ConfigurationSpace:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ConfigSpace asks to rewrite files of older versions
            return ConfigurationSpace.from_serialized_dict(serialised)
    except Exception as error:  # ConfigSpace raises half a dozen types, ZeroDivisionError among them
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
