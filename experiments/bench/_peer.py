"""Syne Tune's MOBSTER beside ours: one simulated study, and every suggestion is asked of both, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PACKAGES = ("syne-tune[gpsearchers]==0.13.0", "numpy==1.26.4")
WINDOWS = (50, 100, 200, 275)
SPREAD = 10  # suggestions on either side of a window's middle
WANTED = {100: 10.0, 275: 20.0}


class Row(NamedTuple):
    """One suggestion: what both took, in seconds."""

    trial: int
    observations: int
    ours: float
    compiled: bool  # whether ours compiled, or waited for a program to compile
    peer: float


def install(folder: Path) -> Path:
    """The interpreter of an environment that has the peer; made on first use."""
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {' '.join(PACKAGES)} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"error: the peer could not be installed: {done.stderr.strip().splitlines()[-1]}")
        (folder / "installed").touch()
    return python


class Peer:
    """The other process; `suggest` tells it what is new in the history and returns the seconds its suggestion took."""

    def __init__(self, python: Path, space: dict[str, tuple[float, float]], r_max: int, eta: int, brackets: int, kernel: str) -> None:
        script = Path(__file__).with_name("_syne_tune.py")
        # One thread for LAPACK, as ours: with two it took four times as long on cores that others used, too.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self._num_told = 0
        self._told_pending: set[tuple[int, int]] = set()
        self._ask({"space": space, "kernel": kernel, "r_max": r_max, "eta": eta, "brackets": brackets, "seed": 0})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("error: the peer's process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def suggest(self, history: Any, slot: Any) -> float:
        news = zip(history.observed_trials, history.observed_resources, history.observed_metrics, strict=True)
        results = [
            (trial, dict(history.trials[trial].proposal.config), r, metric)
            for trial, r, metric in list(news)[self._num_told :]
            if r in history.levels
        ]
        self._num_told = len(history.observed_trials)
        pending = [pair for pair in history.pending.items() if pair not in self._told_pending]
        self._told_pending.update(pending)
        return float(
            self._ask(
                {
                    "results": results,
                    "pending": [(trial, dict(history.trials[trial].proposal.config), r) for trial, r in pending],
                    "trial": slot.trial_id,
                    "milestone": slot.milestone,
                }
            )["seconds"]
        )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def table(rows: list[Row]) -> str:
    """Medians per window, and totals over the suggestions of the model; the targets beside what was measured."""
    lines = [f"{'trial':>6} {'observations':>13} {'ours, s':>9} {'peer, s':>9} {'ratio':>7}   (medians of {2 * SPREAD + 1} suggestions)"]
    for window in WINDOWS:
        near = [row for row in rows if abs(row.trial - window) <= SPREAD and not row.compiled]
        if not near:
            continue
        ours, peer = (float(np.median([getattr(row, who) for row in near])) for who in ("ours", "peer"))
        wanted = f"   wanted {WANTED[window]:.0f}: {'met' if peer / ours >= WANTED[window] else 'FAILED'}" if window in WANTED else ""
        observations = np.median([row.observations for row in near])
        lines.append(f"{window:6d} {observations:13.0f} {ours:9.3f} {peer:9.3f} {peer / ours:7.1f}{wanted}")
    ours, peer = sum(row.ours for row in rows), sum(row.peer for row in rows)
    waited = [row.ours for row in rows if row.compiled]
    lines.append(f"all {len(rows)} suggestions of the model: ours {ours:.1f} s, peer {peer:.1f} s, ratio {peer / ours:.1f}")
    lines.append(f"of ours, {len(waited)} loaded or compiled a program or waited for one: {sum(waited):.1f} s")
    return "\n".join(lines)
