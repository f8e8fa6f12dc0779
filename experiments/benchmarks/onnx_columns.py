"""What a surrogate benchmark's network does column by column, done for many columns at once: scaling, and looking up embeddings.

Each function takes a node that puts columns side by side and gives back a function with the same values, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.onnx_file import Node
from experiments.benchmarks.onnx_operators import ELEMENTWISE


class Known(NamedTuple):
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


def _column(given: str, known: Known) -> _Column | None:
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


def scaled_together(concat: Node, known: Known) -> tuple[str, Callable[[Any], Any]] | None:
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


class _Embedding(NamedTuple):
    source: str  # the matrix of codes
    number: int  # the column of these codes
    table: np.ndarray  # a row for each code


def _embedding(given: str, known: Known) -> _Embedding | None:
    """Whose rows are looked up, if `given` is rows of a stored table at the codes of one column."""
    node = known.producer(given)
    if node is None or node.op != "Gather" or node.attributes.get("axis", 0) != 0 or node.inputs[0] not in known.fixed:
        return None
    codes = known.producer(node.inputs[1])
    if codes is None or codes.op != "Gather" or codes.attributes.get("axis", 0) != 1 or codes.inputs[1] not in known.fixed:
        return None
    table, (source, index) = known.values[node.inputs[0]], (known.values[name] for name in codes.inputs)
    if table.ndim != 2 or np.ndim(source) != 2 or np.ndim(index) or known.name(codes.inputs[0]) in known.fixed:
        return None
    return _Embedding(known.name(codes.inputs[0]), int(index), table)


def looked_up_together(concat: Node, known: Known) -> list[tuple[slice, str, Callable[[Any], Any]]]:
    """The runs of two or more of `concat`'s inputs that are embeddings of one matrix of codes: which inputs, the name of that matrix, and a
    function of it that gives them side by side."""
    if concat.op != "Concat" or concat.attributes.get("axis") != 1:
        return []
    found = [_embedding(name, known) for name in concat.inputs]
    kinds = [None if e is None else (e.source, e.table.dtype) for e in found]
    runs, start = [], 0
    for end in range(1, len(found) + 1):
        if end < len(found) and kinds[end] == kinds[start]:
            continue
        run = [e for e in found[start:end] if e is not None]
        if len(run) > 1:
            runs.append((slice(start, end), run[0].source, _lookup(run)))
        start = end
    return runs


def _lookup(embeddings: Sequence[_Embedding]) -> Callable[[Any], Any]:
    """One lookup in all tables laid end to end."""
    numbers, counts = [e.number for e in embeddings], np.array([len(e.table) for e in embeddings])
    widths = np.array([e.table.shape[1] for e in embeddings])
    flat, ends = np.concatenate([e.table.ravel() for e in embeddings]), np.cumsum(counts * widths)
    starts, of = ends - counts * widths, np.repeat(np.arange(len(widths)), widths)
    within = np.arange(len(of)) - np.repeat(np.cumsum(widths) - widths, widths)

    def compute(x: Any) -> Any:
        codes = x[:, numbers]
        if ((codes < 0) | (codes >= counts)).any():  # counted from the end, or an error that names the code
            return np.concatenate([np.take(e.table, x[:, e.number], axis=0) for e in embeddings], axis=1)
        return flat[(codes * widths + starts)[:, of] + within]

    return compute
