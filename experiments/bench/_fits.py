"""How good the fits of studies are, against five fresh restarts; and 30 studies in one call against 30 calls."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

NATS, SHARE = 0.1, 0.95
RESTARTS, EVALUATIONS = 5, 200
SEEDS = 3  # studies of each kind whose fits are checked
NUM_STUDIES = 30
SHARES = {16: 0.6, 32: 0.6, 60: 0.6, 128: 1.0}  # observations: wanted share of the time of single calls
SPACING = 7  # suggestions between two fits that are checked: prime to the periods of mfgp/budgets.py
STUDIES = {
    "curves": ["benchmark=curves", "benchmark.num_floats=8", "benchmark.num_ints=0", "benchmark.num_categoricals=0"],
    "lcbench 168329": ["benchmark=yahpo", "benchmark.task=168329"],
    "lcbench 189908": ["benchmark=yahpo", "benchmark.task=189908"],
    "nasbench201": ["benchmark=nasbench201"],
}


def recorded(overrides: list[str], num_trials: int, seed: int) -> list[tuple[dict[str, Any], Any]]:
    """(request, suggestion) of every suggestion of one simulated study."""
    import mfgp
    from experiments.overrides import composed
    from experiments.simulation import simulate

    kept, real = [], mfgp.suggest

    def keep(surrogate: Any, **request: Any) -> Any:
        answer = real(surrogate, **request)
        kept.append((request, answer))
        return answer

    fixed = [f"budget.trials={num_trials}", "budget.seconds=null", "workers=4", "backend=simulated", "scheduler=stopping", "searcher=gp"]
    mfgp.suggest = keep
    try:
        simulate(composed([*fixed, *overrides]), seed)
    finally:
        mfgp.suggest = real
    return kept


def excess(request: dict[str, Any], loss: float, seed: int) -> float:
    """By how many nats `loss` is above the best of RESTARTS fresh starts: the initial values, and random ones around them."""
    import jax
    import jax.numpy as jnp

    import mfgp
    from mfgp.compiler import compiled
    from mfgp.fit import fit
    from mfgp.problem import problem_of
    from mfgp.surrogates import random_starts

    surrogate = mfgp.exp_decay()

    @compiled(static_argnames=())
    def best(problem: Any) -> Any:
        data = problem.data
        low, high = (jnp.asarray(side) for side in surrogate.box(data.inputs.x.shape[1], data.inputs.levels.shape[0]))
        starts = random_starts(jax.random.key(seed), problem.initial, low, high, RESTARTS)
        return fit(surrogate, data, starts, jnp.full(RESTARTS, EVALUATIONS)).loss

    with jax.enable_x64(True):
        arguments = {name: value for name, value in request.items() if name not in ("num_fantasies", "acquisition")}
        return loss - float(best(problem_of(surrogate, **arguments)))


def quality_table(num_trials: int = 150, largest: int = 330) -> str:
    """Of every SPACING-th refit of SEEDS studies of each of `STUDIES`, the share within NATS of the best of fresh restarts."""
    lines, everything = [], []
    for name, overrides in STUDIES.items():
        if name != "curves" and "MFGP_DATA_DIR" not in os.environ:
            lines.append(f"{name}: left out, MFGP_DATA_DIR is not set")
            continue
        gaps, evaluations = [], []
        for study in range(SEEDS):
            fits = [(request, answer) for request, answer in recorded(overrides, num_trials, study) if answer.refitted]
            evaluations += [answer.evaluations for _, answer in fits]
            gaps += [
                excess(request, answer.loss, seed)
                for seed, (request, answer) in enumerate(fits)
                if seed % SPACING == SPACING // 2 and len(request["y"]) <= largest
            ]
        lines.append(f"{name}: {_share(gaps)}\n    {np.mean(evaluations):.0f} evaluations per fit; {_verdict(gaps)}")
        everything += gaps
    return "\n".join([*lines, f"all: {_share(everything)}; {_verdict(everything)}"])


def _verdict(gaps: list[float]) -> str:
    return f"wanted {100 * SHARE:.0f} %: {'met' if np.mean(np.array(gaps) <= NATS) >= SHARE else 'FAILED'}"


def _share(gaps: list[float]) -> str:
    excesses = np.array(gaps)
    return (
        f"{np.sum(excesses <= NATS)} of {len(gaps)} fits within {NATS} nat of the best of {RESTARTS} fresh starts "
        f"({100 * np.mean(excesses <= NATS):.0f} %), {np.sum(excesses < -NATS)} ahead of it by more; worst {np.max(excesses):+.1f}"
    )


def many_table(repeats: int = 5) -> str:
    """NUM_STUDIES refitting suggestions by `suggest_many`, and by as many calls of `suggest`, in turn."""
    import mfgp

    lines = [f"{'n':>5} {'one call, s':>12} {'single calls, s':>16} {'share':>6}   (medians of {repeats}, in turn)"]
    for n, wanted in SHARES.items():
        requests = [_request(n, study) for study in range(NUM_STUDIES)]
        together, apart = [], []
        for turn in range(repeats + 1):
            began = time.perf_counter()
            in_one = mfgp.suggest_many(mfgp.exp_decay(), requests, width=os.cpu_count() or 1)
            middle = time.perf_counter()
            alone = [mfgp.suggest(mfgp.exp_decay(), **request) for request in requests]
            if turn:  # the first one compiles
                together.append(middle - began)
                apart.append(time.perf_counter() - middle)
            assert all(np.array_equal(a.x, b.x) for a, b in zip(in_one, alone, strict=True))
        share = float(np.median(together) / np.median(apart))
        verdict = "met" if share <= wanted else "FAILED"
        lines.append(f"{n:5d} {np.median(together):12.3f} {np.median(apart):16.3f} {share:6.2f}   wanted {wanted}: {verdict}")
    return "\n".join(lines)


def _request(n: int, study: int) -> dict[str, Any]:
    import mfgp

    rng = np.random.default_rng(study)
    d = 8
    x, r = rng.random((n, d)), (rng.choice([1, 3, 9, 27], n) - 0.5) / 27
    zeros = np.zeros(d)
    return {
        "seed": (study, n),
        "x": x,
        "r": r,
        "y": ((x - 0.4) ** 2).sum(1) + np.exp(-3 * r) + 0.02 * rng.standard_normal(n),
        "pending_x": rng.random((3, d)),
        "pending_r": r[:3],
        "r_acq": float(r.max()),
        "candidates": rng.random((2000, d)),
        "free": np.ones((2000, d), bool),
        "space": mfgp.Space(kind=zeros.astype(int), log=zeros.astype(bool), low=zeros, high=zeros + 1),
    }
