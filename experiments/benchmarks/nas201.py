"""Cell networks on CIFAR-10 as a benchmark: architecture and training are searched together, or either with the other constant.

The skeleton's defaults are NAS-Bench-201's; two stages of three cells with 64 channels make the shallow, wide network of the work on
priors over architectures and hyperparameters. SGD with Nesterov momentum 0.9, the learning rate falls along a cosine over r_max. One
fold trains on half of the training images and is validated on the other half, as NAS-Bench-201's cifar10-valid; two folds are a
cross-validation over the same halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmarks.cells import EDGES, OPERATIONS, CellNetwork, Rates
from experiments.benchmarks.curve import Choices, Numbers, check_counts, check_space, identity, plain
from experiments.benchmarks.image_task import ImageTask
from experiments.benchmarks.images import Hyper, Recipe, arguments
from experiments.benchmarks.space import build_space
from schedulers.types import Job, Progress

MOMENTUM = 0.9
DROPOUT = Numbers(float, 0.0, 0.9999)


def domains(stages: int) -> dict[str, Numbers | Choices]:
    """The architecture, a dropout rate for each stage and one before the classifier, and how to train."""
    return {
        **{f"edge_{i}": Choices(OPERATIONS) for i in range(len(EDGES))},
        "learning_rate": Numbers(float, 0.0, math.inf),
        "batch_size": Numbers(int, 1, math.inf),
        "weight_decay": Numbers(float, 0.0, math.inf),
        **{f"dropout_{i + 1}": DROPOUT for i in range(stages)},
        "dropout_head": DROPOUT,
        "trivial_augment": Choices((False, True)),
    }


class NAS201:
    """`edge_0` to `edge_5` are the operations of the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3.

    `channels`: of the first stage. `task`: settings of the `ImageTask`.
    """

    mode = "min"

    def __init__(
        self,
        space: Any,
        r_max: int = 200,
        channels: int = 16,
        cells: int = 5,
        stages: int = 3,
        **task: Any,
    ) -> None:
        check_counts(channels=channels, cells=cells, stages=stages)
        self.space, self._domains = build_space(space), domains(stages)
        check_space("nas201", self.space, self._domains)
        self.r_max, self.size = r_max, (channels, cells, stages)
        self._task = ImageTask(r_max, valid_share=0.5, **task)
        self.metric_name = self._task.metric_name

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        """Yield the error after each unit of resource; nan from the unit on in which the loss is not finite."""
        values = plain(job.config, self._domains)
        operations = tuple(values[f"edge_{i}"] for i in range(len(EDGES)))
        stage_rates: Any = np.array([values[f"dropout_{i + 1}"] for i in range(self.size[-1])], np.float32)
        head_rate: Any = np.float32(values["dropout_head"])
        rates = Rates(stage_rates, head_rate)

        def hyper_at(r: int) -> Hyper:
            rate = values["learning_rate"] * (1 + math.cos(math.pi * (r - 1) / self.r_max)) / 2
            return arguments(rate, MOMENTUM, values["weight_decay"], values["batch_size"], rates)

        recipe = Recipe(CellNetwork(operations, *self.size), nesterov=True)
        owner = identity("nas201", list(self.size), self._task.identity(), sorted(values.items()))
        return self._task.curve(job, checkpoint_dir, owner, recipe, hyper_at, trivial=values["trivial_augment"])
