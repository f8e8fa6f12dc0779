"""How long the model makes a worker wait: suggestions along one simulated A-BOHB study, and one fit evaluation against its floor.

The study: 8 floats, 4 workers, stopping, refit at every suggestion. Compiling is reported apart; it is that of this process, from the
persistent cache where an earlier run left it. The floor of a value and gradient of the marginal likelihood is LAPACK's factorisation
and inversion (potrf + potri) of a matrix of that size, called through SciPy in turn with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.runtime import prepare_environment

WINDOWS = (50, 100, 200, 275)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench surrogate", description=__doc__)
    parser.add_argument("--trials", type=int, default=300, help="length of the study")
    parser.add_argument("--refit-period", type=int, default=1, help="beyond 150 observations refit at every such suggestion only")
    arguments = parser.parse_args(argv)
    prepare_environment()
    print(study_table(arguments.trials, arguments.refit_period))
    print(floor_table())


def study_table(num_trials: int, refit_period: int) -> str:
    import mfgp
    from experiments import compilation
    from experiments.benchmarks.synthetic import Curves
    from schedulers.asha import AsyncHyperband
    from schedulers.backends.simulated import SimulatedBackend
    from schedulers.run import run
    from schedulers.searchers.gp import GPSearcher
    from schedulers.searchers.wrappers import TrialLimit

    compilation.watch()
    benchmark = Curves(num_floats=8, num_ints=0, num_categoricals=0, noise=0.01)
    timed = _Timed(GPSearcher(benchmark.space, surrogate=mfgp.exp_decay(), refit_period=refit_period))
    scheduler = AsyncHyperband(TrialLimit(timed, num_trials), r_min=1, r_max=27, brackets=4)
    began = time.perf_counter()
    for _ in run(scheduler, SimulatedBackend(benchmark, 4), _Nothing()):
        pass
    total = time.perf_counter() - began
    lines = [f"{'trial':>6} {'observations':>13} {'refitting: median s':>20} {'max s':>7} {'not: median s':>14} {'max s':>7}"]
    for trial in WINDOWS:
        near = [row for row in timed.rows if abs(row[0] - trial) <= 15 and row[4] == 0]
        lines.append(f"{trial:6d} {np.median([row[1] for row in near]) if near else 0:13.0f}" + _cells(near, True) + _cells(near, False))
    compiled = compilation.snapshot()
    lines.append(
        f"{num_trials} trials in {total:.1f} s, of which suggestions {sum(row[2] for row in timed.rows):.1f} s and compiling "
        f"{compiled.seconds:.1f} s ({compiled.programs} programs, {compiled.cache_hits} from the cache)"
    )
    return "\n".join(lines)


def _cells(rows: list[tuple[int, int, float, bool, int]], refitted: bool) -> str:
    seconds = [row[2] for row in rows if row[3] is refitted]
    return f"{np.median(seconds):21.3f} {max(seconds):7.3f}" if seconds else f"{'-':>21} {'-':>7}"


class _Nothing:
    def append(self, event: Any) -> None: ...


class _Timed:
    """Passes everything on and keeps (trial, observations, seconds, refitted, programs compiled) of each model-based suggestion."""

    def __init__(self, searcher: Any) -> None:
        self._searcher = searcher
        self.rows: list[tuple[int, int, float, bool, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._searcher, name)

    def suggest(self, history: Any, slot: Any) -> Any:
        from experiments.compilation import snapshot

        before, began = snapshot(), time.perf_counter()
        proposal = self._searcher.suggest(history, slot)
        seconds = time.perf_counter() - began
        if proposal is not None and proposal.source == "model":
            state, programs = proposal.state, (snapshot() - before).programs
            self.rows.append((slot.trial_id, state["num_observed"], seconds, state["refitted"], programs))
        return proposal


def floor_table(sizes: Sequence[int] = (64, 128, 256, 512), repeats: int = 15) -> str:
    import jax
    import scipy.linalg

    import mfgp
    from mfgp.compiler import compiled
    from mfgp.fit import loss_and_grad
    from mfgp.suggest import problem_of

    evaluate = compiled(static_argnames=("surrogate",))(loss_and_grad)
    lines = [f"\n{'n':>6} {'value and gradient, s':>22} {'potrf + potri, s':>17} {'ratio':>6}   (medians of {repeats}, in turn)"]
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
