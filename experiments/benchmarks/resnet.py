"""A residual network on CIFAR-10 as a benchmark (He et al. 2016; Klein et al. 2020, experiment with a ResNet).

SGD with momentum, random crops and flips; the learning rate falls to a tenth after `decay_after` units of resource. The metric is the
validation error after each unit. The paper prints the learning rate's range as [1^-3, 1^-1]; [1e-3, 1e-1] is meant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.cifar import NUM_CLASSES
from experiments.benchmarks.curve import Numbers, check_counts, check_space, identity, plain
from experiments.benchmarks.image_task import ImageTask
from experiments.benchmarks.images import Hyper, Recipe, arguments
from experiments.benchmarks.layers import Conv, Norm
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

DOMAINS = {
    "learning_rate": Numbers(float, 0.0, math.inf),
    "batch_size": Numbers(int, 1, math.inf),
    "weight_decay": Numbers(float, 0.0, math.inf),
    "momentum": Numbers(float, 0.0, 0.9999),
}
DECAY = 0.1


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], exists: Bool[Array, " B"] | None) -> Float[Array, "B h w O"]:
        y = nn.relu(Norm()(Conv(self.channels, stride=self.stride)(x), exists))
        y = Norm()(Conv(self.channels)(y), exists)
        if x.shape != y.shape:
            x = Norm()(Conv(self.channels, size=1, stride=self.stride)(x), exists)
        return nn.relu(x + y)


class ResidualNetwork(nn.Module):
    """`blocks[i]` basic blocks in stage i, of `width` 2^i channels; the image halves between stages."""

    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S S 3"], settings: Any, exists: Bool[Array, " B"] | None, key: Array | None, rows: Int[Array, " B"] | None
    ) -> Float[Array, "B C"]:
        x = nn.relu(Norm()(Conv(self.width)(x), exists))
        for stage, num_blocks in enumerate(self.blocks):
            for block in range(num_blocks):
                x = BasicBlock(self.width << stage, stride=2 if stage and not block else 1)(x, exists)
        return nn.Dense(NUM_CLASSES)(jnp.mean(x, axis=(1, 2)).astype(jnp.float32))


class ResNet:
    """`blocks` and `width` are the network's size: [2, 2, 2, 2] and 64 make the ResNet-18 for CIFAR, [1, 1, 1] and 16 one for a CPU.

    `task`: settings of the `ImageTask`.
    """

    mode = "min"

    def __init__(
        self,
        space: Any,
        r_max: int = 27,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        decay_after: int = 25,
        **task: Any,
    ) -> None:
        self.space = build_space(space)
        check_space("resnet", self.space, DOMAINS)
        check_counts(width=width, decay_after=decay_after, blocks=len(blocks), **{f"blocks[{i}]": num for i, num in enumerate(blocks)})
        self.r_max, self.decay_after = r_max, decay_after
        self._network = ResidualNetwork(tuple(blocks), width)
        self._task = ImageTask(r_max, **task)
        self.metric_name = self._task.metric_name

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the error after each unit of resource; nan from the unit on in which the loss is not finite."""
        values = plain(job.config, DOMAINS)

        def hyper_at(r: int) -> Hyper:
            rate = values["learning_rate"] * (DECAY if r > self.decay_after else 1.0)
            return arguments(rate, values["momentum"], values["weight_decay"], values["batch_size"])

        size = [list(self._network.blocks), self._network.width, self.decay_after]
        owner = identity("resnet", size, self._task.identity(), sorted(values.items()))
        return self._task.curve(job, checkpoint_dir, owner, Recipe(self._network), hyper_at)
