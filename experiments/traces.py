"""`python -m experiments.traces PATH`: every scheduler on the same simulated learning curves, side by side (docs/figures/schedulers)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from experiments import records, trace_plot
from experiments.benchmarks.synthetic import Curves
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.hyperband import Hyperband
from schedulers.median import MedianRule
from schedulers.pasha import Pasha
from schedulers.run import run
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Event, Scheduler

WORKERS, SECONDS, SEED = 4, 90.0, 0
LEVELS: Any = {"r_min": 1, "r_max": 27, "eta": 3}
fifo: Any = partial(AsyncHyperband, r_min=27, r_max=27)
SCHEDULERS: dict[str, Any] = {
    "fifo": fifo,
    "median on fifo": partial(MedianRule, inner=fifo),
    "stopping, 1 bracket": partial(AsyncHyperband, **LEVELS),
    "stopping, 4 brackets": partial(AsyncHyperband, **LEVELS, brackets=4, seed=SEED),
    "promotion, 1 bracket (ASHA)": partial(AsyncHyperband, **LEVELS, variant="promotion"),
    "promotion, 4 brackets": partial(AsyncHyperband, **LEVELS, variant="promotion", brackets=4, seed=SEED),
    "parallel_hyperband": partial(AsyncHyperband, **LEVELS, variant="promotion", brackets=4, bracket_law="parallel"),
    "pasha": partial(Pasha, **LEVELS, seed=SEED),
    "successive_halving, barrier": partial(Hyperband, **LEVELS, early_next_bracket=False),
    "hyperband, barrier": partial(Hyperband, **LEVELS, brackets=4, early_next_bracket=False),
    "successive_halving": partial(Hyperband, **LEVELS),
    "hyperband": partial(Hyperband, **LEVELS, brackets=4),
}


def study(make: Callable[..., Scheduler]) -> tuple[list[Event], float]:
    """The events of one study, and the share of the workers' time that was training."""
    curves = Curves(r_max=27, crossing=0.3, noise=0.03, seed=SEED)
    scheduler = make(RandomSearcher(curves.space, seed=SEED))
    events: list[Event] = []  # a log in memory
    for _ in run(scheduler, SimulatedBackend(curves, WORKERS, deadline=SECONDS), events):
        pass
    busy = sum(event.report.seconds for event in events if event.report is not None)
    return events, busy / (WORKERS * SECONDS)


def main() -> None:
    if len(sys.argv) != 2:
        print("usage: python -m experiments.traces PATH (without a suffix: .png and .pdf are written)", file=sys.stderr)
        raise SystemExit(2)
    drawn = {}
    for name, make in SCHEDULERS.items():
        events, busy = study(make)
        summary = records.summary(events, "min", {"r_max": 27, "workers": WORKERS})
        completed = summary["trials_by_state"]["completed"]
        said = f"{summary['trials']} trials, {completed} to r_max, workers busy {busy:.0%}"
        print(f"{name}: {said}")
        drawn[f"{name}\n{said}"] = records.reports_table(events, "min", 27), records.trials_table(events, "min", 27), (1, 3, 9, 27)
    trace_plot.traces(drawn, sys.argv[1])
    path = Path(sys.argv[1]).with_suffix(".png")
    with Image.open(path) as picture:  # it lives in the repository: few colours make it a quarter of the size
        picture.convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main()
