"""Several studies' suggestions in one call, and compiling ahead of time."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import unwrap
from typing import Any

import jax
import numpy as np

from mfgp.acquisition import Acquisition
from mfgp.large import FIT_ROWS
from mfgp.precision import precision_of
from mfgp.problem import Problem, Space, problem_of
from mfgp.suggest import EXPECTED_IMPROVEMENT, Suggestion, compute, conclude, suggest
from mfgp.surrogates import Surrogate


def suggest_many(
    surrogate: Surrogate,
    requests: Sequence[Mapping[str, Any]],
    *,
    width: int,
    num_fantasies: int = 20,
    acquisition: Acquisition = EXPECTED_IMPROVEMENT,
) -> list[Suggestion]:
    """A suggestion per request; a request is the keyword arguments of `suggest`, less those given here.

    On the CPU at most `width` run at a time, each the very program that `suggest` runs alone: the same bits. On an accelerator `width`
    studies of one bucket advance in lock step, idle ones filling up, so that an answer does not depend on who else asks.
    """
    if width < 1:
        raise ValueError(f"width={width} must be at least 1")
    one = partial(suggest, surrogate, num_fantasies=num_fantasies, acquisition=acquisition)
    if jax.default_backend() != "cpu":
        return in_lock_step(surrogate, requests, width=width, num_fantasies=num_fantasies, acquisition=acquisition)
    with ThreadPoolExecutor(width) as threads:
        return list(threads.map(lambda request: one(**request), requests))


def in_lock_step(
    surrogate: Surrogate, requests: Sequence[Mapping[str, Any]], *, width: int, num_fantasies: int, acquisition: Acquisition
) -> list[Suggestion]:
    """`suggest_many` on an accelerator. On a CPU it is slow (LAPACK calls in a batch), and with jax 0.10 may hang."""
    answers: dict[int, Suggestion] = {}
    with precision_of(surrogate):
        problems = [problem_of(surrogate, **request) for request in requests]
        groups: dict[Any, list[int]] = {}
        for i, problem in enumerate(problems):
            if len(problem.data.y) > FIT_ROWS:  # one alone is work enough
                answers[i] = suggest(surrogate, **requests[i], num_fantasies=num_fantasies, acquisition=acquisition)
                continue
            groups.setdefault(tuple(np.shape(leaf) for leaf in jax.tree.leaves(problem)), []).append(i)
        for members in groups.values():
            for start in range(0, len(members), width):
                chunk = members[start : start + width]
                busy = [problems[i] for i in chunk]
                idle = busy[0]._replace(budgets=0 * busy[0].budgets)
                rows = busy + [idle] * (width - len(chunk))
                stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
                results = jax.device_get(_compute_lock_step(surrogate, acquisition, num_fantasies, stacked))
                for j, i in enumerate(chunk):
                    result = jax.tree.map(lambda leaf, j=j: leaf[j], results)
                    answers[i] = conclude(surrogate, problems[i], result, requests[i].get("refit", True))
    return [answers[i] for i in range(len(requests))]


@partial(jax.jit, static_argnames=("surrogate", "acquisition", "num_fantasies"))
def _compute_lock_step(surrogate: Surrogate, acquisition: Acquisition, num_fantasies: int, problems: Problem) -> Any:
    return jax.vmap(partial(unwrap(compute), surrogate, acquisition, num_fantasies))(problems)


def precompile(
    surrogate: Surrogate,
    *,
    n: int,
    space: Space,
    num_candidates: int,
    num_levels: int = 1,
    num_fantasies: int = 20,
    pending_size: int = 8,
    acquisition: Acquisition = EXPECTED_IMPROVEMENT,
) -> None:
    """Compile what `suggest` needs for n observations at num_levels distinct resources; may run in a thread beside suggestions.

    To have the next bucket ready in time: n = bucket(n) + 1. Returns when that is done; at once if it was done before.
    """
    d = space.kind.shape[0]
    levels = np.linspace(0.1, 1.0, num_levels)
    suggest(
        surrogate,
        seed=(0, 0),
        x=np.broadcast_to(np.linspace(0.0, 1.0, n)[:, None], (n, d)),  # no configuration twice: nothing to collapse
        r=np.resize(levels, n),
        y=np.arange(n, dtype=float),
        pending_x=np.zeros((0, d)),
        pending_r=np.zeros(0),
        r_acq=float(levels[0]),
        candidates=np.full((num_candidates, d), 0.5),
        free=np.zeros((num_candidates, d), bool),
        space=space,
        refit=False,
        num_fantasies=num_fantasies,
        pending_size=pending_size,
        acquisition=acquisition,
    )
