"""Tables of learning curves in the blackbox-repository format: a folder that researchers of this field already have on disk.

metadata.json                objectives_names, task_names; names of the default metric, the elapsed time, the resource
configspace.json             name -> domain: class, its arguments, sampler
fidelityspace.json           the same of the resource
hyperparameters.parquet      a row per configuration
fidelities_values.npy        the resources, here 1, 2, ..., r_max
objectives_evaluations.npy   float32 (tasks, configurations, seeds, resources, objectives)

Where tasks have configurations of their own (pd1), the last four are there for each task, as <task>-hyperparameters.parquet and so on,
and the evaluations lack the first axis.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ConfigSpace import ConfigurationSpace, Constant
from ConfigSpace.hyperparameters import FloatHyperparameter, IntegerHyperparameter
from jaxtyping import Float32

from experiments.benchmarks.space import build_space

NUMBERS = {"Float": "uniform_float", "Integer": "uniform_int"}
SAMPLERS = {"Uniform": False, "LogUniform": True}  # name -> log scale
FILES = (
    "metadata.json",
    "configspace.json",
    "fidelityspace.json",
    "hyperparameters.parquet",
    "fidelities_values.npy",
    "objectives_evaluations.npy",
)


class Table(NamedTuple):
    space: ConfigurationSpace
    configs: list[dict[str, Any]]
    values: Float32[np.ndarray, "T N S R O"]  # resources are 1..R
    metadata: dict[str, Any]

    @property
    def task_names(self) -> list[str]:
        return self.metadata["task_names"]

    @property
    def objectives_names(self) -> list[str]:
        return self.metadata["objectives_names"]


def files_of(task: str) -> tuple[str, ...]:
    """The names of FILES where every task has its own."""
    own = ("fidelity_space.json", "hyperparameters.parquet", "fidelity_values.npy", "objectives_evaluations.npy")
    return (*FILES[:2], *(f"{task}-{name}" for name in own))


def read(folder: str | Path, task: str | None = None) -> Table:
    """The table in `folder`; its values stay on disk until they are used. Raises one sentence if the files contradict each other.

    `task` is needed where every task has files of its own; the table is then of that task alone.
    """
    folder = Path(folder)
    try:
        names = FILES if task is None or (folder / FILES[3]).is_file() or not (folder / files_of(task)[3]).is_file() else files_of(task)
        return _read(folder, names, task)
    except ValueError as error:
        if str(error).startswith("benchmark table"):
            raise
        raise ValueError(f"benchmark table {folder}: {' '.join(str(error).split())}") from error
    except (AttributeError, KeyError, TypeError) as error:  # of contents that have the form of another file
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"benchmark table {folder}: a file does not have the form that the format asks for ({what})") from error


def _read(folder: Path, names: tuple[str, ...], task: str | None) -> Table:
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"benchmark table {folder}: {_missing(folder, name)}")
    try:
        metadata, domains, resource = (json.loads((folder / name).read_text()) for name in names[:3])
        rows = pq.read_table(folder / names[3]).to_pylist()
        resources = np.load(folder / names[4], allow_pickle=False)
        values = np.load(folder / names[5], allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise ValueError(f"benchmark table {folder}: a file is damaged: {' '.join(str(error).split())}") from error
    if len(resource) != 1:
        raise ValueError(f"benchmark table {folder}: one resource is supported, but {names[2]} has {sorted(resource)}")
    metadata.setdefault("resource_attr", next(iter(resource)))
    if names is not FILES:
        metadata, values = metadata | {"task_names": [task]}, values[None]
    _check_shape(folder, metadata, rows, resources, values)
    space = build_space({"hyperparameters": [_from_domain(folder, name, domain) for name, domain in domains.items()]})
    _check_rows(folder, space, rows)
    return Table(space, rows, values, metadata)


def _missing(folder: Path, name: str) -> str:
    """Why a file may be missing: perhaps every task has its own, and none, or one that does not exist, was named."""
    tasks = sorted(path.name.removesuffix(f"-{FILES[3]}") for path in folder.glob(f"*-{FILES[3]}"))
    if name in FILES[2:] and tasks:
        return f"its tasks have files of their own: choose benchmark.task of {', '.join(tasks)}"
    return f"the file {name} is missing"


def check_space(space: ConfigurationSpace) -> None:
    """Raise for what the format cannot say: parameters that depend on others, forbidden combinations, normal distributions."""
    lost = [str(part) for part in (*space.conditions, *space.forbidden_clauses)]
    lost += [name for name, parameter in space.items() if type(parameter).__name__.startswith(("Normal", "Beta"))]
    if lost:
        raise ValueError(f"a benchmark table cannot hold this space: the format has no word for {' '.join(lost[0].split())}")


def write(folder: str | Path, table: Table) -> None:
    """Write the table whole or not at all; raises if `folder` exists already."""
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"benchmark table {folder}: it exists already; remove it or choose another folder")
    check_space(table.space)
    r_max = table.values.shape[3]
    resources, metadata = np.arange(1, r_max + 1), {"resource_attr": "hp_epoch", **table.metadata}
    _check_shape(folder, metadata, table.configs, resources, table.values)
    _check_rows(folder, table.space, table.configs)
    _check_objectives(folder, metadata, table.values)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part"))
    try:
        domains = {name: _to_domain(parameter) for name, parameter in table.space.items()}
        resource = {metadata["resource_attr"]: _domain("Integer", "Uniform", lower=1, upper=r_max)}
        for name, content in zip(FILES[:3], (metadata, domains, resource), strict=True):
            (temporary / name).write_text(json.dumps(content, indent=1))
        columns = {name: [row[name] for row in table.configs] for name in table.space}
        pq.write_table(pa.table(columns), temporary / "hyperparameters.parquet", compression="gzip")
        np.save(temporary / "fidelities_values.npy", resources)
        np.save(temporary / "objectives_evaluations.npy", np.asarray(table.values, np.float32))
        temporary.chmod(0o755)  # mkdtemp's folders are private
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_shape(folder: Path, metadata: dict[str, Any], rows: list[Any], resources: np.ndarray, values: np.ndarray) -> None:
    for key in ("task_names", "objectives_names"):
        if not isinstance(metadata.get(key), list) or not metadata[key]:
            raise ValueError(f"benchmark table {folder}: metadata.json must list {key}; it has {metadata.get(key)!r}")
        if len(set(metadata[key])) < len(metadata[key]):
            raise ValueError(f"benchmark table {folder}: metadata.json lists one of the {key} twice: {metadata[key]}")
    tasks, objectives = len(metadata["task_names"]), len(metadata["objectives_names"])
    expected = f"({tasks} tasks, {len(rows)} configurations, seeds, {len(resources)} resources, {objectives} objectives)"
    if values.ndim != 5 or (*values.shape[:2], *values.shape[3:]) != (tasks, len(rows), len(resources), objectives) or not values.size:
        raise ValueError(f"benchmark table {folder}: objectives_evaluations.npy has shape {values.shape}, the other files say {expected}")
    if resources.ndim != 1 or not np.issubdtype(resources.dtype, np.number):
        raise ValueError(f"benchmark table {folder}: its resources must be 1, 2, ..., r_max, but they are {str(resources.tolist())[:60]}")
    if not np.array_equal(resources, np.arange(1, len(resources) + 1)):
        missing = sorted(set(range(1, int(resources.max()) + 1)) - set(resources.tolist()))
        what = f"{missing[:5]} are missing" if missing else f"they are {resources[:5].tolist()}..."
        raise ValueError(f"benchmark table {folder}: its resources must be 1, 2, ..., r_max, but {what}")


def _check_objectives(folder: Path, metadata: dict[str, Any], values: np.ndarray) -> None:
    """Raise for a table that nothing could be tuned on."""
    for key in ("default_metric", "metric_elapsed_time"):
        if metadata.get(key) not in metadata["objectives_names"]:
            raise ValueError(f"benchmark table {folder}: {key}={metadata.get(key)!r} is none of {metadata['objectives_names']}")
    if not np.isfinite(values).any():
        raise ValueError(f"benchmark table {folder}: not one of its values is a number")


def _check_rows(folder: Path, space: ConfigurationSpace, rows: list[dict[str, Any]]) -> None:
    """Raise unless each row has a legal value of each parameter and of nothing else."""
    if not rows:
        raise ValueError(f"benchmark table {folder}: it has no configurations")
    if set(rows[0]) != set(space):
        raise ValueError(f"benchmark table {folder}: the columns {sorted(rows[0])} are not the parameters {sorted(space)}")
    for name, parameter in space.items():
        column = [row[name] for row in rows]
        if isinstance(parameter, FloatHyperparameter | IntegerHyperparameter):
            slack = 1e-6 * (parameter.upper - parameter.lower)  # float32 columns round beyond a bound
            bad = [v for v in column if v is None or not parameter.lower - slack <= v <= parameter.upper + slack]
        else:
            legal = set(finite_values(parameter))
            bad = [v for v in column if v not in legal]
        if bad:
            raise ValueError(f"benchmark table {folder}: {name}={bad[0]!r} in hyperparameters.parquet lies outside configspace.json")


def finite_values(parameter: Any) -> tuple[Any, ...]:
    """The values of a parameter that is no range, in order."""
    if isinstance(parameter, Constant):
        return (parameter.value,)
    return tuple(getattr(parameter, "choices", None) or parameter.sequence)


def _from_domain(folder: Path, name: str, domain: Any) -> dict[str, Any]:
    """ConfigSpace's form of a domain of the format. A finite range of numbers becomes an ordinal parameter."""
    if not isinstance(domain, dict):
        return {"type": "constant", "name": name, "value": domain}
    kind, arguments, sampler = domain.get("domain_cls"), domain.get("domain_kwargs", {}), domain.get("sampler_cls", "Uniform")
    if kind == "Categorical":
        return {"type": "categorical", "name": name, "choices": arguments["categories"]}
    if kind in ("Ordinal", "OrdinalNearestNeighbor"):
        return {"type": "ordinal", "name": name, "sequence": arguments["categories"]}
    if kind == "FiniteRange":
        return {"type": "ordinal", "name": name, "sequence": _finite_range(**arguments)}
    if kind in NUMBERS and sampler in SAMPLERS:
        bounds = {key: arguments[key] for key in ("lower", "upper")}
        return {"type": NUMBERS[kind], "name": name, **bounds, "log": SAMPLERS[sampler]}
    raise ValueError(f"benchmark table {folder}: the domain {kind} with sampler {sampler} of {name!r} is not supported")


