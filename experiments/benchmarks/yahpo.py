"""YAHPO Gym's surrogate benchmarks on the simulated clock, read from the layout in which their authors publish them.

A folder per scenario: model.onnx (a network fitted to real training logs), config_space.json, encoding.json (category -> code). The model
knows the columns' order but not their names, which therefore stand here. The curves are smooth: they are a network's, not a training's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from experiments.benchmarks.files import digest_of
from experiments.benchmarks.onnx_model import Network
from experiments.benchmarks.space import build_space
from schedulers.types import Config, Job, Progress

# A curve is evaluated up to the next of these, because most trials end early. Fixed, so that no value depends on who asked for what (but
# for the last bit of a float32, where a whole block is asked for together: matrix products of other sizes round otherwise).
STAGES = (3, 9, 27, 81, 243)
BATCH = 32  # configurations evaluated together: enough to share the weights' way through the cache
FILES = ("model.onnx", "config_space.json", "encoding.json")
LEAST_SECONDS = 0.01  # of an epoch: a network's cumulative time may fall


class Scenario(NamedTuple):
    continuous: tuple[str, ...]
    categorical: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: str  # which output is the cumulative time
    accuracy_unit: float  # what a val_accuracy of 1 is called
    task: str | None  # the parameter that is no hyperparameter but the task
    epochs: tuple[int, int]  # first and last epoch of the model that are resources 1 and r_max


CELL = "NetworkSelectorDatasetInfo_COLON_darts_COLON"
SCENARIOS = {
    "lcbench": Scenario(
        ("epoch", "batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout"),
        ("OpenML_task_id",),
        ("time", "val_accuracy", "val_cross_entropy", "val_balanced_accuracy", "test_cross_entropy", "test_balanced_accuracy"),
        "time",
        100.0,
        "OpenML_task_id",
        (2, 51),  # the log's first line is the untrained network, its last repeats the 50th epoch
    ),
    "nb301": Scenario(
        ("epoch",),
        (
            *(f"{CELL}_edge_{cell}_{i}" for cell in ("normal", "reduce") for i in range(14)),
            *(f"{CELL}_inputs_node_{cell}_{i}" for cell in ("normal", "reduce") for i in (3, 4, 5)),
        ),
        ("val_accuracy", "val_cross_entropy", "runtime", "runtime_increase"),
        "runtime",
        1.0,
        None,
        (1, 98),
    ),
}


class Yahpo:
    """Tune `task` of `scenario` (lcbench: an OpenML task id; nb301 has one task only); the files are at `folder` or below `data_dir`.

    metric: `val_error`, the fraction of wrong labels, or one of the model's own outputs, of which accuracies are maximised.
    r_max: stops the curves earlier than the model's last epoch. Nothing is drawn: studies of all seeds see the same curves.
    Where the model's cumulative time falls from one epoch to the next, an epoch takes a hundredth of a second instead.
    """

    def __init__(
        self,
        scenario: str = "lcbench",
        task: str | int | None = None,
        metric: str = "val_error",
        r_max: int | None = None,
        folder: str = "yahpo",
        data_dir: str | None = None,
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"benchmark.scenario={scenario!r} is unknown; valid are {', '.join(SCENARIOS)}")
        self._names = SCENARIOS[scenario]
        self._path = _find(scenario, folder, data_dir)
        space, self._codes = (_object(self._path / name) for name in ("config_space.json", "encoding.json"))
        tasks = [p["choices"] for p in space["hyperparameters"] if p["name"] == self._names.task]
        self.scenario, self.task = scenario, _choose_task(scenario, task, tasks[0] if tasks else [])
        fixed = {"epoch", self._names.task}
        self.space = build_space(space | {"hyperparameters": [p for p in space["hyperparameters"] if p["name"] not in fixed]})
        last = self._names.epochs[1] - self._names.epochs[0] + 1
        if r_max is not None and not 1 <= r_max <= last:
            raise ValueError(f"benchmark.r_max={r_max} must be from 1 to {last}, the epochs that {scenario} has")
        self.r_max = r_max or last
        valid = ("val_error", *(name for name in self._names.outputs if name != self._names.seconds))
        if metric not in valid:
            raise ValueError(f"benchmark.metric={metric!r} is unknown; valid for {scenario} are {', '.join(valid)}")
        self.metric_name, self.mode = metric, "max" if "accuracy" in metric else "min"
        self._columns = [self._names.outputs.index(n) for n in (self._names.seconds, "val_accuracy" if metric == "val_error" else metric)]
        self._curves: dict[tuple[Any, ...], Float64[np.ndarray, "2 R"]] = {}
        if scenario == "lcbench":
            self.test_metric = self._test_metric
        self.digest = digest_of(*(self._path / name for name in FILES))
        self._check(space)

    def train(self, job: Job, checkpoint_dir: str | None = None) -> Iterator[Progress]:
        """The stretch of the curve that `job` asks for, with the seconds of each epoch."""
        curve = self._until(job.config, max(job.r_from, 1))
        before = float(curve[0, job.r_from - 1]) if job.r_from else 0.0
        for r in range(job.r_from + 1, job.r_to + 1):
            if r > curve.shape[1]:
                curve = self._until(job.config, r)
            elapsed, metric = curve[:, r - 1].tolist()
            yield Progress(r, metric, elapsed - before)
            before = elapsed

    def expect(self, configs: Sequence[Config]) -> None:
        """These will be asked for: their first stage is evaluated together, at a quarter of the cost."""
        keys = [_key(config) for config in configs]
        new = [i for i, key in enumerate(keys) if key not in self._curves]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            nothing = np.empty((2, 0))
            longer = self._extended([configs[i] for i in part], nothing, min(STAGES[0], self.r_max))
            self._curves |= {keys[i]: curve for i, curve in zip(part, longer, strict=True)}

    def curve(self, config: Config) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """Metric and elapsed seconds at 1..r_max."""
        elapsed, metrics = self._until(config, self.r_max)[:, : self.r_max]
        return metrics, elapsed

    def _test_metric(self, config: Config) -> float:
        """The balanced test error at r_max, the only one that the model has; it plays no part in a search."""
        outputs = self._evaluate([config], [self._names.epochs[0] + self.r_max - 1])
        return 1 - float(outputs[0, 0, self._names.outputs.index("test_balanced_accuracy")])

    def _check(self, space: Mapping[str, Any]) -> None:
        """Raise ValueError in one sentence if the three files are not of this scenario, or not of one another."""
        parameters = {p["name"]: p for p in space["hyperparameters"]}
        names = [*self._names.categorical, *self._names.continuous]
        for name in names:
            if name not in parameters:
                raise ValueError(f"benchmark=yahpo: {self._path / 'config_space.json'} has no {name}, which {self.scenario} has")
        conditional = {condition["child"] for condition in space.get("conditions", [])}
        for name in self._names.categorical:
            wanted = {str(choice) for choice in parameters[name].get("choices", [])} | ({"#na#"} if name in conditional else set())
            if missing := wanted - set(self._codes.get(name, {})):
                raise ValueError(f"benchmark=yahpo: {self._path / 'encoding.json'} has no code for {name}={min(missing)}")
        try:
            outputs = self._evaluate([dict(self.space.get_default_configuration())], [self._names.epochs[0]])
        except (ValueError, IndexError, KeyError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"benchmark=yahpo: {self._path / 'model.onnx'} does not take what {self.scenario} has ({said})") from error
        if outputs.shape != (1, 1, len(self._names.outputs)) or not np.isfinite(outputs).all():
            raise ValueError(
                f"benchmark=yahpo: {self._path / 'model.onnx'} is of another scenario: it says {outputs.ravel()} where {self.scenario} has "
                f"{len(self._names.outputs)} numbers"
            )

    def _until(self, config: Config, r: int) -> Float64[np.ndarray, "2 R"]:
        """Elapsed seconds and metric at 1..R, with R >= r."""
        key = _key(config)
        known = self._curves.get(key, np.empty((2, 0)))
        for stage in STAGES:
            if known.shape[1] >= r:
                break
            if stage > known.shape[1]:
                known = self._extended([config], known, min(stage, self.r_max))[0]
        self._curves[key] = known
        return known

    def _extended(self, configs: Sequence[Config], known: Float64[np.ndarray, "2 K"], r: int) -> Float64[np.ndarray, "C 2 R"]:
        """The curves of configurations that are known equally far."""
        first = known.shape[1]
        epochs = np.arange(first, r) + self._names.epochs[0]
        outputs = self._evaluate(configs, epochs)
        seconds, metrics = (outputs[:, :, column] for column in self._columns)
        if self.metric_name == "val_error":
            metrics = 1 - metrics / self._names.accuracy_unit
        least = (epochs - self._names.epochs[0] + 1) * LEAST_SECONDS
        latest = known[0, -1] if first else 0.0
        curves = np.empty((len(configs), 2, r))
        curves[:, :, :first], curves[:, 1, first:] = known, metrics
        rising = np.maximum(seconds - least, max(latest - least[0] + LEAST_SECONDS, 0.0))
        curves[:, 0, first:] = np.maximum.accumulate(rising, axis=1) + least
        return curves

    def _evaluate(self, configs: Sequence[Config], epochs: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "C E O"]:
        """The model's outputs at these epochs of its own."""
        task, num = {self._names.task: self.task}, len(epochs)
        categories, numbers = self._names.categorical, self._names.continuous
        codes = np.empty((len(configs), num, len(categories)), np.int32)
        values = np.empty((len(configs), num, len(numbers)), np.float32)
        for i, config in enumerate(configs):
            given: dict[Any, Any] = {**task, **config}
            codes[i] = [self._codes[name][str(given[name]) if name in given else "#na#"] for name in categories]
            values[i] = [0.0 if name == "epoch" else given[name] for name in numbers]
        values[..., numbers.index("epoch")] = epochs
        arguments = {"x_cat": codes.reshape(-1, len(categories)), "x_cont": values.reshape(-1, len(numbers))}
        outputs = _network(self._path / "model.onnx", self.digest)(arguments)
        return np.asarray(outputs, np.float64).reshape(len(configs), num, -1)


