"""What the service and its readers of files say to each other over pipes.

A message is two lengths (big-endian, 4 and 8 bytes), an object in JSON, and bytes that are a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from struct import Struct
from typing import Any, BinaryIO, TypeVar

LENGTHS = Struct("!IQ")
MAX_JSON = 16 << 20
"""Bytes of JSON in a message; a longer one is a fault of who sent it."""
PART_CHARS = 65_536
PART_UNITS = 256
"""What is sent at a time, so that whoever reads it is never busy for long."""
T = TypeVar("T")
Fields = Mapping[str, Any]


def packed(fields: Fields, data: bytes = b"") -> bytes:
    """What goes before the file's bytes `data` in a message: its lengths and JSON."""
    encoded = json.dumps(fields).encode()
    return LENGTHS.pack(len(encoded), len(data)) + encoded


def unpacked(encoded: bytes) -> Fields:
    """The object of a message. Raises ValueError if it is none."""
    fields = json.loads(encoded)
    if not isinstance(fields, dict):
        raise ValueError("a message is no JSON object")
    return fields


def read_message(stream: BinaryIO) -> tuple[Fields, bytes]:
    """The next message. Raises EOFError if there is none, or not all of it."""
    json_bytes, data_bytes = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    encoded = _exactly(stream, json_bytes)
    return unpacked(encoded), _exactly(stream, data_bytes)


def in_parts(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Items, some at a time: as many as may be in a message."""
    part: list[T] = []
    chars = 0
    for item in items:
        part.append(item)
        chars += size(item)
        if chars >= PART_CHARS or len(part) == PART_UNITS:
            yield part
            part, chars = [], 0
    if part:
        yield part


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
