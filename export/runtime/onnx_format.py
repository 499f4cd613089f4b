"""ONNX files from anybody, read without the `onnx` package and without ONNX Runtime.

A tensor may name another file, which ONNX Runtime would read, so `read_onnx` looks for such names
in the protobuf itself. `parse_onnx` gives what a file holds: its weights as arrays that lie in the
bytes of the file, and its nodes. Every size is held against those bytes before it is used, and
nothing is run. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.bundle import read_small
from export.runtime.manifest import PACKED, BundleError
from export.runtime.protobuf import message_fields, numbers

GREEDY_FILE = "greedy.onnx"
GZIP = 16 + zlib.MAX_WBITS
MOST_TIMES = 64
"""A packed file may unpack to so many times its size: weights to 1.3 times, a tiny model's nodes to
ten."""
FORMAT, FORMAT_VERSION = "quickstudy-onnx", "1"
"""What the metadata of our graphs say."""
GREEDY_INPUTS = {
    "src": "tensor(int64)",
    "limit": "tensor(int64)",
    "return_scores": "tensor(bool)",
}
CANDIDATES = {"candidates": "tensor(int64)", "candidate_mask": "tensor(float)"}
"""What the greedy graph of a model with a shortlist takes besides."""

MAX_BYTES = (2 << 30) - 1
"""Protobuf's own limit."""
DEEPEST = 100
"""Protobuf's own limit of nesting."""
MAX_DIMENSIONS = 8
MAX_TEXT_BYTES = 4096
"""Of a name or of metadata."""
MAX_FIELDS = 1 << 19
"""Of a file that is parsed: a model of ten layers has about 20,000."""


# --- weights in other files ----------------------------------------------------------------------


INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Which fields of a message hold messages that may hold tensors."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file, or of the one in `<path>.gz` where the folder has that instead.

    Raises BundleError if it is not one or refers to other files.
    """
    packed = path.with_name(path.name + PACKED)
    if path.is_file():
        content = read_small(path, MAX_BYTES)
    elif packed.is_file():
        path, content = packed, _unpacked(packed)
    else:
        raise BundleError(f"{path} is missing: export the bundle again")
    try:
        outside = _refers_outside(memoryview(content), "model", 0)
    except (IndexError, ValueError) as error:
        raise BundleError(f"{path} is not an ONNX model: export the bundle again") from error
    if outside:
        raise BundleError(
            f"{path} keeps weights in other files, which a bundle's model must not: "
            "export the bundle again"
        )
    return content


def _unpacked(path: Path) -> bytes:
    """What a gzip file holds. Raises BundleError for another file, or one that grows too large."""
    data = read_small(path, MAX_BYTES)
    limit = min(MAX_BYTES, MOST_TIMES * len(data) + 1)  # 0 would be no limit
    unpacker = zlib.decompressobj(GZIP)
    try:
        content = unpacker.decompress(data, limit)
    except zlib.error as error:
        raise BundleError(f"{path} is damaged ({error}): export the bundle again") from None
    if not unpacker.eof or unpacker.unused_data:
        raise BundleError(
            f"{path} ends too soon, or unpacks to more than {MOST_TIMES} times its size: export "
            "the bundle again"
        )
    return content


def _refers_outside(message: memoryview, kind: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError("messages are nested too deep")
    for number, content, _ in message_fields(message):
        if kind == "tensor" and number in (EXTERNAL_DATA, DATA_LOCATION):
            if content != 0:
                return True
        elif (inner := INSIDE[kind].get(number)) is not None:
            if isinstance(content, int):
                raise ValueError(f"field {number} of a {kind} is a number")
            if _refers_outside(content, inner, depth + 1):
                return True
    return False


# --- what a file holds ---------------------------------------------------------------------------


DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<u1"),
    3: np.dtype("<i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    11: np.dtype("<f8"),
}
"""Of TensorProto.DataType, those that our graphs have."""


@dataclass(frozen=True)
class Node:
    """An operation: the names of its inputs ("" for one left out) and outputs, and the floats among
    its attributes."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxModel:
    """A file's metadata, names of inputs, weights and nodes, those of inner graphs among them."""

    metadata: dict[str, str]
    inputs: list[str]
    weights: dict[str, NDArray[Any]]
    nodes: list[Node]


