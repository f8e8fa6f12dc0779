"""A tabulated benchmark on the simulated clock: the learning curves of one task of a table, with the seconds they once took."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ConfigSpace.hyperparameters import FloatHyperparameter, IntegerHyperparameter
from jaxtyping import Float, Float64

from experiments.benchmarks import blackbox_format
from experiments.benchmarks.blackbox_format import Table, finite_values
from experiments.benchmarks.files import digest_of
from experiments.benchmarks.hub import Missing, fetch
from schedulers.types import Config, Job, Progress

BUNDLED = Path(__file__).with_name("tables")  # mlp_digits: the perceptron on scikit-learn's digits, by `experiments.tabulate`
SAME = 1e-6  # two numbers whose places in the unit interval differ by less are one: tables hold rounded values


class Blackbox:
    """Tune `task` of the table in `folder` (as it is, below `data_dir` or `tables` here, or of `repository`, a dataset on the Hugging
    Face Hub).

    A configuration that the table lacks is an error, or with off_grid=nearest gets the curve of the nearest one: numbers by distance on
    their own scale, categories equal or not. With off_grid=pool the space holds the table's configurations and no others, so that
    searchers propose nothing else. `pool_size`: how many different configurations the table has. Of a table with several seeds a
    configuration gets one, drawn by `seed`.
    `optimum`: the best mean over seeds at r_max. short_curves=fail: a trial whose curve ends early, as those of trainings that diverged
    do in pd1, fails there; else such a table is refused.
    """

    def __init__(
        self,
        folder: str,
        task: str | None = None,
        metric: str | None = None,
        mode: str = "min",
        off_grid: str = "error",
        short_curves: str = "error",
        repository: str | None = None,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"benchmark.mode={mode!r} is unknown; valid are min and max")
        if off_grid not in ("error", "nearest", "pool"):
            raise ValueError(f"benchmark.off_grid={off_grid!r} is unknown; valid are error, nearest and pool")
        if short_curves not in ("error", "fail"):
            raise ValueError(f"benchmark.short_curves={short_curves!r} is unknown; valid are error and fail")
        table = blackbox_format.read(_find(folder, data_dir, repository, task), task)
        self.folder, self.mode, self.off_grid, self.seed = folder, mode, off_grid, seed
        self.task = _choose(folder, "task", task, table.task_names, table.task_names[0] if len(table.task_names) == 1 else None)
        names, metadata = table.objectives_names, table.metadata
        self.metric = _choose(folder, "metric", metric, names, metadata.get("default_metric"))
        elapsed = _choose(folder, "elapsed time", None, names, metadata.get("metric_elapsed_time"))
        self.space, self.r_max, self.pool_size = table.space, table.values.shape[3], len({tuple(row.values()) for row in table.configs})
        if off_grid == "pool":
            self.space.pool = table.configs  # type: ignore[attr-defined]
        values = table.values[table.task_names.index(self.task)]
        self._metrics, self._elapsed = (np.asarray(values[..., names.index(name)], np.float64) for name in (self.metric, elapsed))
        self._metrics = np.where(np.isfinite(self._elapsed), self._metrics, np.nan)  # what took no known time did not happen
        self._seeds = self._usable_seeds(short_curves == "fail")
        self._columns = {name: _places(table, name) for name in self.space}
        self.digest = digest_of(self._metrics, self._elapsed, *self._columns.values())
        best = np.min if mode == "min" else np.max
        last = np.ma.masked_invalid(self._metrics[:, :, -1]).mean(axis=1).compressed()  # of a short curve there is none
        self.optimum = float(best(last)) if len(last) else math.nan

    def train(self, job: Job, checkpoint_dir: str | None = None) -> Iterator[Progress]:
        """The stretch of the tabulated curve that `job` asks for, with the seconds of each epoch."""
        row = self.row(job.config)
        metrics, elapsed = self.curve(row)
        seconds = np.nan_to_num(np.diff(elapsed, prepend=0.0))  # beyond its end a curve has neither metric nor time
        for r in range(job.r_from + 1, job.r_to + 1):
            yield Progress(r, float(metrics[r - 1]), float(seconds[r - 1]))

    def curve(self, row: int) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """Metric and elapsed seconds at 1..r_max of a row of the table, at the table's seed that `seed` draws for it."""
        digest = hashlib.blake2b(f"{self.seed} {row}".encode(), digest_size=8).digest()
        usable = np.flatnonzero(self._seeds[row])
        chosen = usable[int.from_bytes(digest) % len(usable)]
        return self._metrics[row, chosen], self._elapsed[row, chosen]

    def row(self, config: Config) -> int:
        """The row of the table that stands for `config`."""
        distance = np.zeros(len(self._metrics))
        for name, value in config.items():
            place = _place(self.space[name], value)
            gap = self._columns[name] - place
            distance += gap**2 if _is_range(self.space[name]) else gap != 0
        row = int(np.argmin(distance))
        if self.off_grid != "nearest" and distance[row] > SAME**2 * len(config):
            raise ValueError(
                f"the configuration {dict(config)} is not in the table {self.folder!r}; "
                "benchmark.off_grid=nearest takes the curve of the nearest one, off_grid=pool makes searchers propose the table's only"
            )
        return row

    def _usable_seeds(self, may_end: bool) -> np.ndarray:
        """[configurations, seeds]: which curves can be drawn: whole ones, and where they `may_end` early, all that have no hole.

        Among several seeds, a curve that is missing altogether was not run.
        """
        cells = np.isfinite(self._metrics) & np.isfinite(self._elapsed)
        whole, started = np.all(cells, axis=2), np.any(cells, axis=2)
        ends = np.all(cells[:, :, :-1] >= cells[:, :, 1:], axis=2) & may_end
        usable = whole | (ends & started) | (ends & ~np.any(started, axis=1, keepdims=True))
        holes, empty = np.any(started & ~usable, axis=1), ~np.any(usable, axis=1)
        for what, rows in (("a curve with cells that are no finite number", holes), ("no curve at all", empty)):
            if np.any(rows):
                raise ValueError(
                    f"benchmark table {self.folder!r}, task {self.task!r}: {np.sum(rows)} configurations have {what}, the first in row "
                    f"{int(np.argmax(rows))}"
                    + ("" if may_end else " (benchmark.short_curves=fail lets trials fail where their curves end)")
                )
        if (np.diff(self._elapsed, axis=2) < 0).any() or (self._elapsed < 0).any():
            raise ValueError(
                f"benchmark table {self.folder!r}, task {self.task!r}: the elapsed time must start at 0 or above and never fall"
            )
        return np.asarray(usable)


