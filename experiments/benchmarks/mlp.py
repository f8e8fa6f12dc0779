"""The A-BOHB paper's perceptron as a benchmark: a network that really trains (Klein et al. 2020, section 5.1).

Two hidden ReLU layers, Adam, eight hyperparameters; the metric is the validation error after each epoch. A curve is a function of
(seed, configuration): a trial that starts again repeats it exactly, and so does one that goes on from a checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from ConfigSpace import CategoricalHyperparameter, Constant, OrdinalHyperparameter
from ConfigSpace.hyperparameters import FloatHyperparameter

from experiments.benchmarks import checkpoint, datasets
from experiments.benchmarks.network import BATCHES, WIDTHS, Data, Hyper, bucket, cut, epoch_program, init_program, shapes
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

# Name -> type and the values that mean anything: a space may be narrower, but not wider.
DOMAINS: dict[str, tuple[type, float, float]] = {
    "learning_rate": (float, 0.0, math.inf),
    "batch_size": (int, 1, math.inf),
    "dropout_1": (float, 0.0, 0.9999),
    "dropout_2": (float, 0.0, 0.9999),
    "units_1": (int, 1, math.inf),
    "units_2": (int, 1, math.inf),
    "init_scale_1": (float, 0.0, math.inf),
    "init_scale_2": (float, 0.0, math.inf),
}


class MLP:
    """Tune the perceptron on `dataset`; `data_dir` is a folder with data sets that need not be downloaded."""

    mode = "min"
    metric_name = "validation error"

    def __init__(self, space: Any, dataset: str = "digits", r_max: int = 27, data_dir: str | None = None, seed: int = 0) -> None:
        self.space = build_space(space)
        _check_space(self.space)
        if r_max < 1:
            raise ValueError(f"benchmark.r_max={r_max} must be at least 1 epoch")
        self.dataset, self.r_max, self.data_dir, self.seed = dataset, r_max, data_dir, seed
        # Now, not in the first trial: what cannot be had is to fail before anything runs. Only the name travels to a worker.
        datasets.load(dataset, data_dir)

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the validation error after each epoch; nan from the epoch on in which the validation loss is not finite."""
        start = time.perf_counter()
        values: dict[str, Any] = {name: kind(job.config[name]) for name, (kind, _, _) in DOMAINS.items()}
        identity = self._identity(values)
        data, num_classes = _on_device(self.dataset, self.data_dir)
        widths = (bucket(values["units_1"], WIDTHS), bucket(values["units_2"], WIDTHS))
        epoch = epoch_program(shapes(data), num_classes, widths, bucket(values["batch_size"], BATCHES))
        hyper, key = _hyper(values), _trial_key(identity)
        # One program for all widths: the largest network, of which a bucket takes its corner.
        widest = max(WIDTHS[-1], *widths)
        state = cut(init_program(data.x_train.shape[1], (widest, widest), num_classes)(key, hyper), widths)
        metrics: list[float] = []
        if job.r_from > 0:
            state, metrics = checkpoint.load(checkpoint_dir, state, job.r_from, identity)
        for r in range(job.r_from + 1, job.r_to + 1):
            if r > len(metrics):
                state, validation = epoch(state, key, hyper, data)
                metrics.append(float(validation.error) if math.isfinite(float(validation.loss)) else math.nan)
                if checkpoint_dir is not None and math.isfinite(metrics[-1]):
                    checkpoint.save(checkpoint_dir, state, metrics, identity)
            now = time.perf_counter()
            yield Progress(r, metrics[r - 1], now - start)
            start = time.perf_counter()

    def _identity(self, values: Mapping[str, Any]) -> str:
        """A digest of all that fixes the curve, in hexadecimal digits."""
        content = json.dumps([self.dataset, self.seed, sorted(values.items())])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _check_space(space: Any) -> None:
    """Raise unless `space` has the network's hyperparameters and no other, with ranges that mean something."""
    for name in DOMAINS.keys() ^ set(space):
        state = "misses" if name in DOMAINS else "has the unknown"
        raise ValueError(f"benchmark=mlp: its space {state} parameter {name!r}; it needs exactly {', '.join(DOMAINS)} (a constant will do)")
    if space.conditions:
        raise ValueError("benchmark=mlp: its space has conditions, but the network needs a value of each parameter")
    for name, (kind, least, most) in DOMAINS.items():
        for value in _extremes(space[name]):
            if isinstance(value, str | bool) or not least <= value <= most or kind(value) != value:
                raise ValueError(
                    f"benchmark=mlp: {name}={value!r} lies in its space; valid are {kind.__name__} values in [{least}, {most}]"
                )
        if kind is int and isinstance(space[name], FloatHyperparameter):
            raise ValueError(f"benchmark=mlp: {name} must be of whole numbers; give it the type uniform_int")


def _extremes(parameter: Any) -> tuple[Any, ...]:
    """All values of a finite list, both ends of a range."""
    if isinstance(parameter, Constant):
        return (parameter.value,)
    if isinstance(parameter, CategoricalHyperparameter):
        return tuple(parameter.choices)
    if isinstance(parameter, OrdinalHyperparameter):
        return tuple(parameter.sequence)
    return parameter.lower, parameter.upper


def _hyper(values: Mapping[str, Any]) -> Hyper:
    def pair(name: str, dtype: type) -> np.ndarray:
        return np.array([values[f"{name}_1"], values[f"{name}_2"]], dtype)

    rate, batch_size = np.float32(values["learning_rate"]), np.int32(values["batch_size"])
    # device_put, unlike jnp.asarray, compiles nothing.
    return Hyper(*jax.device_put([rate, batch_size, pair("dropout", np.float32), pair("units", np.int32), pair("init_scale", np.float32)]))


def _trial_key(identity: str) -> jax.Array:
    """Two words of `identity`, which already depends on the seed."""
    return jax.device_put(np.array([int(identity[:8], 16), int(identity[8:16], 16)], np.uint32))


@lru_cache(maxsize=2)
def _on_device(name: str, data_dir: str | None) -> tuple[Data, int]:
    *arrays, num_classes = datasets.load(name, data_dir)
    return Data(*(jax.device_put(array) for array in arrays)), num_classes
