"""Several seeds of an A-BOHB study: one after the other, in lock step, and over processes; seconds and processor seconds, in turn.

The first round compiles, or reads the compilation cache, and is not counted. Processes start anew each time, as in a grid: their start,
imports and programs from the cache are counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.runtime import prepare_environment

STUDY = ("backend=simulated", "benchmark=curves", "searcher=gp", "searcher.refit_period=10", "budget.seconds=null", "workers=4")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench lockstep", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    prepare_environment()
    os.environ["JAX_PLATFORMS"] = "cpu"
    from experiments.grid import run_grid
    from experiments.lockstep import simulate_together
    from experiments.overrides import composed
    from experiments.simulation import simulate
    from experiments.store import Study

    overrides = (*STUDY, f"budget.trials={options.trials}")
    cfg, seeds = composed(overrides), range(options.seeds)

    def over_processes() -> None:
        with tempfile.TemporaryDirectory() as store:
            run_grid([Study(overrides, seed) for seed in seeds], Path(store), composed, os.cpu_count() or 1, lambda _: None)

    ways: dict[str, Callable[[], Any]] = {
        "one after the other": lambda: [simulate(cfg, seed) for seed in seeds],
        "lock step, width 1": lambda: simulate_together(cfg, seeds, 1),
        f"lock step, width {os.cpu_count()}": lambda: simulate_together(cfg, seeds, os.cpu_count() or 1),
        f"{os.cpu_count()} processes": over_processes,
    }
    print(f"{options.seeds} seeds, {options.trials} trials, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            began, processor = time.perf_counter(), _processor_seconds()
            way()
            if number:
                wall, used = time.perf_counter() - began, _processor_seconds() - processor
                print(f"round {number}, {name}: {wall:.1f} s, {used:.1f} s of the processor, load {os.getloadavg()[0]:.1f}", flush=True)


def _processor_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
