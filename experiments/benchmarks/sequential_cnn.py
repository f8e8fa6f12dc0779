"""A plain convolutional network on CIFAR-10 as a benchmark, with as many layers as the configuration says, each of its own width.

`channels_2` to `channels_4` are active only in networks that deep. Networks are padded to the width of their widest layer, rounded up to
`WIDTHS`, and programs are compiled per depth and padded width. The padding cannot be seen but for rounding: initial weights depend on
their place alone, and channels that pad are and stay zero. SGD with momentum 0.9, the learning rate falls along a cosine over r_max.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.scipy.special import erfinv
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.cifar import NUM_CLASSES
from experiments.benchmarks.curve import Numbers, check_space, identity, plain
from experiments.benchmarks.image_task import ImageTask
from experiments.benchmarks.images import Hyper, Recipe, arguments
from experiments.benchmarks.layers import Norm, conv, dropout
from experiments.benchmarks.network import as_uniform, bits_at, bucket
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

MAX_LAYERS = 4
WIDTHS = (32, 64, 128)
MOMENTUM = 0.9
CHANNELS = tuple(f"channels_{i + 1}" for i in range(MAX_LAYERS))
DOMAINS = {
    "learning_rate": Numbers(float, 0.0, math.inf),
    "batch_size": Numbers(int, 1, math.inf),
    "weight_decay": Numbers(float, 0.0, math.inf),
    "dropout_conv": Numbers(float, 0.0, 0.9999),
    "dropout_head": Numbers(float, 0.0, 0.9999),
    "num_layers": Numbers(int, 1, MAX_LAYERS),
    **{name: Numbers(int, 1, math.inf) for name in CHANNELS},
}


class Settings(NamedTuple):
    channels: Int[Array, " L"]
    dropout_conv: Float[Array, ""]  # after each layer, of channels
    dropout_head: Float[Array, ""]  # before the classifier


class SequentialNetwork(nn.Module):
    """Layers of a 3x3 convolution, batch normalisation, ReLU and 2x2 max pooling; then the mean over the image and a classifier."""

    num_layers: int
    width: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S S 3"],
        settings: Settings,
        exists: Bool[Array, " B"] | None,
        key: Array | None,
        rows: Int[Array, " B"] | None,
    ) -> Float[Array, "B C"]:
        def drop(x: Array, rate: Array, place: int) -> Array:
            return x if exists is None or key is None or rows is None else dropout(x, rate, jax.random.fold_in(key, place), rows)

        fan_in: Array | int = 3
        for layer in range(self.num_layers):
            kernel = self.param(f"kernel_{layer}", _placed_normal, (3, 3, x.shape[-1], self.width), fan_in)
            fan_in = settings.channels[layer]
            is_real = jnp.arange(self.width) < fan_in
            # Masked, so that neither what pads nor its gradient is ever anything but zero.
            y = nn.relu(Norm()(conv(x, jnp.where(is_real, kernel, 0).astype(x.dtype)), exists)) * is_real.astype(x.dtype)
            x = drop(_max_pool(y), settings.dropout_conv, layer)
        x = drop(jnp.mean(x, axis=(1, 2)).astype(jnp.float32), settings.dropout_head, self.num_layers)
        kernel = self.param("output", _placed_normal, (1, 1, self.width, NUM_CLASSES), fan_in)[0, 0]
        shift = self.param("shift", nn.initializers.zeros, (NUM_CLASSES,))
        return x @ jnp.where((jnp.arange(self.width) < fan_in)[:, None], kernel, 0) + shift


def _placed_normal(key: Array, shape: tuple[int, int, int, int], fan_in: Array | int) -> Float[Array, "K K I O"]:
    """He's normal weights (variance 2 / inputs of those that exist), each a function of its place, so that no padding changes it."""
    size, _, num_in, num_out = shape
    spots = jnp.arange(size * size)[:, None] << 16
    uniform = as_uniform(bits_at(key, (spots + jnp.arange(num_in)).ravel(), jnp.arange(num_out))[0])
    normal = math.sqrt(2) * erfinv(2 * jnp.clip(uniform, 1e-7, 1 - 1e-7) - 1)
    kernel = normal.reshape(shape) * jnp.sqrt(2 / (size * size * jnp.asarray(fan_in, jnp.float32)))
    return jnp.where((jnp.arange(num_in) < fan_in)[:, None], kernel, 0)


def _max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maximum of 2x2 blocks, by pairs: its gradient is far faster than that of a window reduction."""
    if min(x.shape[1:3]) < 2:
        return x
    rows = lax.max(x[:, 0::2], x[:, 1::2])
    return lax.max(rows[:, :, 0::2], rows[:, :, 1::2])


class SequentialCNN:
    """Conditions of the space may deactivate `channels_2` to `channels_4`; a layer beyond `num_layers` is not built.

    `task`: settings of the `ImageTask`.
    """

    mode = "min"

    def __init__(self, space: Any, r_max: int = 20, **task: Any) -> None:
        self.space = build_space(space)
        check_space("sequential_cnn", self.space, DOMAINS, conditional=CHANNELS[1:])
        self._check_conditions()
        self.r_max = r_max
        self._task = ImageTask(r_max, valid_share=0.5, **task)
        self.metric_name = self._task.metric_name

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the error after each unit of resource; nan from the unit on in which the loss is not finite."""
        values = plain(job.config, DOMAINS)
        active = CHANNELS[: values["num_layers"]]
        values = {name: value for name, value in values.items() if name not in CHANNELS or name in active}
        channels = np.array([values[name] for name in active], np.int32)
        rates = (np.float32(values[name]) for name in ("dropout_conv", "dropout_head"))
        settings: Any = Settings(channels, *rates)  # type: ignore[arg-type]

        def hyper_at(r: int) -> Hyper:
            rate = values["learning_rate"] * (1 + math.cos(math.pi * (r - 1) / self.r_max)) / 2
            return arguments(rate, MOMENTUM, values["weight_decay"], values["batch_size"], settings)

        network = SequentialNetwork(len(active), bucket(int(channels.max()), WIDTHS))
        owner = identity("sequential_cnn", self._task.identity(), sorted(values.items()))
        return self._task.curve(job, checkpoint_dir, owner, Recipe(network), hyper_at)

    def _check_conditions(self) -> None:
        """Raise when a network could lack the width of one of its layers; random configurations meet each depth of the space."""
        space = copy.deepcopy(self.space)  # whose random state is not ours
        space.seed(0)
        for config in space.sample_configuration(100):
            for name in CHANNELS[: int(config["num_layers"])]:
                if name not in config:
                    depth = config["num_layers"]
                    raise ValueError(f"benchmark=sequential_cnn: {name} is inactive in its space where num_layers={depth} needs it")
