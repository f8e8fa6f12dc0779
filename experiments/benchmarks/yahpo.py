"""YAHPO Gym's surrogate benchmarks on the simulated clock, read from the layout in which their authors publish them.

A folder per scenario: model.onnx (a network fitted to real training logs), config_space.json, encoding.json (category -> code). The model
knows the columns' order but not their names, which therefore stand here. The curves are smooth: they are a network's, not a training's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from experiments.benchmarks.onnx_model import Network
from experiments.benchmarks.space import build_space
from schedulers.types import Config, Job, Progress

# A curve is evaluated up to the next of these, because most trials end early. Fixed, so that no value depends on who asked for what.
STAGES = (3, 9, 27, 81, 243)
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
        space, self._codes = (json.loads((self._path / name).read_text()) for name in ("config_space.json", "encoding.json"))
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
        self._curves: dict[tuple[Any, ...], Float64[np.ndarray, "2 R"]] = {}
        _network(self._path / "model.onnx")

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

    def curve(self, config: Config) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """Metric and elapsed seconds at 1..r_max."""
        elapsed, metrics = self._until(config, self.r_max)[:, : self.r_max]
        return metrics, elapsed

    def _until(self, config: Config, r: int) -> Float64[np.ndarray, "2 R"]:
        """Elapsed seconds and metric at 1..R, with R >= r."""
        key = tuple(sorted(config.items()))
        known = self._curves.get(key, np.empty((2, 0)))
        for stage in STAGES:
            if known.shape[1] >= r:
                break
            if stage > known.shape[1]:
                known = self._extended(config, known, min(stage, self.r_max))
        self._curves[key] = known
        return known

    def _extended(self, config: Config, known: Float64[np.ndarray, "2 K"], r: int) -> Float64[np.ndarray, "2 R"]:
        epochs = np.arange(known.shape[1], r) + self._names.epochs[0]
        outputs = self._evaluate(config, epochs)
        seconds = outputs[:, self._names.outputs.index(self._names.seconds)]
        if self.metric_name == "val_error":
            metrics = 1 - outputs[:, self._names.outputs.index("val_accuracy")] / self._names.accuracy_unit
        else:
            metrics = outputs[:, self._names.outputs.index(self.metric_name)]
        least = (epochs - self._names.epochs[0] + 1) * LEAST_SECONDS
        latest = known[0, -1] if known.size else 0.0
        rising = np.maximum.accumulate(np.maximum(seconds - least, max(latest - least[0] + LEAST_SECONDS, 0.0))) + least
        return np.concatenate([known, np.stack([rising, metrics])], axis=1)

    def _evaluate(self, config: Config, epochs: Sequence[int] | np.ndarray) -> Float64[np.ndarray, "E O"]:
        """The model's outputs at these epochs of its own."""
        values: dict[Any, Any] = {self._names.task: self.task, **config}
        codes = [self._codes[name][str(values[name]) if name in values else "#na#"] for name in self._names.categorical]
        numbers = np.array([[0.0 if name == "epoch" else values[name] for name in self._names.continuous]] * len(epochs), np.float32)
        numbers[:, self._names.continuous.index("epoch")] = epochs
        arguments = {"x_cat": np.array([codes] * len(epochs), np.int32), "x_cont": numbers}
        return np.asarray(_network(self._path / "model.onnx")(arguments), np.float64)


@lru_cache(maxsize=4)
def _network(path: Path) -> Network:
    return Network(path)


def _find(scenario: str, folder: str, data_dir: str | None) -> Path:
    roots = [Path(folder)] + ([Path(data_dir, folder)] if data_dir is not None else [])
    paths = [root / scenario for root in roots]
    files = ("model.onnx", "config_space.json", "encoding.json")
    for path in paths:
        if path.is_dir():
            missing = [name for name in files if not (path / name).is_file()]
            if missing:
                raise ValueError(f"benchmark=yahpo: {path} lacks {', '.join(missing)}")
            return path
    raise ValueError(
        f"benchmark=yahpo: there is no scenario {scenario!r} in {' or '.join(map(str, roots))}; "
        "get it from github.com/slds-lmu/yahpo_data and set data_dir or benchmark.folder"
    )


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