def _key(config: Config) -> tuple[Any, ...]:
    return tuple(sorted(config.items()))


@lru_cache(maxsize=4)
def _network(path: Path, digest: str) -> Network:
    """The network in a file of that content."""
    return Network(path)


def _find(scenario: str, folder: str, data_dir: str | None) -> Path:
    roots = [Path(folder)] + ([Path(data_dir, folder)] if data_dir is not None else [])
    paths = [root / scenario for root in roots]
    for path in paths:
        if path.is_dir():
            missing = [name for name in FILES if not (path / name).is_file()]
            if missing:
                raise ValueError(f"benchmark=yahpo: {path} lacks {', '.join(missing)}")
            return path
    raise ValueError(
        f"benchmark=yahpo: there is no scenario {scenario!r} in {' or '.join(map(str, roots))}; "
        "get it from github.com/slds-lmu/yahpo_data and set data_dir or benchmark.folder"
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): put the original there") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not what its name says: it must hold a JSON object, and holds {str(found)[:40]}")
    return found


def _choose_task(scenario: str, task: str | int | None, tasks: list[str]) -> str | None:
    if not tasks:
        if task is not None:
            raise ValueError(f"benchmark.task={task}: {scenario} has one task only, leave it null")
        return None
    if task is None:
        raise ValueError(f"benchmark.task is missing; {scenario} has {', '.join(tasks)}")
    if str(task) not in tasks:
        raise ValueError(f"benchmark.task={task} is no task of {scenario}; valid are {', '.join(tasks)}")
    return str(task)
