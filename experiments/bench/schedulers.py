"""Pure scheduling at scale: no model and no training, a million jobs on ten thousand simulated workers.

A job is one segment with one report at its milestone, through the same loop, searcher and simulator as any study. Each row is a process
of its own, so that its peak memory is its own; times are of the processor, so that what else the machine does matters less. `--counts`
reproduces how many configurations the ASHA paper's 500 workers evaluate.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

from ConfigSpace import ConfigurationSpace

from experiments.runtime import collect_rarely
from schedulers.asha import AsyncHyperband
from schedulers.backends.simulated import SimulatedBackend
from schedulers.hyperband import Hyperband
from schedulers.journal import Journal
from schedulers.pasha import Pasha
from schedulers.run import Log, run
from schedulers.searchers.random import RandomSearcher
from schedulers.types import Event, Job, Progress, Scheduler

T = TypeVar("T")
R_MAX, WINDOW = 81, 100_000  # wide enough to hold its share of garbage collection
SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "asha": partial(AsyncHyperband, variant="promotion"),
    "promotion": partial(AsyncHyperband, variant="promotion", brackets=5),
    "stopping": partial(AsyncHyperband, variant="stopping", brackets=5),
    "hyperband": partial(Hyperband, brackets=5),
    "pasha": Pasha,
    "pasha, steady": Pasha,  # on metrics whose ranking never changes, so that its cap stays low and its window grows
}


COLUMNS = (("cpu s", 9), ("wall s", 9), ("us/job", 9), ("early", 9), ("late", 9), ("late/early", 12), ("MB", 8), ("trials", 11))


class Segments:
    """Trains nothing: one report at the end of each job (`stopping`: at each rung), after as many seconds as it has resources.

    The metric is a fixed random quality of the trial, plus `noise` times another random number for each resource.
    """

    mode = "min"

    def __init__(self, levels: tuple[int, ...], noise: float = 0.1) -> None:
        self.space = ConfigurationSpace({f"x{i}": (0.0, 1.0) for i in range(8)})
        self.levels, self.r_max, self._noise = levels, levels[-1], noise

    def train(self, job: Job, checkpoint_dir: str | None) -> Iterator[Progress]:
        at = job.r_from
        for r in self.levels:
            if at < r <= job.r_to and (r == job.r_to or job.r_to > job.until):
                yield Progress(r, _hash(job.trial_id, 0) + self._noise * _hash(job.trial_id, r), float(r - at))
                at = r


def _hash(trial_id: int, r: int) -> float:
    return ((trial_id + 1) * 2654435761 + r * 40503 * 2654435769 ^ (trial_id * 2246822519 >> 7)) % 2**32 / 2**32


class _NoLog:
    def append(self, event: Event) -> None: ...


class Row(NamedTuple):
    jobs: int
    seconds: float  # of the processor
    wall: float
    early: float  # microseconds per job between the 10,000th and the 110,000th
    late: float  # of the last 100,000
    megabytes: float
    trials: int


def measure(name: str, jobs: int, workers: int, with_journal: bool = False, is_default: bool = False) -> Row:
    """Run `jobs` jobs (reports) of the scheduler `name`. `is_default`: with the garbage collector as Python sets it."""
    if not is_default:
        collect_rarely()
    scheduler = SCHEDULERS[name](RandomSearcher(ConfigurationSpace({f"x{i}": (0.0, 1.0) for i in range(8)})), r_min=1, r_max=R_MAX)
    backend = SimulatedBackend(Segments(scheduler.history.levels, noise=0.0 if "steady" in name else 0.1), workers)
    with tempfile.TemporaryDirectory() as folder:
        log: Log = Journal(folder, 1000) if with_journal else _NoLog()
        began = time.perf_counter()
        times = _drive(run(scheduler, backend, log), jobs)
        if isinstance(log, Journal):
            log.close()
    wall = time.perf_counter() - began
    first = min(10_000, jobs // 2000 * 1000)
    width = min(WINDOW, jobs - first)
    early, late = (1e6 * (times[end] - times[end - width]) / width for end in (first + width, jobs))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
    return Row(jobs, times[jobs] - times[0], wall, early, late, megabytes, len(scheduler.history.trials))


def _drive(events: Iterator[Event], jobs: int) -> dict[int, float]:
    """The processor's clock at every thousandth report (and at the last)."""
    times, done = {0: time.process_time()}, 0
    for event in events:
        if event.kind == "report":
            done += 1
            if done % 1000 == 0 or done == jobs:
                times[done] = time.process_time()
            if done == jobs:
                return times
    raise RuntimeError(f"the study ended after {done} of {jobs} jobs")


