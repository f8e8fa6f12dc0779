"""Evaluate a small ONNX network with NumPy: the dozen operators that surrogate benchmarks use.

A study asks for a few rows at a time, where the interpreter costs more than the arithmetic. So the first call makes a plan: what does not
depend on the arguments is computed once, columns that are scaled one by one are scaled together, and what is left are calls of NumPy with
everything else bound to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.onnx_file import DTYPES, Node, read


class Network:
    """The graph of the file at `path`; `inputs` and `outputs` are the names of its arguments and results.

    Raises ValueError if the file is no ONNX model, or has an operator that is not supported.
    """

    def __init__(self, path: str | Path) -> None:
        self.inputs, self.outputs, self._tensors, self._nodes = read(path)
        unknown = sorted({node.op for node in self._nodes} - set(OPERATORS))
        if unknown:
            raise ValueError(f"{path}: the operators {', '.join(unknown)} are not supported")
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
        known = _Known(values, fixed, alias, {node.outputs[0]: node for node in self._nodes})
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
            if (bundle := _bundle(node, known)) is not None:
                steps.append((bundle[1], (bundle[0],), output))
                continue
            free = tuple(name for name in inputs if name not in fixed)
            steps.append((_bound(node, [values[name] if name in fixed else None for name in inputs], values[inputs[0]]), free, output))
        return _Plan.of(steps, alias.get(self.outputs[0], self.outputs[0]))


_Step = tuple[Callable[..., Any], tuple[str, ...], str]


class _Plan(NamedTuple):
    steps: list[_Step]  # what to call, with the values of which names, and the name of the result
    output: str

    @classmethod
    def of(cls, steps: list[_Step], output: str) -> _Plan:
        """Of those steps that lead to the output."""
        needed, kept = {output}, []
        for step in reversed(steps):
            if step[2] in needed:
                needed.update(step[1])
                kept.append(step)
        return cls(kept[::-1], output)


class _Known(NamedTuple):
    """What the plan knows of the graph so far."""

    values: Mapping[str, Any]  # for an example
    fixed: set[str]  # the names of those that do not depend on the arguments
    alias: Mapping[str, str]  # what changes nothing -> what it is given
    producers: Mapping[str, Node]

    def name(self, given: str) -> str:
        return self.alias.get(given, given)

    def producer(self, given: str) -> Node | None:
        return self.producers.get(self.name(given))


class _Column(NamedTuple):
    source: str  # the matrix it is taken from
    number: int  # its place there
    operations: tuple[tuple[Callable[..., Any], bool | None], ...]  # and whether the constant is the first operand; None: there is none
    constants: list[np.float32]


def _column(given: str, known: _Known) -> _Column | None:
    """How this column comes about, if by Gather, arithmetic with one constant at a time, and Unsqueeze."""
    node = known.producer(given)
    if node is None or node.op != "Unsqueeze" or known.values[node.inputs[0]].ndim != 1 or known.values[given].shape[1] != 1:
        return None
    operations, constants = [], []
    node = known.producer(node.inputs[0])
    while node is not None and node.op in ELEMENTWISE:
        free = [name for name in node.inputs if name not in known.fixed]
        bound = [known.values[name] for name in node.inputs if name in known.fixed]
        if len(free) != 1 or len(bound) > 1 or any(value.size != 1 or value.dtype != np.float32 for value in bound):
            return None
        operations.append((ELEMENTWISE[node.op], node.inputs[0] in known.fixed if bound else None))
        constants.append(np.float32(np.reshape(bound[0], ()) if bound else 0))
        node = known.producer(free[0])
    if node is None or node.op != "Gather" or node.attributes.get("axis", 0) != 1:
        return None
    source, index = (known.values[name] for name in node.inputs)
    if node.inputs[1] not in known.fixed or np.ndim(index) or source.dtype != np.float32:
        return None
    return _Column(known.name(node.inputs[0]), int(index), tuple(operations[::-1]), constants[::-1])


def _bundle(concat: Node, known: _Known) -> tuple[str, Callable[[Any], Any]] | None:
    """The matrix whose columns `concat` puts side by side, each after arithmetic of its own, and a function that does it for all columns of
    one kind at once; None if `concat` is something else."""
    if concat.op != "Concat" or concat.attributes.get("axis") != 1:
        return None
    columns = [column for name in concat.inputs if (column := _column(name, known)) is not None]
    if len(columns) < len(concat.inputs) or len({column.source for column in columns}) > 1:
        return None
    kinds: dict[Any, list[int]] = {}
    for place, column in enumerate(columns):
        kinds.setdefault(column.operations, []).append(place)
    bundles = []
    for operations, places in kinds.items():
        constants = np.array([columns[place].constants for place in places]).T
        bundles.append((places, [columns[place].number for place in places], list(zip(operations, constants, strict=True))))

    def compute(x: Any) -> Any:
        result = np.empty((len(x), len(columns)), np.float32)
        for places, indices, arithmetic in bundles:
            part = x[:, indices]
            for (operator, is_first), constant in arithmetic:
                part = operator(part) if is_first is None else operator(constant, part) if is_first else operator(part, constant)
            result[:, places] = part
        return result

    return columns[0].source, compute


def _bound(node: Node, known: list[Any], example: np.ndarray) -> Callable[..., Any]:
    """The node as a function of those inputs that are not known (None); `example` is a value of the first."""
    operator, attributes = OPERATORS[node.op], node.attributes
    if node.op == "Gemm" and not attributes.get("transA") and known[0] is None and all(part is not None for part in known[1:]):
        b = np.ascontiguousarray(known[1].T if attributes.get("transB") else known[1]) * np.float32(attributes.get("alpha", 1.0))
        c = known[2] * np.float32(attributes.get("beta", 1.0))
        return lambda x: np.add(product := x @ b, c, out=product)
    if node.op == "BatchNormalization" and all(part is not None for part in known[1:]):
        scale, shift, mean, variance = known[1:]
        factor = scale / np.sqrt(variance + np.float32(attributes.get("epsilon", 1e-5)))
        offset = shift - mean * factor
        return lambda x: np.add(scaled := x * factor, offset, out=scaled)
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
