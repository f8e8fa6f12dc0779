"""The host part of a suggestion: what it depends on, checked, transformed and padded to few sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from mfgp.budgets import allot
from mfgp.collapsed import collapse
from mfgp.data import MIN_LEVELS, TARGETS, Data, Inputs, bucket, pad
from mfgp.maximise import Grid
from mfgp.surrogates import Surrogate, alone

CONTINUOUS, INTEGER, FIXED, CATEGORY = 0, 1, 2, 3


@dataclass(frozen=True)
class Space:
    """What local refinement must know of the encoded coordinates.

    kind: 0 continuous, 1 integer, 2 fixed (an activity bit: never moved), 3 category. Integer coordinates encode
    [low - 1/2, high + 1/2], on a log scale where log is set, onto [0, 1]; low and high of the others are not used. group numbers the
    categories: one-hot coordinates share a number, a lone coordinate is 1/4 or 3/4; -1 (the default) elsewhere.
    """

    kind: np.ndarray
    log: np.ndarray
    low: np.ndarray
    high: np.ndarray
    group: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.group is None:
            object.__setattr__(self, "group", np.full(len(self.kind), -1))
        for name, dtype in (("kind", np.int64), ("log", bool), ("low", np.float64), ("high", np.float64), ("group", np.int32)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        integer = self.kind == INTEGER
        if not self.kind.shape == self.log.shape == self.low.shape == self.high.shape or self.kind.ndim != 1:
            raise ValueError("space.kind, log, low and high must be vectors of one length")
        if not np.all(np.isin(self.kind, (CONTINUOUS, INTEGER, FIXED, CATEGORY))):
            raise ValueError(f"space.kind={self.kind} must consist of 0 (continuous), 1 (integer), 2 (fixed) and 3 (category)")
        group = np.asarray(self.group)
        if group.shape != self.kind.shape or np.any((group >= 0) != (self.kind == CATEGORY)):
            raise ValueError("space.group must number the coordinates of kind 3 (category) from 0, and be -1 elsewhere")
        if np.any(self.low[integer] > self.high[integer]) or np.any(self.low[integer & self.log] < 1):
            raise ValueError("space.low must not exceed space.high for integers, and be at least 1 on a log scale")

    @property
    def grid(self) -> Grid:
        parts: Any = (self.kind == INTEGER, self.log, self.low, self.high, self.group)  # of NumPy, as all here
        return Grid(*parts)


class Problem(NamedTuple):
    """Everything that a suggestion depends on, besides the surrogate, as padded arrays."""

    seed: UInt32[Array, "2"]
    data: Data
    pending: Inputs
    level: Int[Array, ""]  # of the acquisition
    unit: Float[Array, ""]  # standard deviation of the targets at r_acq
    first: Float[Array, "H P"]  # hyperparameters to start from, in the optimiser's coordinates; then, with mcmc, draws to keep
    runner_up: Float[Array, "P"]  # the second best optimum of the fit before; nan: none
    fruitless: Int[Array, ""]  # fits in a row that tried more than first[0] and gained nothing by it
    initial: Float[Array, "P"]  # what fresh starts are drawn around
    budgets: Int[Array, "F"]  # evaluations of the fit from first[0], runner_up, initial, random starts, escapes; all 0: first[0] as it is
    candidates: Float[Array, "C D"]
    free: Bool[Array, "C D"]
    grid: Grid


def problem_of(
    surrogate: Surrogate,
    *,
    seed: tuple[int, int],
    x: np.ndarray,
    r: np.ndarray,
    y: np.ndarray,
    pending_x: np.ndarray,
    pending_r: np.ndarray,
    r_acq: float,
    candidates: np.ndarray,
    free: np.ndarray,
    space: Space,
    warm: Mapping[str, Any] | None = None,
    refit: bool = True,
    pending_size: int = 8,
) -> Problem:
    """The host part of `suggest`: check, transform, pad. To be called in the scope of precision_of."""
    x, r, y, pending_x, pending_r, candidates = (np.asarray(a, np.float64) for a in (x, r, y, pending_x, pending_r, candidates))
    free = np.asarray(free, bool)
    d = space.kind.shape[0]
    _check(dict(x=x, r=r, y=y, pending_x=pending_x, pending_r=pending_r, candidates=candidates, free=free), d, pending_size)
    levels = np.unique(np.concatenate([r, pending_r, [r_acq]]))
    padded_levels = np.concatenate([levels, np.full(bucket(len(levels), MIN_LEVELS) - len(levels), levels[-1])])
    z = TARGETS[surrogate.options.targets](y, r)
    at_acq = z[r == r_acq]
    rows = bucket(len(z))
    level = int(np.searchsorted(padded_levels, r_acq))
    targets: Any = np.concatenate([z, np.zeros(rows - len(z))])
    data = Data(_inputs(x, r, padded_levels, rows, d), targets)
    data = (collapse(data, level) if surrogate.collapses else None) or data
    initial = surrogate.flatten({}, d, levels, len(padded_levels))
    second, fruitless = (warm or {}).get("runner_up") or None, (warm or {}).get("fruitless", 0)
    arrays: dict[str, Any] = dict(  # of NumPy, which a compiled function takes as they are
        seed=np.array([s % 2**32 for s in seed], np.uint32),
        level=np.int32(level),
        # In units of the spread at r_acq, which may be far less than the joint one.
        unit=np.float64(at_acq.std() if len(at_acq) > 1 else 1.0),
        first=_first(surrogate, warm or {}, d, levels, len(padded_levels)),
        runner_up=surrogate.flatten(second, d, levels, len(padded_levels)) if second is not None else np.full_like(initial, np.nan),
        fruitless=np.int32(fruitless),
        initial=initial,
        budgets=allot(
            surrogate.options, seed[1], len(data.y), surrogate.num_bandwidths(d), warm is not None, second is not None, refit, fruitless
        ),
        candidates=candidates,
        free=free & (space.kind != FIXED),
    )
    pending = _inputs(pending_x, pending_r, padded_levels, pending_size, d)
    return Problem(data=data, pending=pending, grid=space.grid, **arrays)


def _check(arrays: Mapping[str, np.ndarray], d: int, pending_size: int) -> None:
    n, p, c = (len(arrays[name]) for name in ("y", "pending_r", "candidates"))
    if n < 1:
        raise ValueError("suggest needs at least one observation, got y of length 0")
    shapes = dict(x=(n, d), r=(n,), y=(n,), pending_x=(p, d), pending_r=(p,), candidates=(c, d), free=(c, d))
    for name, shape in shapes.items():
        array = arrays[name]
        if name == "pending_x" and p == 0:
            continue  # an empty list has no second axis
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; {shape} is expected")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} has entries that are not finite")
    if c < 1:
        raise ValueError("candidates is empty; at least one row is needed")
    if p > pending_size:
        raise ValueError(f"pending_size={pending_size} must be at least the number of pending evaluations, {p}")


def _inputs(x: np.ndarray, r: np.ndarray, levels: np.ndarray, rows: int, d: int) -> Inputs:
    level = np.searchsorted(levels, r).astype(np.int32)
    parts: Any = (pad(x.reshape(-1, d), rows), pad(level, rows), levels, np.arange(rows) < len(r))
    return Inputs(*parts)


def _first(surrogate: Surrogate, warm: Mapping[str, Any], d: int, levels: np.ndarray, num_levels: int) -> np.ndarray:
    """`warm` (initial values, if empty) and, with mcmc, the draws that it carries (itself, if none)."""
    flatten = partial(surrogate.flatten, num_coordinates=d, levels=levels, num_levels=num_levels)
    main = flatten(alone(warm))
    if surrogate.options.mcmc is None:
        return main[None]
    draws = [flatten(one) for one in warm.get("draws", ())] or [main]
    return np.stack([main, *np.resize(draws, (surrogate.options.mcmc.draws, len(main)))])
