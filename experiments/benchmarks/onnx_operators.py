"""The dozen ONNX operators that surrogate benchmarks use, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from experiments.benchmarks.onnx_file import DTYPES


def _gemm(a: Any, b: Any, c: Any, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    product = (a.T if transA else a) @ (b.T if transB else b)
    return np.float32(alpha) * product + np.float32(beta) * c


def _normalise(x: Any, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: float = 1e-5, momentum: float = 0.9) -> Any:
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    return x * factor + (shift - mean * factor)


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    return x[index_of(x.ndim, starts, ends, axes, steps)]


def index_of(ndim: int, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[slice, ...]:
    starts, ends = np.atleast_1d(starts), np.atleast_1d(ends)
    index = [slice(None)] * ndim
    for i, axis in enumerate(np.atleast_1d(range(len(starts)) if axes is None else axes)):
        index[int(axis)] = slice(int(starts[i]), int(ends[i]), 1 if steps is None else int(np.atleast_1d(steps)[i]))
    return tuple(index)


def _divide(a: Any, b: Any) -> Any:
    """Integers divide as in C, towards zero (here they are sizes, never negative)."""
    return a // b if np.issubdtype(np.result_type(a, b), np.integer) else a / b


def _unsqueeze(x: Any, axes: Any) -> Any:
    return np.expand_dims(x, tuple(int(axis) for axis in np.atleast_1d(axes)))


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "BatchNormalization": _normalise,
    "Cast": lambda x, to: np.asarray(x).astype(DTYPES[to]),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis=axis),
    "Div": _divide,
    "Exp": np.exp,
    "Gather": lambda x, index, axis=0: np.take(x, index, axis=axis),
    "Gemm": _gemm,
    "Log": np.log,
    "Max": lambda *parts: reduce(np.maximum, parts),
    "Min": lambda *parts: reduce(np.minimum, parts),
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, 0),
    "Shape": lambda x: np.array(x.shape, np.int64),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Slice": _slice,
    "Sub": np.subtract,
    "Unsqueeze": _unsqueeze,
}


ELEMENTWISE = {name: OPERATORS[name] for name in ("Add", "Exp", "Log", "Max", "Min", "Mul", "Sigmoid", "Sub")} | {"Div": np.true_divide}
