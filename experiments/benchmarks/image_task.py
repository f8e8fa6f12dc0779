"""CIFAR-10 as a task that the image networks share: what they train on, what a unit of resource is, and one trial's curve.

Resources, each ending with all training images at full size at r_max:
    epochs      one pass over the training images
    records     pass r is over the first r / r_max of them
    image_size  pass r is at 8, 16, 24 or 32 pixels a side, growing with r / r_max; validation is at the same size
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split

from experiments.benchmarks import cifar
from experiments.benchmarks.curve import PRECISIONS, Advance, check_choice, check_counts, check_r_max, compute_dtype, curve, trial_key
from experiments.benchmarks.images import Data, Hyper, Recipe, State, augment_program, epoch_program, init_program, shapes
from schedulers.types import Job, Progress

RESOURCES = ("epochs", "records", "image_size")
EVALUATIONS = ("validation", "test")
LEAST_BATCH = 8  # smaller ones are padded to it
SIZES = (8, 16, 24, 32)


@dataclass(frozen=True)
class ImageTask:
    """`folds` 1: a part `valid_share` of the training images validates; more: cross-validation, the metric is the folds' mean error.

    `evaluate` test trains on all training images and yields the test error, for what a study has found. `precision` auto computes
    in bfloat16 on accelerators and in float32 on a CPU.
    """

    r_max: int
    seed: int = 0
    data_dir: str | None = None
    folds: int = 1
    valid_share: float = 0.2
    evaluate: str = "validation"
    resource: str = "epochs"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_r_max(self.r_max, "unit of resource")
        check_counts(folds=self.folds)
        check_choice("resource", self.resource, RESOURCES)
        check_choice("evaluate", self.evaluate, EVALUATIONS)
        check_choice("precision", self.precision, PRECISIONS)
        cifar.load(self.data_dir)  # now, not in the first trial; only the folder's name travels to a worker

    @property
    def metric_name(self) -> str:
        return f"{self.evaluate} error"

    def curve(
        self, job: Job, checkpoint_dir: str | None, owner: str, recipe: Recipe, hyper_at: Callable[[int], Hyper], trivial: bool = False
    ) -> Iterator[Progress]:
        """One trial: `hyper_at(r)` are the settings of the pass that reaches r, `owner` its `identity`; `trivial`: with TrivialAugment."""

        def prepare() -> tuple[State, Advance[State]]:
            key, data = trial_key(owner), on_device(self)
            kind = shapes(hyper_at(1))
            batch = max(LEAST_BATCH, 1 << (int(hyper_at(1).batch_size) - 1).bit_length())
            exact = recipe._replace(dtype=compute_dtype(self.precision))

            def advance(state: State, r: int) -> tuple[State, float]:
                epoch = epoch_program(exact, kind, shapes(data), batch, self._size(r))
                num_records = jax.device_put(np.int32(self._num_records(r, data.train_rows.shape[1])))
                views = augment(key, state.epoch, data, num_records)
                state, validation = epoch(state, key, jax.device_put(hyper_at(r)), data, views, num_records)
                return state, float(validation.error) if math.isfinite(float(validation.loss)) else math.nan

            augment = augment_program(shapes(data), trivial)
            init = init_program(exact, kind, len(data.train_rows), data.x.shape[1])
            return init(key, jax.device_put(hyper_at(1))), advance

        return curve(job, checkpoint_dir, owner, prepare)

    def identity(self) -> list[Any]:
        """What of the task fixes a curve; not where the data lie, nor the precision, which may follow the device."""
        return [self.r_max, self.seed, self.folds, self.valid_share, self.evaluate, self.resource]

    def _size(self, r: int) -> int:
        return SIZES[-1] if self.resource != "image_size" else SIZES[-(-len(SIZES) * r // self.r_max) - 1]

    def _num_records(self, r: int, all_records: int) -> int:
        return all_records if self.resource != "records" else -(-all_records * r // self.r_max)


@lru_cache(maxsize=2)
def on_device(task: ImageTask) -> Data:
    images = cifar.load(task.data_dir)
    if task.evaluate == "test":
        x, y = np.concatenate([images.x_train, images.x_test]), np.concatenate([images.y_train, images.y_test])
        train, valid = _shuffled(np.arange(len(images.y_train)))[None], np.arange(len(images.y_train), len(y))[None]
    else:
        x, y = images.x_train, images.y_train
        train, valid = split(y, task.folds, task.valid_share)
    return Data(*jax.device_put((x, y, train.astype(np.int32), valid.astype(np.int32))))


def split(labels: np.ndarray, folds: int, valid_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and to validate on, (folds, rows), stratified; the same for all studies, whatever their seeds.

    Folds that would differ by a row are cut to the shortest.
    """
    if folds == 1:
        train, valid = train_test_split(np.arange(len(labels)), test_size=valid_share, random_state=0, stratify=labels)
        return train[None], valid[None]
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels))
    num_train, num_valid = (min(len(part[i]) for part in parts) for i in (0, 1))
    return np.stack([_shuffled(train)[:num_train] for train, _ in parts]), np.stack([valid[:num_valid] for _, valid in parts])


def _shuffled(rows: np.ndarray) -> np.ndarray:
    """In a fixed random order, so that the first of them are a fair sample."""
    return np.random.default_rng(0).permutation(rows)
