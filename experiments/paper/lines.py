"""The studies behind the lines of a panel, and what fixes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.paper.context import Context
from experiments.paper.panel import Line
from experiments.store import Study

SMOKE_SHARE = 0.05  # of a panel's time


def studies_of(panel: Mapping[str, Any], context: Context) -> dict[tuple[Line, int], Study]:
    """By line and seed."""
    workers = [panel["workers"]] if isinstance(panel["workers"], int) else list(panel["workers"])
    return {
        (Line(method, w), seed): context.study(panel["task"], method, w, seed, seconds=end_of(panel, w, context))
        for method in panel["methods"]
        for w in (workers[:1] if context.scale == "smoke" else workers)
        for seed in range(context.num_seeds())
    }


def end_of(panel: Mapping[str, Any], workers: int, context: Context) -> float:
    """When a study with so many workers ends, in seconds: some tasks have but so many seconds of work."""
    task = context.tasks[panel["task"]]
    share = SMOKE_SHARE if context.scale == "smoke" else 1
    return share * float(min(task["seconds"], task.get("worker_seconds", np.inf) / workers))


def overrides_of(study: Study) -> str:
    """A digest of the overrides that fix a study but for its seed; where its model computes is none of them."""
    return Study(tuple(o for o in study.overrides if not o.startswith("surrogate_device=")), 0).path.parent.name


def named(line: Line) -> str:
    return f"{line.method} with {line.workers}"
