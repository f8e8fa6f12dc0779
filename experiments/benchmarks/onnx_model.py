"""Evaluate a small ONNX network with NumPy: a reader of the file format and the dozen operators that surrogate benchmarks use.

An ONNX file is one Protocol Buffers message. Of it we need names, tensors and the list of nodes, which are already in an order in which
they can be computed; that is shorter than a dependency, and what is not supported is said when the file is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# ONNX's numbers of element types
DTYPES: dict[int, Any] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Node(NamedTuple):
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class Network:
    """The graph of the file at `path`; `inputs` and `outputs` are the names of its arguments and results.

    Raises ValueError if the file is no ONNX model, or has an operator that is not supported.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            graph = _only(_fields(Path(path).read_bytes()), 7)
            fields = list(_fields(graph))
            self._tensors = dict(_tensor(body) for number, body in fields if number == 5)
            nodes = [_node(body) for number, body in fields if number == 1]
            outputs = [_text(_only(_fields(body), 1)) for number, body in fields if number == 12]
            inputs = [_text(_only(_fields(body), 1)) for number, body in fields if number == 11]
        except (IndexError, struct.error, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged or no ONNX model ({type(error).__name__}: {error})") from error
        unknown = sorted({node.op for node in nodes} - set(OPERATORS) - {"Constant"})
        if unknown or not outputs:
            raise ValueError(f"{path}: the operators {', '.join(unknown)} are not supported" if unknown else f"{path} has no output")
        self.inputs, self.outputs = [name for name in inputs if name not in self._tensors], outputs
        self._tensors |= {node.outputs[0]: node.attributes["value"] for node in nodes if node.op == "Constant"}
        self._nodes = [node for node in nodes if node.op != "Constant"]

    def __call__(self, arguments: Mapping[str, np.ndarray]) -> np.ndarray:
        """The (first) result for these arguments; rows are independent, so many are cheaper together than one by one."""
        values: dict[str, Any] = {**self._tensors, **arguments}
        for node in self._nodes:
            result = OPERATORS[node.op](*(values[name] for name in node.inputs), **node.attributes)
            values[node.outputs[0]] = result
        return np.asarray(values[self.outputs[0]])


def _gemm(a: Any, b: Any, c: Any, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    product = (a.T if transA else a) @ (b.T if transB else b)
    return np.float32(alpha) * product + np.float32(beta) * c


def _normalise(x: Any, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: float = 1e-5, momentum: float = 0.9) -> Any:
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    return x * factor + (shift - mean * factor)


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    starts, ends = np.atleast_1d(starts), np.atleast_1d(ends)
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(np.atleast_1d(range(len(starts)) if axes is None else axes)):
        index[int(axis)] = slice(int(starts[i]), int(ends[i]), 1 if steps is None else int(np.atleast_1d(steps)[i]))
    return x[tuple(index)]


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
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, 0),
    "Shape": lambda x: np.array(x.shape, np.int64),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Slice": _slice,
    "Sub": np.subtract,
    "Unsqueeze": _unsqueeze,
}


def _node(body: memoryview) -> Node:
    inputs, outputs, op, attributes = [], [], "", {}
    for number, value in _fields(body):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 5:
            name, attribute = _attribute(value)
            attributes[name] = attribute
    return Node(op, inputs, outputs, attributes)


def _attribute(body: memoryview) -> tuple[str, Any]:
    name, found = "", None
    for number, value in _fields(body):
        if number == 1:
            name = _text(value)
        elif number == 2:
            found = struct.unpack("<f", value)[0]
        elif number == 3:
            found = value
        elif number == 5:
            found = _tensor(value)[1]
    return name, found


def _tensor(body: memoryview) -> tuple[str, np.ndarray]:
    dims: list[int] = []
    name, raw = "", b""
    dtype: Any = np.float32
    for number, value in _fields(body):
        if number == 1:
            dims += [value] if isinstance(value, int) else [v for v in _varints(value)]
        elif number == 2:
            dtype = DTYPES[value]
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = bytes(value)
        elif number in (4, 5, 7, 10):
            raise ValueError("tensors that are not stored as raw data are not supported")
    return name, np.frombuffer(raw, dtype).reshape(dims)


def _fields(body: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message in order: their number, and an int or the bytes."""
    view, at = memoryview(body), 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == BYTES:
            length, at = _varint(view, at)
        else:
            length = {FIXED64: 8, FIXED32: 4}[kind]
        if at + length > len(view):
            raise ValueError("the file ends too early")
        yield number, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _varints(view: memoryview) -> Iterator[int]:
    at = 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _only(fields: Iterator[tuple[int, Any]], wanted: int) -> Any:
    return next(value for number, value in fields if number == wanted)


def _text(value: memoryview) -> str:
    return bytes(value).decode()
