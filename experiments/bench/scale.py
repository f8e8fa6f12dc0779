"""Large histories: what a suggestion and a refit cost, how far conjugate gradients are from dense algebra, each against its target.

The histories are of synthetic curves (8 floats, r_max 81): successive halving, of which every rung is observed ("rungs"), or curves of
which every epoch is ("all"). Each line is measured in a process of its own, so that the peak of its memory is its own; wall-clock time
depends on who else uses the machine, the CPU's does not. Compiling is in the first call and not in a second one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.runtime import prepare_environment

ETA, RUNGS, EPOCHS = 3, (1, 3, 9, 27, 81), 81
TARGETS = {  # per measurement: figure, the most it may be
    "held 5000": ("wall s", 10.0),
    "refit 5000": ("wall s", 180.0),
    "deviation 4000": ("deviation", 0.05),
    "held 50000": ("wall s", 1200.0),
    "memory 50000": ("GB", 20.0),
    "residual 50000": ("residual", 1e-3),
}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench scale", description=__doc__)
    parser.add_argument("--surrogate", default="exp_decay", help="a factory of mfgp")
    parser.add_argument("--sizes", type=int, nargs="*", default=[5000, 50000], help="observations at rungs")
    parser.add_argument("--compare", type=int, default=4000, help="observations at which the dense form is computed too; 0: nowhere")
    parser.add_argument("--curves", type=int, default=200, help="configurations of which every epoch is observed; 0: none")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        prepare_environment()
        name, size = arguments.measure.split()
        print(json.dumps({"suggest": suggestions, "compare": comparison, "curves": from_curves}[name](arguments.surrogate, int(size))))
        return
    print(f"{'measured':<34} {'observations':>12} {'wall s':>8} {'CPU s':>8} {'GB':>6}   figures")
    verdicts: list[str] = []
    for name, size in [("curves", arguments.curves), ("compare", arguments.compare), *(("suggest", n) for n in arguments.sizes)]:
        if size:
            verdicts += _report(name, size, _in_a_process(["--surrogate", arguments.surrogate, "--measure", f"{name} {size}"]))
    print("\n".join(["", "targets", *verdicts]))


def _in_a_process(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.bench", "scale", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _report(name: str, size: int, measured: dict[str, Any]) -> list[str]:
    """Print the lines of one process; return its verdicts."""
    for line in measured["lines"]:
        print(f"{line['what']:<34} {line['n']:12d} {line['wall']:8.1f} {line['cpu']:8.1f} {line['gb']:6.2f}   {line['text']}", flush=True)
    verdicts = []
    for key, value in measured["figures"].items():
        unit, most = TARGETS.get(f"{key} {size}", ("", np.inf))
        if unit:
            verdicts.append(f"  {key} at {size}: {value:.3g} {unit}, target {most:g}: {'pass' if value <= most else 'FAIL'}")
    return verdicts


class _Meter:
    """Wall-clock and CPU seconds of calls, and the process's peak memory after each."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, what: str, n: int, call: Callable[[], Any], text: Callable[[Any], str]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        answer = call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.lines.append({"what": what, "n": n, "wall": wall, "cpu": cpu, "gb": gigabytes, "text": text(answer)})
        return answer


def _said(suggestion: Any) -> str:
    return suggestion.fallback or suggestion.form


def suggestions(surrogate: str, size: int) -> dict[str, Any]:
    """A refit, then two suggestions with its hyperparameters held; beyond 10,000 observations one."""
    import mfgp

    model, request, meter = getattr(mfgp, surrogate)(), rungs_request(size), _Meter()
    n = len(request["y"])
    few = request if size <= 10_000 else rungs_request(5000)
    fitted = meter("refit, with what it compiles", len(few["y"]), lambda: mfgp.suggest(model, **few), _said)
    figures = {}
    if few is request:
        again = request | {"seed": (0, 2)}
        fitted = meter("refit without warm start", n, lambda: mfgp.suggest(model, **again), _said)
        figures["refit"] = meter.lines[-1]["wall"]
    for what in ["held, with what it compiles"] + ["held"] * (few is request):
        held = meter(what, n, lambda: mfgp.suggest(model, **request, warm=fitted.hyperparameters, refit=False), _said)
    figures["held"], figures["memory"] = meter.lines[-1]["wall"], meter.lines[-1]["gb"]
    if "relative residual" in held.form:
        figures["residual"] = float(held.form.rsplit(" ", 1)[1])
    return {"lines": meter.lines, "figures": figures}


def from_curves(surrogate: str, configs: int) -> dict[str, Any]:
    """The same from every epoch of the curves."""
    import mfgp

    model, request, meter = getattr(mfgp, surrogate)(), curves_request(configs), _Meter()
    n = len(request["y"])
    meter("all epochs: refit, compiling too", n, lambda: mfgp.suggest(model, **request), _said)
    fitted = meter("all epochs: refit", n, lambda: mfgp.suggest(model, **request | {"seed": (0, 2)}), _said)
    meter("all epochs: held", n, lambda: mfgp.suggest(model, **request, warm=fitted.hyperparameters, refit=False), _said)
    return {"lines": meter.lines, "figures": {}}


