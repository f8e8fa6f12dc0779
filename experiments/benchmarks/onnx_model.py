"""Evaluate a small ONNX network with NumPy: the dozen operators that surrogate benchmarks use.

A study asks for a few rows at a time, where the interpreter costs more than the arithmetic. So the first call makes a plan: what does not
depend on the arguments is computed once, columns that are scaled or looked up one by one are treated together, and what is left are calls
of NumPy with everything else bound to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.onnx_columns import Known, looked_up_together, scaled_together
from experiments.benchmarks.onnx_file import DTYPES, Node, read
from experiments.benchmarks.onnx_operators import OPERATORS, index_of


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
        known = Known(values, fixed, alias, {node.outputs[0]: node for node in self._nodes})
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
            if (bundle := scaled_together(node, known)) is not None:
                steps.append((bundle[1], (bundle[0],), output))
                continue
            for run, source, function in reversed(looked_up_together(node, known)):
                name = f"{output}, from input {run.start} on"
                values[name] = function(values[source])
                steps.append((function, (source,), name))
                inputs[run] = [name]
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
        index = index_of(example.ndim, *known[1:])
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
