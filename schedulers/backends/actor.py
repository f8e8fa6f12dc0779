"""What runs in a Ray actor (`schedulers.backends.ray`), and the environment that it is given."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from schedulers.backends import slots
from schedulers.backends.cluster import library
from schedulers.backends.trial import Segment
from schedulers.backends.worker import forward_notes, prepare
from schedulers.types import Benchmark, Job, Report

SENT = ("JAX_", "XLA_", "MFGP_", "OPENBLAS_", "MKL_", "OMP_")  # of the driver's environment, to the actors


class Trainer:
    """What runs in an actor: one trial at a time. Its environment is set before the benchmark, and with it JAX, is imported."""

    def __init__(self, benchmark: bytes, environment: Mapping[str, str], path: Sequence[str]) -> None:
        os.environ.update(environment)
        sys.path.extend(entry for entry in path if entry not in sys.path)
        self._notes: list[tuple[Any, ...]] = []
        forward_notes(self._notes.append)
        self._benchmark: Benchmark = pickle.loads(benchmark)
        self._segment: Segment | None = None
        self._problem: Report | None = None

    def node(self) -> str:
        """The node it runs on; answers as soon as the actor is there."""
        return str(library().get_runtime_context().get_node_id())

    def start(self, job: Job, folder: str) -> None:
        self._segment, self._problem = prepare(self._benchmark, job, folder)

    def next(self) -> tuple[Report, list[tuple[Any, ...]]]:
        assert self._segment is not None
        report = self._problem or self._segment.next()
        notes = self._notes[:]
        self._notes.clear()
        return report, notes

    def end(self, folder: str | None) -> None:
        """The trial is over for now; `folder` is removed."""
        if self._segment is not None:
            self._segment.close()
        self._segment = None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def actor_environment(environment: Mapping[str, str], gpus_per_worker: float) -> dict[str, str]:
    """What an actor's process gets of the driver's environment; its share of a GPU's memory; and JAX on the trials' platform."""
    sent = {name: value for name, value in environment.items() if name.startswith(SENT)}
    # Empty counts as unset: an actor that inherits the platform of a driver on the same machine would stay on the CPU.
    platforms = {"JAX_PLATFORMS": environment.get("JAX_PLATFORMS", "")}
    share = slots.memory_fraction(gpus_per_worker, environment) if gpus_per_worker > 0 else {}
    return sent | platforms | share