def comparison(surrogate: str, size: int) -> dict[str, Any]:
    """Means and standard deviations at 200 random points and r_acq, with fantasies, in dense and in iterative form."""
    import jax

    import mfgp
    from mfgp import iterative, large, posterior
    from mfgp.data import at_level
    from mfgp.problem import problem_of

    model, request, meter = getattr(mfgp, surrogate)(), rungs_request(size), _Meter()
    n = len(request["y"])
    fitted = mfgp.suggest(model, **request).hyperparameters
    with jax.enable_x64(True):
        problem = problem_of(model, **request, warm=fitted, refit=False)
        rows = large.rows_of(problem.data, (0, 1))
        points = np.random.default_rng(1).random((200, rows.configs.shape[1]))

        def query(like: Any) -> Any:
            return at_level(points, problem.level, like)  # type: ignore[arg-type]

        def iterated(theta: Any, rows: Any) -> Any:
            post = iterative.condition(jax.random.key(0), model.unflatten(theta, rows.data.inputs), rows, problem.pending, 20)
            few = jax.tree.map(lambda a: a[:32], query(rows.data.inputs))._replace(levels=rows.data.inputs.levels)
            return (*post.predict(query(rows.data.inputs)), iterative.at(post, few)[0].variance)

        def dense(theta: Any, data: Any) -> Any:
            post = posterior.condition(model.unflatten(theta, data.inputs), data)
            return posterior.fantasise(jax.random.key(0), post, problem.pending, 20).predict(query(data.inputs))

        theta = problem.first[0]
        mean, sparse, exact = meter(
            "posterior, iterative", n, lambda: jax.device_get(jax.jit(iterated)(theta, rows)), lambda _: "20 fantasies, compiling too"
        )
        dense_mean, variance = meter(
            "posterior, dense", n, lambda: jax.device_get(jax.jit(dense)(theta, problem.data)), lambda _: "the same"
        )
        best = mfgp.suggest(model, **request, warm=fitted, refit=False)
        lost = _lost(model, problem, best.x[0])
    std = np.sqrt(variance)
    deviation, of_exact = np.max(np.abs(mean - dense_mean) / std), np.max(np.abs(np.sqrt(exact) / std[:32] - 1))
    ratio = np.sqrt(sparse) / std
    for text in (
        f"means within {deviation:.4f} standard deviations of the dense ones",
        f"standard deviations within {of_exact:.1%}; those of the screen {ratio.min():.2f} to {ratio.max():.2f} times the dense ones",
        f"{best.form.split(':')[0]} suggestion: {lost:.3f} below the dense one in dense log expected improvement",
    ):
        meter.lines.append({"what": "iterative against dense", "n": n, "wall": 0.0, "cpu": 0.0, "gb": 0.0, "text": text})
    return {"lines": meter.lines, "figures": {"deviation": float(deviation)}}


def _lost(model: Any, problem: Any, x: np.ndarray) -> float:
    """By how much the dense acquisition at x is below that of the dense form's own choice."""
    import mfgp
    from mfgp.suggest import compute

    best = compute(model, mfgp.ExpectedImprovement(), 20, problem).candidates.acquisition[0]
    fixed = problem._replace(candidates=np.repeat(x[None], len(problem.candidates), 0), free=np.zeros_like(problem.free))
    return float(best - compute(model, mfgp.ExpectedImprovement(), 20, fixed).candidates.acquisition[0])


def rungs_request(size: int) -> dict[str, Any]:
    """The arguments of `mfgp.suggest` for `size` observations at rungs: at each the best third of the rung below."""
    share = sum(ETA**-k for k in range(len(RUNGS)))
    rows, curves = _curves(int(np.ceil(size / share)) + 1)
    going, chosen = np.arange(len(rows)), []
    for rung in RUNGS:
        chosen += [(int(config), rung) for config in going]
        going = going[np.argsort(curves[going, rung - 1], kind="stable")][: len(going) // ETA]
    return _request(rows, curves, chosen[:size])


def curves_request(configs: int) -> dict[str, Any]:
    rows, curves = _curves(configs)
    return _request(rows, curves, [(config, r) for config in range(configs) for r in range(1, EPOCHS + 1)])


def _curves(num: int) -> tuple[np.ndarray, np.ndarray]:
    from experiments.benchmarks.synthetic import Curves
    from schedulers.encoding import Encoding

    benchmark = Curves(num_floats=8, num_ints=0, num_categoricals=0, r_max=EPOCHS, noise=0.01)
    encoding = Encoding(benchmark.space)
    vectors = encoding.sample(num, np.random.default_rng(0))
    return encoding.rows(vectors), np.stack([benchmark.curve(config) for config in encoding.configs(vectors)])


def _request(rows: np.ndarray, curves: np.ndarray, seen: list[tuple[int, int]]) -> dict[str, Any]:
    import mfgp

    config, r = np.array(seen).T
    rng, zeros = np.random.default_rng(1), np.zeros(rows.shape[1])
    u = (r - 0.5) / EPOCHS
    return {
        "seed": (0, 1),
        "x": rows[config],
        "r": u,
        "y": curves[config, r - 1],
        "pending_x": rng.random((4, rows.shape[1])),
        "pending_r": (np.array([1, 1, 3, 9]) - 0.5) / EPOCHS,
        "r_acq": (27 - 0.5) / EPOCHS,
        "candidates": rng.random((2000, rows.shape[1])),
        "free": np.ones((2000, rows.shape[1]), bool),
        "space": mfgp.Space(kind=zeros.astype(int), log=zeros.astype(bool), low=zeros, high=zeros + 1),
    }