def _finite_range(lower: float, upper: float, size: int, log_scale: bool = False, cast_int: bool = False) -> list[float]:
    forward, back = (math.log, math.exp) if log_scale else (float, float)
    inner = np.linspace(forward(lower), forward(upper), size)
    values = [min(max(back(value), lower), upper) for value in inner]
    return [round(value) for value in values] if cast_int else values


def _to_domain(parameter: Any) -> Any:
    if isinstance(parameter, Constant):
        return parameter.value
    if isinstance(parameter, FloatHyperparameter | IntegerHyperparameter):
        kind = "Float" if isinstance(parameter, FloatHyperparameter) else "Integer"
        cast = float if kind == "Float" else int
        sampler = "LogUniform" if parameter.log else "Uniform"
        return _domain(kind, sampler, lower=cast(parameter.lower), upper=cast(parameter.upper))
    values = list(finite_values(parameter))
    return _domain("Categorical" if hasattr(parameter, "choices") else "Ordinal", "Uniform", categories=values)


def _domain(kind: str, sampler: str, **arguments: Any) -> dict[str, Any]:
    base = {"base": 10} if sampler == "LogUniform" else {}
    return {"domain_cls": kind, "domain_kwargs": arguments, "sampler_cls": sampler, "sampler_kwargs": base}
