"""Read an ONNX file: one Protocol Buffers message, of which we need names, tensors and the list of nodes.

That is shorter than a dependency. The nodes are already in an order in which they can be computed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
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


class Graph(NamedTuple):
    """`tensors` are those that are stored, constants included, by name; `inputs` the names of what must be given."""

    inputs: list[str]
    outputs: list[str]
    tensors: dict[str, np.ndarray]
    nodes: list[Node]


def read(path: str | Path) -> Graph:
    """Raises ValueError if the file is no ONNX model, a damaged one, or has tensors that are not stored as raw data."""
    try:
        fields = list(_fields(_only(_fields(Path(path).read_bytes()), 7)))
        tensors = dict(_tensor(body) for number, body in fields if number == 5)
        nodes = [_node(body) for number, body in fields if number == 1]
        inputs, outputs = ([_text(_only(_fields(body), 1)) for number, body in fields if number == of] for of in (11, 12))
        inputs = [name for name in inputs if name not in tensors]
        tensors |= {node.outputs[0]: node.attributes["value"] for node in nodes if node.op == "Constant"}
    except (IndexError, struct.error, UnicodeDecodeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise ValueError(f"{path} is damaged or no ONNX model ({type(error).__name__}: {error})") from error
    if not outputs:
        raise ValueError(f"{path} has no output")
    return Graph(inputs, outputs, tensors, [node for node in nodes if node.op != "Constant"])


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
            found = value - (value >> 63 << 64)  # negative ones are two's complements of 64 bits
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
