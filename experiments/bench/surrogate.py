"""How long the model makes a worker wait, how well it is fitted, and how both compare with a named peer and with LAPACK's floor.

Sections (all by default, `--only` picks): `study`, suggestions along one simulated A-BOHB study; `peer`, the same with Syne Tune 0.13.0's
MOBSTER asked the same questions (installed on first use into an environment of its own), first with an empty compilation cache, then with
a warm one; `held`, suggestions that keep their hyperparameters, at 500 observations; `fits`, the objective that the study's fits reach
against five fresh restarts; `floor`, one value and gradient of the marginal likelihood against LAPACK's factorisation and inversion
(potrf + potri) of a matrix of that size, called through SciPy in turn with it; `many`, 30 studies in one call against 30 calls.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runtime import cache_dir, prepare_environment

SECTIONS = ("floor", "held", "many", "fits", "study", "peer")
RUN_WANTED = {"first-ever run, compiling included": 5.0, "after compiling": 15.0}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench surrogate", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[name for name in SECTIONS if name != "study"])
    parser.add_argument("--trials", type=int, default=300, help="length of the study")
    parser.add_argument("--refit-period", type=int, default=1, help="beyond 150 observations refit at every such suggestion only")
    parser.add_argument("--kernel", default="exp-decay-combined", help="the peer's gp_resource_kernel: by default ours, delta learned")
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)  # how `peer` calls itself
    arguments = parser.parse_args(argv)
    prepare_environment()
    if arguments.cold:
        from experiments.bench._study import simulated_study

        began = time.perf_counter()
        outcome = simulated_study(arguments.trials)
        print(time.perf_counter() - began, outcome.compile_seconds, outcome.programs, outcome.buckets)
        return
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for name in arguments.only:
        print(f"\n{name}\n{_section(name, arguments)}", flush=True)


def _section(name: str, arguments: argparse.Namespace) -> str:
    if name == "floor":
        return floor_table()
    if name == "held":
        return held_table()
    if name == "study":
        from experiments.bench._study import simulated_study, study_table

        return study_table(simulated_study(arguments.trials, arguments.refit_period))
    if name == "peer":
        return peer_table(arguments.trials, arguments.refit_period, arguments.kernel)
    from experiments.bench import _fits

    return _fits.quality_table() if name == "fits" else _fits.many_table()


def peer_table(num_trials: int, refit_period: int, kernel: str) -> str:
    """Interleaved suggestion by suggestion; the first-ever run of ours alone before that, in a process with an empty cache."""
    from experiments.bench import _peer
    from experiments.bench._study import simulated_study, study_table

    python = _peer.install(cache_dir() / "syne-tune")
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", "experiments.bench", "surrogate", "--cold", "--trials", str(num_trials)]
        done = subprocess.run(
            command, env=os.environ | {"JAX_COMPILATION_CACHE_DIR": empty}, cwd=Path(__file__).parents[2], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"error: the first-ever run failed: {done.stderr.strip().splitlines()[-1]}")
        total, compiling, programs, buckets = (float(part) for part in done.stdout.split())
    outcome = simulated_study(num_trials, refit_period, partial(_peer.Peer, python, kernel=kernel))
    rows = [_peer.Row(row.trial, row.observations, row.seconds, row.programs > 0, row.peer) for row in outcome.rows]
    peer = sum(row.peer for row in rows)
    lines = [
        study_table(outcome),
        f"\nbeside Syne Tune 0.13.0, {kernel}, {num_trials} trials, refit at every suggestion, on the same history",
        _peer.table(rows),
    ]
    for (what, wanted), ours in zip(RUN_WANTED.items(), (total, sum(row.ours for row in rows if not row.compiled)), strict=True):
        verdict = "met" if peer / ours >= wanted else "FAILED"
        lines.append(f"{what}: ours {ours:.1f} s, peer {peer:.1f} s, ratio {peer / ours:.1f}   wanted {wanted:.0f}: {verdict}")
    lines.append(f"the first-ever run compiled {programs:.0f} programs in {compiling:.1f} s, for {buckets:.0f} sizes of the data")
    return "\n".join(lines)


def held_table(num_observations: int = 500, repeats: int = 200) -> str:
    """Suggestions that keep their hyperparameters: a new pool of candidates and one more observation each time."""
    import mfgp

    rng = np.random.default_rng(0)
    d, total = 8, num_observations + 11
    x, r = rng.random((total, d)), (rng.choice([1, 3, 9, 27], total) - 0.5) / 27
    y = ((x - 0.4) ** 2).sum(1) + np.exp(-3 * r) + 0.02 * rng.standard_normal(total)
    zeros = np.zeros(d)
    space = mfgp.Space(kind=zeros.astype(int), log=zeros.astype(bool), low=zeros, high=zeros + 1)
    warm, seconds = None, []
    for turn in range(-2, repeats):
        n = num_observations + max(turn, 0) % 12
        candidates = rng.random((2000, d))
        began = time.perf_counter()
        answer = mfgp.suggest(
            mfgp.exp_decay(),
            seed=(0, max(turn, 0)),
            x=x[:n],
            r=r[:n],
            y=y[:n],
            r_acq=float(r.max()),
            candidates=candidates,
            free=np.ones(candidates.shape, bool),
            space=space,
            warm=warm,
            refit=turn < 0,
            pending_x=x[:3] + 0.01,
            pending_r=r[:3],
        )
        seconds.append(time.perf_counter() - began)
        warm = answer.hyperparameters
    held = np.array(seconds[2:])
    median, p99 = np.median(held), np.quantile(held, 0.99)
    return (
        f"{repeats} suggestions at {num_observations} observations, 2000 candidates, 20 fantasies, hyperparameters kept: "
        f"median {1e3 * median:.0f} ms, p99 {1e3 * p99:.0f} ms   wanted 50: {'met' if p99 < 0.05 else 'FAILED'}"
    )


def floor_table(sizes: Sequence[int] = (64, 128, 256, 512), repeats: int = 15) -> str:
    import jax
    import scipy.linalg

    import mfgp
    from mfgp.compiler import compiled
    from mfgp.fit import loss_and_grad
    from mfgp.problem import problem_of

    evaluate = compiled(static_argnames=("surrogate",))(loss_and_grad)
    lines = [f"{'n':>6} {'value and gradient, s':>22} {'potrf + potri, s':>17} {'ratio':>6}   (medians of {repeats}, in turn)"]
    rng = np.random.default_rng(0)
    surrogate, d = mfgp.exp_decay(), 8
    zeros = np.zeros(d)
    space = mfgp.Space(kind=zeros.astype(int), log=zeros.astype(bool), low=zeros, high=zeros + 1)
    for n in sizes:
        x, r = rng.random((n, d)), (rng.choice([1, 3, 9, 27], n) - 0.5) / 27
        y = ((x - 0.4) ** 2).sum(1) + np.exp(-3 * r) + 0.02 * rng.standard_normal(n)
        common: dict[str, Any] = {
            "pending_x": np.zeros((0, d)),
            "pending_r": np.zeros(0),
            "candidates": x[:16],
            "free": np.ones((16, d), bool),
        }
        matrix = np.cov(rng.random((n, 4 * n))) + np.eye(n)
        ours, floor = [], []
        with jax.enable_x64(True):
            problem = problem_of(surrogate, seed=(0, 0), x=x, r=r, y=y, r_acq=r.max(), space=space, **common)
            theta, data = jax.device_put((problem.first[0], problem.data))
            jax.block_until_ready(evaluate(surrogate, theta, data))
            for _ in range(repeats):
                began = time.perf_counter()
                jax.block_until_ready(evaluate(surrogate, theta, data))
                ours.append(time.perf_counter() - began)
                began = time.perf_counter()
                factor, _ = scipy.linalg.lapack.dpotrf(matrix, lower=1)
                scipy.linalg.lapack.dpotri(factor, lower=1)
                floor.append(time.perf_counter() - began)
        lines.append(f"{n:6d} {np.median(ours):22.5f} {np.median(floor):17.5f} {np.median(ours) / np.median(floor):6.1f}")
    return "\n".join(lines)
