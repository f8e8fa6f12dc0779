"""NAS-Bench-201 from final accuracies alone: true values at epoch 200, curves of a declared model. A stand-in, and called one.

The table at hand has each cell's validation accuracy after 200 epochs (two or three repetitions) and its training time on three data
sets, but whole curves of 200 cells on CIFAR-10 only. Every cell borrows the shape of its curve, the relative progress

    p(e) = (accuracy(e) - chance) / (accuracy(200) - chance),

from a donor: one of the DONORS real curves whose final accuracy ranks nearest to the cell's own rank in its data set, drawn once for the
cell. Donors are half of the real curves; the other half tells how well this does (`validate`). Everything is a function of the file, so
nothing is tuned to a study. (A regression with Gaussian residuals did badly: good cells vary far less than bad ones.)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int
from scipy.stats import rankdata

from experiments.benchmarks.files import digest_of
from experiments.benchmarks.space import build_space
from schedulers.types import Config, Job, Progress

TASKS = {"cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")
EPOCHS = 200
DONORS = 8
HALVES_SEED = 201  # which half of the real curves are donors
STAND_IN = "NAS-Bench-201's final accuracies with modelled curves stand in for its real curves"


class NASBench201:
    """Tune the six operations of a cell on `task`; the metric is the validation error (fraction) after each of 200 epochs.

    A cell's final value is that of one of its real repetitions, drawn by `seed`. `optimum`: the best mean over repetitions, of all cells.
    `best_on`: choose among no more than the `number` best cells on that task, by mean validation accuracy (Ali, Mossio, Swelam: Speeding Up
    Joint Architecture Hyperparameter Search with Priors).
    """

    mode, r_max, metric_name, stand_in = "min", EPOCHS, "validation error", STAND_IN

    def __init__(
        self,
        task: str = "cifar10",
        seed: int = 0,
        folder: str = "nasbench201",
        data_dir: str | None = None,
        best_on: str | None = None,
        number: int = 10,
    ) -> None:
        for name, given in (("task", task), ("best_on", best_on)):
            if given not in TASKS and (name, given) != ("best_on", None):
                raise ValueError(f"benchmark.{name}={given!r} is unknown; valid are {', '.join(TASKS)}")
        self.task, self.seed, self._path = task, seed, _find(folder, data_dir)
        cells = _cells(self._path)
        if not 2 <= number <= len(cells.ops):
            raise ValueError(f"benchmark.number={number} must be from 2 to {len(cells.ops)}, the number of cells")
        self._few = {} if best_on is None else {"|".join(cells.op_names[o] for o in ops): ops for ops in best_cells(cells, best_on, number)}
        self.space = build_space({"hyperparameters": self._choices(cells)})
        which = list(TASKS).index(task)
        self.pool_size, self.digest = len(cells.ops), digest_of(self._path)
        self._rows = {tuple(ops): row for row, ops in enumerate(cells.ops.tolist())}
        self._codes = {name: code for code, name in enumerate(cells.op_names)}
        self._seconds = cells.seconds[:, which] / EPOCHS
        self._repetitions = cells.final[which]
        self._progress = _borrowed(self._path, which)
        self._test = cells.test[:, which]
        self.optimum = 1 - float(np.nanmax(np.nanmean(self._repetitions, axis=1))) / 100

    def train(self, job: Job, checkpoint_dir: str | None = None) -> Iterator[Progress]:
        row = self.row(job.config)
        errors, seconds = self._errors(row), float(self._seconds[row])
        for r in range(job.r_from + 1, job.r_to + 1):
            yield Progress(r, float(errors[r - 1]), seconds)

    def curve(self, config: Config) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
        """Metric and elapsed seconds at 1..200."""
        row = self.row(config)
        return self._errors(row), self._seconds[row] * np.arange(1, EPOCHS + 1)

    def test_metric(self, config: Config) -> float:
        """The test error after 200 epochs, mean over repetitions; on cifar10 after training on all of it, validation images included."""
        return 1 - float(self._test[self.row(config)]) / 100

    def row(self, config: Config) -> int:
        """The cell's index in the official order."""
        if self._few:
            return self._rows[tuple(self._few[str(config["cell"])].tolist())]
        return self._rows[tuple(self._codes[str(config[f"edge_{edge}"])] for edge in EDGES)]

    def _choices(self, cells: Cells) -> dict[str, Any]:
        if self._few:
            return {"cell": {"type": "categorical", "choices": list(self._few)}}
        return {f"edge_{edge}": {"type": "categorical", "choices": list(cells.op_names)} for edge in EDGES}

    def _errors(self, row: int) -> Float64[np.ndarray, " R"]:
        runs = self._repetitions[row][np.isfinite(self._repetitions[row])]
        final = runs[np.random.default_rng([self.seed, row]).integers(len(runs))]
        return 1 - _accuracies(self._progress[row], final, TASKS[self.task]) / 100


