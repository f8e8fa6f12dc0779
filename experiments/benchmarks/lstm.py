"""A word-level LSTM on WikiText-2 as a benchmark (Klein et al. 2020, experiment with a language model).

Two layers, input and output embeddings tied, SGD whose learning rate is divided by a factor after each epoch that does not lower the
validation loss, clipped gradients, dropout. The metric is the logarithm of the validation perplexity, in nats per word: its exponential
is the perplexity. A network that has diverged yields nan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import wikitext
from experiments.benchmarks.curve import (
    PRECISIONS,
    Advance,
    Numbers,
    check_choice,
    check_counts,
    check_r_max,
    check_space,
    compute_dtype,
    curve,
    extremes,
    identity,
    plain,
    trial_key,
)
from experiments.benchmarks.images import shapes
from experiments.benchmarks.lstm_network import Data, Hyper, Size, State, epoch_program, init_program
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

DOMAINS = {
    "learning_rate": Numbers(float, 0.0, math.inf),
    "batch_size": Numbers(int, 1, math.inf),
    "dropout": Numbers(float, 0.0, 0.9999),
    "clip": Numbers(float, 1e-6, math.inf),
    "decay": Numbers(float, 1.0, math.inf),
}


class LSTM:
    """`units` per layer and embedding; `window` words through which gradients flow."""

    mode = "min"
    metric_name = "validation log-perplexity"

    def __init__(
        self,
        space: Any,
        r_max: int = 81,
        units: int = 1500,
        window: int = 35,
        precision: str = "auto",
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        self.space = build_space(space)
        check_space("lstm", self.space, DOMAINS)
        check_r_max(r_max)
        check_counts(units=units, window=window)
        check_choice("precision", precision, PRECISIONS)
        self.r_max, self.units, self.window, self.precision, self.data_dir, self.seed = r_max, units, window, precision, data_dir, seed
        text = wikitext.load(data_dir)  # now, not in the first trial; only the folder's name travels to a worker
        most = max(extremes(self.space["batch_size"]))
        if len(text.train) <= most:
            raise ValueError(f"benchmark=lstm: batch_size={most} lies in its space, but the text has only {len(text.train)} words")

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the validation log-perplexity after each epoch."""
        values = plain(job.config, DOMAINS)
        owner = identity("lstm", self.units, self.window, self.seed, sorted(values.items()))
        return curve(job, checkpoint_dir, owner, partial(self._prepare, values, trial_key(owner)))

    def _prepare(self, values: dict[str, Any], key: jax.Array) -> tuple[State, Advance[State]]:
        data, num_words = _on_device(self.data_dir)
        size = Size(num_words, self.units, self.window)
        scalars: dict[str, Any] = {name: np.asarray(value, _dtype(name)) for name, value in values.items()}
        hyper = jax.device_put(Hyper(**scalars))
        batch = max(8, 1 << (values["batch_size"] - 1).bit_length())
        epoch = epoch_program(size, shapes(hyper), shapes(data), batch, compute_dtype(self.precision))

        def advance(state: State, r: int) -> tuple[State, float]:
            state, loss = epoch(state, key, hyper, data)
            return state, float(loss) if math.isfinite(float(loss)) else math.nan

        return init_program(size, shapes(hyper))(key, hyper), advance


def _dtype(name: str) -> type:
    return np.int32 if DOMAINS[name].kind is int else np.float32


@lru_cache(maxsize=2)
def _on_device(data_dir: str | None) -> tuple[Data, int]:
    text = wikitext.load(data_dir)
    return Data(*jax.device_put((text.train, text.valid))), text.num_words
