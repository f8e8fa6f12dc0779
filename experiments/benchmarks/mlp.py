"""The A-BOHB paper's perceptron as a benchmark: a network that really trains (Klein et al. 2020, section 5.1).

Two hidden ReLU layers, Adam, eight hyperparameters; the metric is the validation error after each epoch. A curve is a function of
(seed, configuration): a trial that starts again repeats it exactly, and so does one that goes on from a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import datasets
from experiments.benchmarks.curve import Advance, Numbers, check_r_max, check_space, curve, identity, plain, trial_key
from experiments.benchmarks.network import BATCHES, WIDTHS, Data, Hyper, State, bucket, cut, epoch_program, init_program, shapes
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

DOMAINS = {
    "learning_rate": Numbers(float, 0.0, math.inf),
    "batch_size": Numbers(int, 1, math.inf),
    "dropout_1": Numbers(float, 0.0, 0.9999),
    "dropout_2": Numbers(float, 0.0, 0.9999),
    "units_1": Numbers(int, 1, math.inf),
    "units_2": Numbers(int, 1, math.inf),
    "init_scale_1": Numbers(float, 0.0, math.inf),
    "init_scale_2": Numbers(float, 0.0, math.inf),
}


class MLP:
    """Tune the perceptron on `dataset`; `data_dir` is a folder with data sets that need not be downloaded."""

    mode = "min"
    metric_name = "validation error"

    def __init__(self, space: Any, dataset: str = "digits", r_max: int = 27, data_dir: str | None = None, seed: int = 0) -> None:
        self.space = build_space(space)
        check_space("mlp", self.space, DOMAINS)
        check_r_max(r_max)
        self.dataset, self.r_max, self.data_dir, self.seed = dataset, r_max, data_dir, seed
        # Now, not in the first trial: what cannot be had is to fail before anything runs. Only the name travels to a worker.
        datasets.load(dataset, data_dir)

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the validation error after each epoch; nan from the epoch on in which the validation loss is not finite."""
        values = plain(job.config, DOMAINS)
        owner = identity(self.dataset, self.seed, sorted(values.items()))
        return curve(job, checkpoint_dir, owner, partial(self._prepare, values, trial_key(owner)))

    def _prepare(self, values: dict[str, Any], key: jax.Array) -> tuple[State, Advance[State]]:
        data, num_classes = _on_device(self.dataset, self.data_dir)
        widths = (bucket(values["units_1"], WIDTHS), bucket(values["units_2"], WIDTHS))
        epoch = epoch_program(shapes(data), num_classes, widths, bucket(values["batch_size"], BATCHES))
        hyper = _hyper(values)
        # One program for all widths: the largest network, of which a bucket takes its corner.
        widest = max(WIDTHS[-1], *widths)
        untrained = cut(init_program(data.x_train.shape[1], (widest, widest), num_classes)(key, hyper), widths)

        def advance(state: State, r: int) -> tuple[State, float]:
            state, validation = epoch(state, key, hyper, data)
            return state, float(validation.error) if math.isfinite(float(validation.loss)) else math.nan

        return untrained, advance


def _hyper(values: Mapping[str, Any]) -> Hyper:
    def pair(name: str, dtype: type) -> np.ndarray:
        return np.array([values[f"{name}_1"], values[f"{name}_2"]], dtype)

    rate, batch_size = np.float32(values["learning_rate"]), np.int32(values["batch_size"])
    # device_put, unlike jnp.asarray, compiles nothing.
    return Hyper(*jax.device_put([rate, batch_size, pair("dropout", np.float32), pair("units", np.int32), pair("init_scale", np.float32)]))


@lru_cache(maxsize=2)
def _on_device(name: str, data_dir: str | None) -> tuple[Data, int]:
    *arrays, num_classes = datasets.load(name, data_dir)
    return Data(*(jax.device_put(array) for array in arrays)), num_classes