def _find(folder: str, data_dir: str | None, repository: str | None, task: str | None) -> Path:
    candidates = [Path(folder), *([Path(data_dir, folder)] if data_dir is not None else []), BUNDLED / folder]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    if repository is not None:
        try:
            return fetch(repository, folder, blackbox_format.FILES)
        except Missing:
            if task is not None:  # every task may have files of its own
                with suppress(Missing):
                    return fetch(repository, folder, blackbox_format.files_of(task))
            raise
    raise ValueError(
        f"benchmark.folder={folder!r} does not exist; looked for {', '.join(str(c) for c in candidates)} "
        "(see data_dir, or name a benchmark.repository)"
    )


def _choose(folder: str, what: str, asked: str | None, names: list[str], default: str | None) -> str:
    chosen = default if asked is None else asked
    if chosen not in names:
        raise ValueError(f"benchmark table {folder!r} has no {what} {chosen!r}; valid are {', '.join(names)}")
    return chosen


def _is_range(parameter: Any) -> bool:
    return isinstance(parameter, FloatHyperparameter | IntegerHyperparameter)


def _place(parameter: Any, value: Any) -> float:
    """The place of a number in [0, 1] on its own scale, the index of another value."""
    if not _is_range(parameter):
        return float(finite_values(parameter).index(value))
    scale = math.log if parameter.log else float
    low, high = scale(parameter.lower), scale(parameter.upper)
    return (scale(value) - low) / (high - low)


def _places(table: Table, name: str) -> Float[np.ndarray, " N"]:
    return np.array([_place(table.space[name], row[name]) for row in table.configs])
