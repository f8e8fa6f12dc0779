"""The A-BOHB paper's perceptron as a benchmark: a network that really trains (Klein et al. 2020, section 5.1).

Two hidden ReLU layers, Adam, eight hyperparameters; the metric is the validation error after each epoch. A curve is a function of
(seed, configuration): a trial that starts again repeats it exactly, and so does one that goes on from a checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import datasets
from experiments.benchmarks.curve import Advance, Numbers, check_r_max, check_space, curve, identity, plain, trial_key
from experiments.benchmarks.network import (
    BATCHES,
    WIDTHS,
    Data,
    Hyper,
    State,
    bucket,
    cut,
    epoch_program,
    group_program,
    init_program,
    shapes,
)
from experiments.benchmarks.space import build_space
from schedulers.types import Config, Job, Progress

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


# Training of fewer rows is over before a program of the network's own size is compiled, which takes a second and a half.
OWN_PROGRAM_ROWS = 2000


class MLP:
    """Tune the perceptron on `dataset`; `data_dir` is a folder with data sets that need not be downloaded.

    records: train on that many rows only, a random part that a larger number contains; validation stays as it is.
    """

    mode = "min"
    metric_name = "validation error"

    def __init__(
        self,
        space: Any,
        dataset: str = "digits",
        r_max: int = 27,
        data_dir: str | None = None,
        seed: int = 0,
        records: int | None = None,
    ) -> None:
        self.space = build_space(space)
        check_space("mlp", self.space, DOMAINS)
        check_r_max(r_max)
        self.dataset, self.r_max, self.data_dir, self.seed = dataset, r_max, data_dir, seed
        # Now, not in the first trial: what cannot be had is to fail before anything runs. Only the name travels to a worker.
        available = len(datasets.load(dataset, data_dir).x_train)
        if records is not None and not 1 <= records <= available:
            raise ValueError(f"benchmark.records={records} must be from 1 to {available}, the training rows of {dataset}")
        self.records = records

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the validation error after each epoch; nan from the epoch on in which the validation loss is not finite."""
        values = plain(job.config, DOMAINS)
        owner = self._owner(values)
        return curve(job, checkpoint_dir, owner, partial(self._prepare, values, trial_key(owner)))

    def train_together(self, configs: Sequence[Config], size: int) -> np.ndarray:
        """[N, r_max, 2]: the validation error after each epoch and the seconds it took, of networks trained `size` at a time.

        A network's curve does not depend on its company but for rounding. What diverged is nan from there on. An epoch's seconds (of
        the processor on a CPU, on the clock elsewhere; compiling left out) are shared in a group by numbers of steps.
        """
        values = [plain(config, DOMAINS) for config in configs]
        # Similar ones go together: a group is padded to its widest network and takes the steps of its smallest batch.
        order = sorted(range(len(values)), key=lambda i: tuple(values[i][name] for name in ("batch_size", "units_1", "units_2")))
        curves = np.empty((len(values), self.r_max, 2))
        for start in range(0, len(order), size):
            group = order[start : start + size]
            curves[group] = self._train_group([values[i] for i in group])
        return curves

    def _owner(self, values: Mapping[str, Any]) -> str:
        """A digest of all that fixes the curve of a configuration."""
        part = [] if self.records is None else [self.records]
        return identity(self.dataset, self.seed, sorted(values.items()), *part)

    def _train_group(self, values: list[dict[str, Any]]) -> np.ndarray:
        data, num_classes = _on_device(self.dataset, self.data_dir, self.records)
        keys = [trial_key(self._owner(one)) for one in values]
        widths = (max(one["units_1"] for one in values), max(one["units_2"] for one in values))
        batch = max(one["batch_size"] for one in values)
        if len(data.x_train) < OWN_PROGRAM_ROWS:
            widths, batch = (bucket(widths[0], WIDTHS), bucket(widths[1], WIDTHS)), bucket(batch, BATCHES)
        widest = max(WIDTHS[-1], *widths)
        init = init_program(data.x_train.shape[1], (widest, widest), num_classes)
        hypers = [_hyper(one) for one in values]
        states = [cut(init(key, hyper), widths) for key, hyper in zip(keys, hypers, strict=True)]
        program: Any
        if len(values) == 1:
            program, state, key, hyper = epoch_program(shapes(data), num_classes, widths, batch), states[0], keys[0], hypers[0]
        else:
            program = group_program(shapes(data), num_classes, widths, batch, len(values))
            state, key, hyper = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *zip(states, keys, hypers, strict=True))
        clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
        steps = np.array([-(-len(data.x_train) // one["batch_size"]) for one in values])
        curves = np.full((len(values), self.r_max, 2), np.nan)
        alive = np.ones(len(values), bool)
        for epoch in range(self.r_max):
            began = clock()
            state, validation = program(state, key, hyper, data)
            loss, error = (np.atleast_1d(leaf) for leaf in jax.device_get(validation))
            seconds = (clock() - began) * steps / steps.sum()
            curves[alive, epoch, 1] = seconds[alive]
            alive &= np.isfinite(loss)
            curves[alive, epoch, 0] = error[alive]
            if not alive.any():
                break
        return curves

    def _prepare(self, values: dict[str, Any], key: jax.Array) -> tuple[State, Advance[State]]:
        data, num_classes = _on_device(self.dataset, self.data_dir, self.records)
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
def _on_device(name: str, data_dir: str | None, records: int | None = None) -> tuple[Data, int]:
    *arrays, num_classes = datasets.load(name, data_dir)
    arrays = [*(part[:records] for part in arrays[:2]), *arrays[2:]]  # the rows are in random order
    return Data(*(jax.device_put(array) for array in arrays)), num_classes
