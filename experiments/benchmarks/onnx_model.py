"""Evaluate a small ONNX network with NumPy: a reader of the file format and the dozen operators that surrogate benchmarks use.

An ONNX file is one Protocol Buffers message. Of it we need names, tensors and the list of nodes, which are already in an order in which
they can be computed; that is shorter than a dependency, and what is not supported is said when the file is read.

A study asks for a few rows at a time, where the interpreter costs more than the arithmetic. So the first call makes a plan: what does not
depend on the arguments is computed once, and what is left are calls of NumPy with everything else bound to them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
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
        self._plan: _Plan | None = None

    def __call__(self, arguments: Mapping[str, np.ndarray]) -> np.ndarray:
        """The (first) result for these arguments; rows are independent, so many are cheaper together than one by one."""
        if self._plan is None:
            self._plan = self._planned(arguments)
        values = dict(arguments)
        for function, inputs, output in self._plan.steps:
            values[output] = function(*[values[name] for name in inputs])
        return np.asarray(values[self._plan.output])

    def interpret(self, arguments: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every value of the graph, node by node: what a call gives faster."""
        values: dict[str, Any] = {**self._tensors, **arguments}
        for node in self._nodes:
            values[node.outputs[0]] = OPERATORS[node.op](*(values[name] for name in node.inputs), **node.attributes)
        return values

    def _planned(self, arguments: Mapping[str, np.ndarray]) -> _Plan:
        """The steps that arguments of these types need. Sizes are fixed if two numbers of rows give the same ones."""
        two, three = ({name: np.repeat(value[:1], rows, axis=0) for name, value in arguments.items()} for rows in (2, 3))
        values, others = self.interpret(two), self.interpret(three)
        fixed, sizes, alias = set(self._tensors), set[str](), dict[str, str]()
        steps: list[_Step] = []
        for node in self._nodes:
            output = node.outputs[0]
            if node.op == "Shape" or (sizes & set(node.inputs) and set(node.inputs) <= sizes | fixed):
                sizes.add(output)
            is_size = output in sizes and np.array_equal(values[output], others[output])
            if is_size or set(node.inputs) <= fixed:
                fixed.add(output)
                continue
            inputs = [alias.get(name, name) for name in node.inputs]
            if node.op == "Cast" and values[inputs[0]].dtype == DTYPES[node.attributes["to"]]:
                alias[output] = inputs[0]
                continue
            free = tuple(name for name in inputs if name not in fixed)
            steps.append((_bound(node, [values[name] if name in fixed else None for name in inputs], values[inputs[0]]), free, output))
        return _Plan(steps, alias.get(self.outputs[0], self.outputs[0]))


_Step = tuple[Callable[..., Any], tuple[str, ...], str]


class _Plan(NamedTuple):
    steps: list[_Step]  # what to call, with the values of which names, and the name of the result
    output: str


def _bound(node: Node, known: list[Any], example: np.ndarray) -> Callable[..., Any]:
    """The node as a function of those inputs that are not known (None); `example` is a value of the first."""
    operator, attributes = OPERATORS[node.op], node.attributes
    if node.op == "Gemm" and not attributes.get("transA") and known[0] is None and all(part is not None for part in known[1:]):
        b = np.ascontiguousarray(known[1].T if attributes.get("transB") else known[1]) * np.float32(attributes.get("alpha", 1.0))
        c = known[2] * np.float32(attributes.get("beta", 1.0))
        return lambda x: x @ b + c
    if node.op == "BatchNormalization" and all(part is not None for part in known[1:]):
        scale, shift, mean, variance = known[1:]
        factor = scale / np.sqrt(variance + np.float32(attributes.get("epsilon", 1e-5)))
        offset = shift - mean * factor
        return lambda x: x * factor + offset
    if node.op == "Gather" and attributes.get("axis", 0) == 1 and known[0] is None and np.ndim(known[1]) == 0 and known[1] is not None:
        column = int(known[1])
        return lambda x: x[:, column]
    if node.op == "Unsqueeze" and known[1] is not None and example.ndim == 1 and np.array_equal(known[1], [1]):
        return lambda x: x[:, None]
    if node.op == "Slice" and all(part is not None for part in known[1:]):
        index = _index(example.ndim, *known[1:])
        return lambda x: x[index]
    if node.op == "Div" and np.issubdtype(example.dtype, np.floating):
        operator = np.true_divide
    if all(part is None for part in known):
        return partial(operator, **attributes) if attributes else operator
    if len(known) == 2 and not attributes:  # the commonest: arithmetic with a constant
        first, second = known
        return (lambda x: operator(x, second)) if first is None else (lambda x: operator(first, x))

    def call(*free: Any) -> Any:
        given = iter(free)
        return operator(*(next(given) if part is None else part for part in known), **attributes)

    return call


def _gemm(a: Any, b: Any, c: Any, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Any:
    product = (a.T if transA else a) @ (b.T if transB else b)
    return np.float32(alpha) * product + np.float32(beta) * c


def _normalise(x: Any, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: float = 1e-5, momentum: float = 0.9) -> Any:
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    return x * factor + (shift - mean * factor)


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    return x[_index(x.ndim, starts, ends, axes, steps)]


def _index(ndim: int, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[slice, ...]:
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
