"""What share of the workers' time a study does not train: A-BOHB tunes the perceptron on electricity, then its journal is read.

Workers are idle, or wait for a decision about themselves. Where that time goes: until a worker has started (Python, JAX, the data); from
the end of a trial to the start of the next on the same worker; within a trial, on the way of reports and verdicts. Demanded for 2 workers
is 2 % at most. `--folder` reads an earlier study instead of running one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.study import fold
from schedulers.journal import read
from schedulers.types import Event

DEMANDED = 0.02


class Overhead(NamedTuple):
    """In worker seconds, of `total`; the parts are of the time until each worker's last event, and sum up to what it did not train."""

    total: float
    training: float
    deciding: float
    idle: float
    starting: float
    between: float
    within: float

    @property
    def share(self) -> float:
        return (self.idle + self.deciding) / self.total


def overhead(events: Sequence[Event], num_workers: int) -> Overhead:
    """From the events of a study that was not interrupted."""
    study = fold(events, max(event.job.r_to for event in events))
    seconds = study.worker_seconds(num_workers, study.now)
    parts = dict.fromkeys(("starting", "between", "within"), 0.0)
    for worker in range(num_workers):
        for part, lost in _lost(event for event in events if event.worker == worker):
            parts[part] += lost
    return Overhead(num_workers * study.now, **seconds, **parts)


def _lost(events: Iterable[Event]) -> Iterable[tuple[str, float]]:
    """What one worker lost before each of its events."""
    now, is_started = 0.0, False
    for event in events:
        if event.report is not None:
            yield "within" if is_started else "starting", event.time - now - event.report.seconds
            is_started = True
        else:
            yield "between" if is_started else "starting", event.time - now
        now = event.time


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-dir", help="a folder with data sets that need not be downloaded")
    parser.add_argument("--folder", type=Path, help="of a study that is there already")
    parser.add_argument("overrides", nargs="*", help="settings of the study, such as suggest_ahead=false")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.folder is None:
            _study(Path(folder), options)
        events = list(read(options.folder or folder))
    _report(overhead(events, options.workers), events)


def _study(folder: Path, options: argparse.Namespace) -> None:
    settings = [f"workers={options.workers}", f"budget.seconds={options.seconds}", "budget.trials=null", f"hydra.run.dir={folder}"]
    settings += [f"data_dir={options.data_dir}"] if options.data_dir else []
    command = [sys.executable, "-m", "experiments.main", "benchmark.dataset=electricity", *settings, *options.overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the study failed: {(done.stdout + done.stderr).strip()[-500:]}")


def _report(found: Overhead, events: Sequence[Event]) -> None:
    jobs = [event for event in events if event.kind == "job"]
    model = sum(event.proposal is not None and event.proposal.source == "model" for event in jobs)
    num_reports = sum(event.kind == "report" for event in events)
    print(f"{len(jobs)} jobs ({model} from the model), {num_reports} reports, {found.total:.0f} worker seconds")
    for name in ("training", "deciding", "idle"):
        print(f"  {name:<10} {getattr(found, name):8.2f} s  {getattr(found, name) / found.total:7.2%}")
    print("lost, by where:")
    told = {
        "starting": "until a worker's first training begins",
        "between": "from the end of a trial to the start of the next",
        "within": "on the way of reports and verdicts",
    }
    for name, text in told.items():
        print(f"  {name:<10} {getattr(found, name):8.2f} s  {getattr(found, name) / found.total:7.2%}  {text}")
    verdict = "kept" if found.share <= DEMANDED else "NOT kept"
    print(f"overhead (idle and deciding): {found.share:.2%} of the wall-clock time; demanded {DEMANDED:.0%} at most: {verdict}")