class Cells(NamedTuple):
    """What the file holds. Accuracies in percent, nan where a repetition was not run."""

    ops: Int[np.ndarray, "N 6"]
    op_names: tuple[str, ...]
    final: tuple[Float64[np.ndarray, "N S"], ...]  # of validation, per task
    test: Float64[np.ndarray, "N T"]
    seconds: Float64[np.ndarray, "N T"]  # of 200 epochs
    real: Int[np.ndarray, " L"]  # cells whose curve is known
    curves: Float64[np.ndarray, "L R"]


def validate(data_dir: str, folder: str = "nasbench201") -> dict[str, dict[int, float]]:
    """The borrowed curves of the cells whose real curves no cell may borrow, against these, by epoch.

    rank: Spearman's correlation of the accuracy at an epoch with the final one; spread: of the relative progress, its standard
    deviation; error: median absolute difference of real and borrowed accuracy, in points.
    """
    path = _find(folder, data_dir)
    cells, (_, held) = _cells(path), _halves(200)
    real, rows = cells.curves[held], cells.real[held]
    mine = _accuracies(_borrowed(path, 0)[rows], real[:, -1:], TASKS["cifar10"])
    result: dict[str, dict[int, float]] = {}
    for e in (1, 3, 9, 27, 81, 150, 190):
        for name, curves in (("real", real), ("model", mine)):
            result.setdefault(f"rank, {name}", {})[e] = _spearman(curves[:, e - 1], curves[:, -1])
            result.setdefault(f"spread, {name}", {})[e] = float(np.std(_relative(curves[_learnt(curves)])[:, e - 1]))
        result.setdefault("error", {})[e] = float(np.median(np.abs(mine - real)[:, e - 1]))
    return result


@lru_cache(maxsize=6)
def _borrowed(path: Path, task: int) -> Float32[np.ndarray, "N R"]:
    """Relative progress of every cell on this task."""
    cells = _cells(path)
    donors, _ = _halves(len(cells.real))
    donors = donors[_learnt(cells.curves[donors])]  # a cell that never learnt anything has no progress to lend
    progress = _relative(cells.curves[donors])
    order = np.argsort(_ranks(np.nanmean(cells.final[0], axis=1))[cells.real[donors]])
    lenders = np.sort(_ranks(np.nanmean(cells.final[0], axis=1))[cells.real[donors]])
    ranks = _ranks(np.nanmean(cells.final[task], axis=1))
    nearest = np.argsort(np.abs(ranks[:, None] - lenders), axis=1, kind="stable")[:, :DONORS]
    drawn = np.random.default_rng([HALVES_SEED, task]).integers(DONORS, size=len(ranks))
    chosen: Float32[np.ndarray, "N R"] = progress[order[nearest[np.arange(len(ranks)), drawn]]].astype(np.float32)
    return chosen


def _learnt(curves: np.ndarray) -> np.ndarray:
    return curves[:, -1] > 2 * 100 / TASKS["cifar10"]


def best_cells(cells: Cells, task: str, number: int) -> Int[np.ndarray, "M 6"]:
    """The operations of the `number` best cells by mean validation accuracy on `task` after 200 epochs, best first."""
    return cells.ops[_order(cells, task)[:number]]


