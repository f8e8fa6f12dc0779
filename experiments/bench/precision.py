"""What a surrogate loses in single precision, against double precision, by the number of observations.

The histories are those of `bench scale`: successive halving on synthetic curves. At hyperparameters fitted in double precision: the
difference of the log likelihood, of the means in posterior standard deviations and of these themselves, over 200 random points. Of a fit
in single precision: how much worse it is in the objective of double precision. Of the choice: by how much the log expected improvement
of double precision is lower at the point chosen in single precision, hyperparameters held.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.bench.scale import rungs_request
from experiments.runtime import prepare_environment


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench precision", description=__doc__)
    parser.add_argument("--surrogates", nargs="*", default=["exp_decay", "matern"], help="factories of mfgp")
    parser.add_argument("--sizes", type=int, nargs="*", default=[30, 100, 300, 1000], help="observations")
    arguments = parser.parse_args(argv)
    prepare_environment()
    columns = f"{'log likelihood, nats':>21} {'mean / std':>11} {'std, %':>7} {'fit, nats':>10} {'choice, nats':>13}"
    print(f"{'surrogate':<13} {'n':>5} {columns}   remarks")
    for name in arguments.surrogates:
        for size in arguments.sizes:
            print(_row(name, size), flush=True)


def _row(name: str, size: int) -> str:
    import jax

    import mfgp
    from mfgp.data import at_level
    from mfgp.posterior import condition, log_marginal_likelihood
    from mfgp.precision import precision_of
    from mfgp.problem import problem_of

    request = rungs_request(size)
    double, single = (getattr(mfgp, name)(precision=precision) for precision in ("float64", "float32"))
    fitted, fitted_single = (mfgp.suggest(surrogate, **request) for surrogate in (double, single))
    points = np.random.default_rng(1).random((200, request["x"].shape[1]))
    held: dict[str, Any] = {"warm": fitted.hyperparameters, "refit": False}

    def believed(surrogate: Any) -> Any:
        with precision_of(surrogate):
            problem = problem_of(surrogate, **request, **held)

            def evaluate(theta: Any, data: Any, at: Any) -> Any:
                process = surrogate.unflatten(theta, data.inputs)
                return log_marginal_likelihood(process, data), *condition(process, data).predict(at_level(at, problem.level, data.inputs))

            return jax.device_get(jax.jit(evaluate)(problem.first[0], problem.data, points))

    (value, mean, variance), (value_single, mean_single, variance_single) = believed(double), believed(single)
    std = np.sqrt(variance)
    with_single = mfgp.suggest(double, **request, warm=fitted_single.hyperparameters, refit=False).loss
    with_double = mfgp.suggest(double, **request, **held)
    choice = mfgp.suggest(single, **request, **held)
    there = request | {"candidates": np.repeat(choice.x[:1], len(request["candidates"]), 0), "free": np.zeros_like(request["free"])}
    lost = with_double.acquisition[0] - mfgp.suggest(double, **there, **held).acquisition[0]
    return (
        f"{name:<13} {len(request['y']):5d} {value_single - value:21.1e} {np.max(np.abs(mean_single - mean) / std):11.1e} "
        f"{100 * np.max(np.abs(np.sqrt(variance_single) / std - 1)):7.2f} {with_single - with_double.loss:10.3f} {lost:13.4f}   "
        f"{choice.fallback or fitted_single.fallback}"
    )