def count_evaluated(resume_from: str, num_workers: int, r_ratio: int, eta: int, durations: int, r_min: int = 1) -> int:
    """How many configurations have reported by `durations` x time(R), when all cost the same. r_min = r_ratio: random search."""
    searcher = RandomSearcher(ConfigurationSpace({f"x{i}": (0.0, 1.0) for i in range(8)}))
    scheduler = AsyncHyperband(searcher, r_min=r_min, r_max=r_ratio, eta=eta, variant="promotion", resume_from=resume_from)  # type: ignore[arg-type]
    backend = SimulatedBackend(Segments(scheduler.levels), num_workers, deadline=float(durations * r_ratio))
    for _ in run(scheduler, backend, _NoLog()):
        pass
    return sum(trial.r > 0 for trial in scheduler.history.trials)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench schedulers", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of each scheduler (default: a million)")
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", choices=SCHEDULERS, default=list(SCHEDULERS), help="these schedulers")
    parser.add_argument("--counts", action="store_true", help="also count configurations as in the ASHA paper (minutes)")
    args = parser.parse_args(argv)
    if args.jobs < 2000 or args.jobs % 1000:
        parser.error(f"--jobs {args.jobs} must be a multiple of 1000, at least 2000")
    print(f"{args.jobs:,} jobs on {args.workers:,} simulated workers, random search over 8 parameters, r = 1..{R_MAX}, eta = 3")
    print(f"{'scheduler':<20}" + "".join(f"{title:>{width}}" for title, width in COLUMNS))
    for name in args.only:
        _print_row(name, _apart(measure, name, args.jobs, args.workers))
    _print_row("asha, default gc", _apart(measure, "asha", args.jobs, args.workers, False, True))
    journalled = min(args.jobs, 100_000)
    _print_row(f"asha, {journalled // 1000}k, journal", _apart(measure, "asha", journalled, args.workers, True))
    if args.counts:
        _print_counts()


def _print_row(name: str, row: Row) -> None:
    cost = f"{row.seconds:>9.1f}{row.wall:>9.1f}{1e6 * row.seconds / row.jobs:>9.1f}"
    growth = f"{row.early:>9.1f}{row.late:>9.1f}{row.late / row.early:>12.2f}"
    print(f"{name:<20}{cost}{growth}{row.megabytes:>8.0f}{row.trials:>11,}", flush=True)


def _print_counts() -> None:
    """A configuration costs (1 + (K - 1) (1 - 1/eta)) r with checkpoints and K r from scratch, K = 5 rungs, in the steady state."""
    print("\nconfigurations evaluated by 500 workers, r = R/256, eta = 4 (the ASHA paper, section 5.1: 1.5k and 52k in 3 x time(R))")
    print(f"{'method':<28}{'x time(R)':>10}{'evaluated':>12}{'steady state':>14}{'ratio':>8}")
    for durations in (3, 30):
        for method, resume_from, r_min, cost in (
            ("random search", "checkpoint", 256, 256.0),
            ("bracket 0, from scratch", "scratch", 1, 5.0),
            ("bracket 0, checkpoints", "checkpoint", 1, 4.0),
        ):
            evaluated = _apart(count_evaluated, resume_from, 500, 256, 4, durations, r_min)
            steady = 500 * durations * 256 / cost
            print(f"{method:<28}{durations:>10}{evaluated:>12,}{steady:>14,.0f}{evaluated / steady:>8.3f}", flush=True)


def _apart(function: Callable[..., T], *arguments: object) -> T:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