def worst_cells(cells: Cells, task: str, number: int) -> Int[np.ndarray, "M 6"]:
    return cells.ops[_order(cells, task)[-number:]]


def _order(cells: Cells, task: str) -> Int[np.ndarray, " N"]:
    return np.argsort(-np.nanmean(cells.final[list(TASKS).index(task)], axis=1), kind="stable")


def load_cells(folder: str = "nasbench201", data_dir: str | None = None) -> Cells:
    """The table, whole. Raises ValueError where there is none, or it is damaged."""
    return _cells(_find(folder, data_dir))


@lru_cache(maxsize=2)
def _cells(path: Path) -> Cells:
    names = ("val_acc_e200_cifar10_seeds", "val_acc_e200_cifar100_seeds", "val_acc_e200_imagenet16_seeds")
    others = ("test_acc_e200_seedmean", "train_seconds_e200", "lc_cifar10_val_acc")
    try:
        with np.load(path, allow_pickle=False) as file:
            final = tuple(np.asarray(file[name], np.float64) for name in names)
            test, seconds, curves = (np.asarray(file[name], np.float64) for name in others)
            cells = Cells(file["ops"].astype(int), tuple(map(str, file["op_names"])), final, test, seconds, file["lc_arch_index"], curves)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"benchmark=nasbench201: {path} is damaged or another table: {' '.join(str(error).split())}") from error
    if len(np.unique(cells.ops, axis=0)) != len(cells.op_names) ** len(EDGES) or not np.isfinite(seconds).all():
        raise ValueError(f"benchmark=nasbench201: {path} does not hold all {len(cells.op_names) ** len(EDGES)} cells")
    num, known = len(cells.ops), len(cells.real)
    shapes = {name: (values.shape, (num, values.shape[-1])) for name, values in zip(names, final, strict=True)}
    shapes |= {name: (values.shape, (num, len(TASKS))) for name, values in zip(others[:2], (test, seconds), strict=True)}
    for name, (found, expected) in (shapes | {others[2]: (curves.shape, (known, EPOCHS))}).items():
        if found != expected:
            raise ValueError(f"benchmark=nasbench201: {path}: {name} has shape {found}; {expected} is expected")
    if not np.isfinite(curves).all() or not np.isfinite(test).all():
        raise ValueError(
            f"benchmark=nasbench201: {path}: {others[2] if np.isfinite(test).all() else others[0]} has cells that are no number"
        )
    if known < 2 or len(np.unique(cells.real)) < known or not 0 <= cells.real.min() <= cells.real.max() < num:
        raise ValueError(f"benchmark=nasbench201: {path}: lc_arch_index must number some of the {num} cells, each once")
    if any(np.isnan(values).all(axis=1).any() for values in final):
        raise ValueError(f"benchmark=nasbench201: {path} has cells without a final accuracy")
    return cells


def _find(folder: str, data_dir: str | None) -> Path:
    candidates = [Path(folder, "nasbench201.npz")] + ([Path(data_dir, folder, "nasbench201.npz")] if data_dir is not None else [])
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise ValueError(
        f"benchmark=nasbench201: there is no {' or '.join(map(str, candidates))}; set data_dir or benchmark.folder, "
        "or read the table with real curves by benchmark=blackbox"
    )


def _halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(HALVES_SEED).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _ranks(final: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """0 for the worst cell, 1 for the best: comparable between data sets."""
    return (rankdata(final) - 1) / (len(final) - 1)


def _relative(accuracies: np.ndarray) -> np.ndarray:
    """Of curves on CIFAR-10."""
    chance = 100 / TASKS["cifar10"]
    return (accuracies - chance) / (accuracies[:, -1:] - chance)


def _accuracies(progress: np.ndarray, final: Any, classes: int) -> np.ndarray:
    """Accuracies in percent; the last one is `final` exactly, whatever the model says."""
    chance = 100 / classes
    result = np.clip(chance + progress * (final - chance), 0.0, 100.0)
    result[..., -1:] = final
    return result


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
