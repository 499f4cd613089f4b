"""What the service and its readers of files say to each other over pipes.

A message is two lengths (big-endian, 4 and 8 bytes), an object in JSON, and bytes that are a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from struct import Struct
from typing import Any, BinaryIO

LENGTHS = Struct("!IQ")
MAX_JSON = 16 << 20
"""Bytes of JSON in a message; a longer one is a fault of who sent it."""

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


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data