def parse_onnx(content: bytes) -> OnnxModel:
    """What the bytes of an ONNX file hold. The arrays are views of them.

    Raises ValueError where sizes do not fit, a name comes twice, there is too much to keep, or a
    weight is of a kind that our graphs do not have.
    """
    try:
        return _Parser().model(memoryview(content))
    except IndexError as error:
        raise ValueError("a number is cut off") from error


class _Parser:
    """Reads one file; what it keeps is bounded by the number of fields that it reads."""

    def __init__(self) -> None:
        self._fields = 0
        self._model = OnnxModel({}, [], {}, [])

    def model(self, message: memoryview) -> OnnxModel:
        for number, content in self._fields_of(message):
            if number == 7:
                self._graph(_bytes(content), 0)
            elif number == 14:
                self._metadata(_bytes(content))
        return self._model

    def _fields_of(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        for number, content, _ in message_fields(message):
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            yield number, content

    def _metadata(self, message: memoryview) -> None:
        texts = {number: _text(content) for number, content in self._fields_of(message)}
        _add(self._model.metadata, texts.get(1, ""), texts.get(2, ""))

    def _graph(self, message: memoryview, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError("graphs are nested too deep")
        for number, content in self._fields_of(message):
            if number == 1:
                self._node(_bytes(content), depth)
            elif number == 5:
                self._tensor(_bytes(content))
            elif number == 11 and depth == 0:
                self._input(_bytes(content))

    def _input(self, message: memoryview) -> None:
        for number, content in self._fields_of(message):
            if number == 1:
                self._model.inputs.append(_text(content))

    def _node(self, message: memoryview, depth: int) -> None:
        op, inputs, outputs = "", [], []
        attributes: dict[str, float] = {}
        for number, content in self._fields_of(message):
            if number == 1:
                inputs.append(_text(content))
            elif number == 2:
                outputs.append(_text(content))
            elif number == 4:
                op = _text(content)
            elif number == 5:
                self._attribute(_bytes(content), attributes, depth)
        self._model.nodes.append(Node(op, inputs, outputs, attributes))

    def _attribute(self, message: memoryview, attributes: dict[str, float], depth: int) -> None:
        """Keep an attribute that is a float, and read one that is a graph."""
        name, value = "", None
        for number, content in self._fields_of(message):
            if number == 1:
                name = _text(content)
            elif number == 2:
                value = _float(content)
            elif number == 6:
                self._graph(_bytes(content), depth + 1)
        if value is not None:
            _add(attributes, name, value)

    def _tensor(self, message: memoryview) -> None:
        """Keep a weight. Its bytes must be as many as its shape asks for."""
        name, kind, raw = "", 0, None
        dims: list[int] = []
        for number, content in self._fields_of(message):
            if number == 1:
                dims += [content] if isinstance(content, int) else islice(numbers(content), 9)
            elif number == 2:
                kind = _number(content)
            elif number == 8:
                name = _text(content)
            elif number == 9:
                raw = _bytes(content)
        if (dtype := DTYPES.get(kind)) is None or raw is None or len(dims) > MAX_DIMENSIONS:
            raise ValueError(f"weight {name[:100]!r} is of a kind that is not read")
        if math.prod(dims) * dtype.itemsize != len(raw):
            raise ValueError(f"weight {name[:100]!r} has {len(raw)} bytes, not those of its shape")
        _add(self._model.weights, name, np.frombuffer(raw, dtype).reshape(dims))


def _bytes(content: int | memoryview) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a number stands where bytes should")
    return content


def _number(content: int | memoryview) -> int:
    if not isinstance(content, int):
        raise ValueError("bytes stand where a number should")
    return content


def _float(content: int | memoryview) -> float:
    if len(_bytes(content)) != 4:
        raise ValueError("a number has not four bytes")
    number: float = struct.unpack("<f", _bytes(content))[0]
    return number


def _text(content: int | memoryview) -> str:
    text = bytes(_bytes(content)[: MAX_TEXT_BYTES + 1])
    if len(text) > MAX_TEXT_BYTES:
        raise ValueError(f"a text has over {MAX_TEXT_BYTES} bytes")
    return text.decode("utf-8")


def _add(known: dict[str, Any], name: str, value: Any) -> None:
    if name in known:
        raise ValueError(f"the name {name[:100]!r} comes twice")
    known[name] = value
