"""What keeping freed memory is worth: suggestions in processes that do (`runtime.keep_freed_memory`) and that do not, in turn.

Times are of the processor, the median of `--repeats`: a refit's evaluation of value and gradient, and a suggestion that keeps its
hyperparameters, by the number of observations; histories are those of `bench scale`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from experiments.bench.scale import rungs_request
from experiments.runtime import keep_freed_memory, prepare_environment

SIZES = (250, 500, 1000, 1200)
KINDS = ("kept", "given back")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench memory", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="observations")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="how often each kind of process is started")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)  # in a process of this one
    arguments = parser.parse_args(argv)
    if arguments.kind is not None:
        print(json.dumps(_measure(arguments.sizes, arguments.repeats, arguments.kind == "kept")))
        return
    found: dict[str, list[list[list[float]]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            found[kind].append(_in_a_process(arguments, kind))
    print(f"{'n':>5} {'evaluation, ms: ' + ', '.join(KINDS):>34} {'suggestion, ms: ' + ', '.join(KINDS):>34}")
    for number, size in enumerate(arguments.sizes):
        medians = np.array([np.median([run[number] for run in found[kind]], axis=0) for kind in KINDS])
        cells = [f"{1e3 * kept:>12.1f} {1e3 * given:>12.1f} {kept / given:>8.2f}" for kept, given in medians.T]
        print(f"{size:>5} " + " ".join(cells))


def _in_a_process(arguments: argparse.Namespace, kind: str) -> list[list[float]]:
    sizes = map(str, arguments.sizes)
    command = [sys.executable, "-m", "experiments.bench", "memory", "--kind", kind, "--repeats", str(arguments.repeats), "--sizes", *sizes]
    environment = {**os.environ, "NPROC": "1"}
    prepare_environment(environment)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    answer: list[list[float]] = json.loads(done.stdout)
    return answer


def _measure(sizes: Sequence[int], repeats: int, keep: bool) -> list[list[float]]:
    """Seconds of the processor for an evaluation and for a suggestion, by size."""
    if keep:
        keep_freed_memory()
    return [_row(size, repeats) for size in sizes]


def _row(size: int, repeats: int) -> list[float]:
    import jax

    import mfgp
    from mfgp.compiler import compiled
    from mfgp.fit import loss_and_grad
    from mfgp.precision import precision_of
    from mfgp.problem import problem_of

    surrogate, request = mfgp.exp_decay(), rungs_request(size)
    kept = {**request, "warm": {}, "refit": False}
    with precision_of(surrogate):
        problem = problem_of(surrogate, **kept)
        evaluate = compiled(static_argnames=("surrogate",))(loss_and_grad)
        evaluation = _median_seconds(lambda: jax.block_until_ready(evaluate(surrogate, problem.first[0], problem.data)), repeats)
        return [evaluation, _median_seconds(lambda: mfgp.suggest(surrogate, **kept), repeats)]


def _median_seconds(job: Callable[[], object], repeats: int) -> float:
    job()
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        job()
        seconds.append(time.process_time() - before)
    return float(np.median(seconds))
