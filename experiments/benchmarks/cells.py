"""Networks of cells, as in NAS-Bench-201 (Dong & Yang 2020): one cell, chosen by six operations, repeated along a fixed skeleton.

A cell has four nodes; node j is the sum over i < j of operation (i, j) applied to node i. The skeleton is a convolution, then stages of
cells, with a residual block of stride 2 and twice the channels between stages.

A program is compiled per architecture: one program for all would have to compute every operation (four times the work), or choose by a
traced switch, which saves the compiling but loses more than that within a few thousand images (numbers in docs/networks.md). Cells of
a stage are scanned, so that compiling does not grow with their number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from experiments.benchmarks.cifar import NUM_CLASSES
from experiments.benchmarks.layers import Conv, Norm, average_3x3, dropout
from experiments.benchmarks.resnet import BasicBlock

# NAS-Bench-201's names, in its order.
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


class Rates(NamedTuple):
    """Dropout, as traced arguments."""

    stages: Float[Array, " T"]  # after each stage, of channels
    head: Float[Array, ""]  # before the classifier


class Cell(nn.Module):
    """`operations` in the order of EDGES. A node that nothing reaches is zero."""

    operations: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], exists: Bool[Array, " B"] | None) -> tuple[Float[Array, "B H W C"], None]:
        nodes = [x, *[jnp.zeros_like(x)] * 3]
        for (source, target), operation in zip(EDGES, self.operations, strict=True):
            nodes[target] = nodes[target] + self._apply(operation, nodes[source], exists)
        return nodes[-1], None

    def _apply(self, operation: str, x: Array, exists: Array | None) -> Array:
        if operation == "none":
            return jnp.zeros_like(x)
        if operation == "skip_connect":
            return x
        if operation == "avg_pool_3x3":
            return average_3x3(x)
        convolution = Conv(x.shape[-1], size=1 if operation == "nor_conv_1x1" else 3)
        y: Array = Norm()(convolution(nn.relu(x)), exists)
        return y


class CellNetwork(nn.Module):
    """`stages` stages of `cells` cells; the first has `channels` channels."""

    operations: tuple[str, ...]
    channels: int
    cells: int
    stages: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S S 3"], rates: Rates, exists: Bool[Array, " B"] | None, key: Array | None, rows: Int[Array, " B"] | None
    ) -> Float[Array, "B C"]:
        def drop(x: Array, rate: Array, place: int) -> Array:
            return x if exists is None or key is None or rows is None else dropout(x, rate, jax.random.fold_in(key, place), rows)

        x = Norm()(Conv(self.channels)(x), exists)
        for stage in range(self.stages):
            if stage:
                x = BasicBlock(self.channels << stage, stride=2)(x, exists)
            scan: Any = nn.scan(
                Cell,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.cells,
            )
            x, _ = scan(self.operations)(x, exists)
            x = drop(x, rates.stages[stage], stage)
        x = jnp.mean(nn.relu(Norm()(x, exists)), axis=(1, 2)).astype(jnp.float32)
        return nn.Dense(NUM_CLASSES)(drop(x, rates.head, self.stages))
