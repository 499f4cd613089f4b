"""Read an ONNX file that may be anybody's: whole, and with no tensor outside of it.

A tensor in ONNX may name another file to be read. ONNX Runtime would follow that name, so it is
looked for in the protobuf itself, without the `onnx` package, which serving does not need.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from export.bundle import BundleError

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
DEEPEST = 100
"""Protobuf's own limit of nesting."""


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX file. Raises BundleError if it is not one or refers to other files."""
    if not path.is_file():
        raise BundleError(f"{path} is missing: export the bundle again")
    content = path.read_bytes()
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


def _refers_outside(message: memoryview, kind: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError("messages are nested too deep")
    for field, content in _fields(message):
        if kind == "tensor" and field in (EXTERNAL_DATA, DATA_LOCATION):
            if content != 0:
                return True
        elif (inner := INSIDE[kind].get(field)) is not None:
            if isinstance(content, int):
                raise ValueError(f"field {field} of a {kind} is a number")
            if _refers_outside(content, inner, depth + 1):
                return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field of a protobuf message: its number, and its bytes or its value as a number."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        match key & 7:
            case 0:
                number, place = _varint(message, place)
                yield key >> 3, number
                continue
            case 1:
                length = 8
            case 2:
                length, place = _varint(message, place)
            case 5:
                length = 4
            case other:
                raise ValueError(f"wire type {other}")
        if place + length > len(message):
            raise ValueError("a field ends after its message")
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
