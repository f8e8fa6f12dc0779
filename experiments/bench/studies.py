"""How long studies take to simulate: A-BOHB with 300 trials on an LCBench task, and events per second without a model.

Times are of the processor, all threads together, and of the wall clock; the first A-BOHB run compiles (or reads the compilation cache),
the others do not, except for sizes that it did not reach. The surrogate is refitted at every suggestion below 150 observations, then at
every tenth that brings new data, as in the figures, or at every 25th. An event is a job or a report, of a study that is kept as a grid
keeps it. A study of one seed may observe a third more than another's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from experiments.runtime import prepare_environment

TASK = ["benchmark=yahpo", "benchmark.task=168329"]
MODEL = ["scheduler=stopping", "searcher=gp"]
RANDOM = {
    "A-HB": ["scheduler=stopping", "searcher=random"],
    "ASHA": ["scheduler=promotion", "searcher=random", "brackets=1"],
}
LIMITS = ["budget.seconds=null", "workers=4", "backend=simulated"]
PERIODS, SEEDS = (10, 25), range(1, 5)
TABLES = {
    "curves": ["benchmark=curves", "benchmark.noise=0"],
    "nasbench201": ["benchmark=nasbench201"],
    "lcbench": TASK,
    "nb301": ["benchmark=yahpo", "benchmark.scenario=nb301"],
}


def measure(overrides: list[str], trials: int, seed: int = 0) -> tuple[int, float, float]:
    """(events, processor seconds, wall-clock seconds) of one study with 4 workers; building the benchmark is left out."""
    from experiments.overrides import composed
    from experiments.simulation import simulate
    from experiments.store import metadata

    cfg = composed([*LIMITS, f"budget.trials={trials}", *overrides])
    began = time.process_time()
    table = simulate(cfg, seed)
    host = metadata(table)["host_seconds"]
    return table.num_rows, time.process_time() - began - host["build"], host["run"]


def over_cores(seeds: int, trials: int) -> None:
    """That many A-BOHB studies as a figure has them computed: over all cores, one process each."""
    from experiments.grid import run_grid
    from experiments.overrides import composed
    from experiments.store import Study

    overrides = (*LIMITS, *TASK, *MODEL, f"budget.trials={trials}", f"searcher.refit_period={PERIODS[0]}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as store:
        run_grid([Study(overrides, seed) for seed in range(seeds)], Path(store), composed, os.cpu_count() or 1)
    print(f"{seeds} seeds of A-BOHB, {trials} trials, refitted as in the figures: {time.perf_counter() - began:.0f} s")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench studies", description=__doc__)
    parser.add_argument("--trials", type=int, default=300, help="of the A-BOHB study")
    parser.add_argument(
        "--events", type=int, default=3000, help="trials of the studies without a model; a fifth of the smallest table at most"
    )
    parser.add_argument("--seeds", type=int, help="run this many A-BOHB studies over all cores, and nothing else")
    options = parser.parse_args(arguments)
    if options.seeds is not None and (options.seeds < 1 or "MFGP_DATA_DIR" not in os.environ):
        parser.error(f"--seeds={options.seeds} needs a whole number of at least 1, and MFGP_DATA_DIR for LCBench")
    prepare_environment()
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "MFGP_DATA_DIR" not in os.environ:
        print("MFGP_DATA_DIR is not set: LCBench and NAS-Bench-201 are left out", file=sys.stderr)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if options.seeds:
        over_cores(options.seeds, options.trials)
        return
    measure([*TABLES["curves"], *RANDOM["A-HB"]], 10)  # imports
    for table, benchmark in TABLES.items():
        for name, method in RANDOM.items() if table == "curves" or "MFGP_DATA_DIR" in os.environ else ():
            events, processor, wall = measure([*benchmark, *method], options.events)
            print(f"{name} on {table}: {events} events, {events / processor:,.0f} per processor second, {events / wall:,.0f} per second")
    if "MFGP_DATA_DIR" in os.environ:
        for period in PERIODS:
            schedule = f"A-BOHB, {options.trials} trials, beyond 150 observations refitted at every {period}th"
            overrides = [*TASK, *MODEL, f"searcher.refit_period={period}"]
            _, first_cpu, first = measure(overrides, options.trials)
            print(f"{schedule}, seed 0, what it compiles included: {first:.1f} s ({first_cpu:.1f} s of the processor)", flush=True)
            runs = [measure(overrides, options.trials, seed) for seed in SEEDS]
            clock, work = sorted(run[2] for run in runs), [run[1] for run in runs]
            said = " ".join(f"{seconds:.1f}" for seconds in clock)
            print(f"{schedule}, {len(SEEDS)} seeds: {said} s, median {median(clock):.1f} ({median(work):.1f} s of the processor)")
