"""The protocol between the service and its reader processes, over pipes.

A message is two lengths (big-endian, 4 and 8 bytes), a JSON object, and the bytes of a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import Any, BinaryIO, TypeVar

from service.documents import FILE_KINDS, FileKind, OpenFile, Unit, open_file
from service.languages import Detection

LENGTHS = Struct("!IQ")
MAX_JSON = 16 << 20
"""Bytes of JSON in a message; a longer message is an error of its sender."""
PART_CHARS = 65_536
PART_UNITS = 256
"""What is sent at a time, so its receiver is never busy for long."""
T = TypeVar("T")
Fields = Mapping[str, Any]


def packed(fields: Fields, data: bytes = b"") -> bytes:
    """The lengths and JSON of a message, which go before the file's bytes `data`."""
    encoded = json.dumps(fields).encode()
    return LENGTHS.pack(len(encoded), len(data)) + encoded


def unpacked(encoded: bytes) -> Fields:
    """The object of a message. Raises ValueError if it is not one."""
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
    """Items in parts that fit into a message."""
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


UNIT_CHARS = 2000
"""Characters of a unit, where the file can be cut: the step of progress, and what a crash costs."""
SAMPLE_CHARS = 4000
"""The part of a file's beginning that its language is detected by."""


class FileTooLongError(Exception):
    """The file has more characters than a job may have."""


@dataclass(frozen=True)
class Reading:
    """What a file is and how much there is to translate. `detected` only where the source language
    was to be detected."""

    kind: FileKind
    source: str
    characters: int
    units: int
    detected: Detection | None = None


def check_length(units: Iterable[Unit], max_chars: int) -> int:
    """Characters to translate. Raises FileTooLongError if they are too many."""
    characters = sum(len(unit.text) for unit in units)
    if characters > max_chars:
        raise FileTooLongError(
            f"the file has {characters} characters, {max_chars} are possible: send it in parts"
        )
    return characters


def open_again(data: bytes, kind: str, source: str, target: str) -> OpenFile:
    """A file that was read before. Raises FileError."""
    return open_file(data, FILE_KINDS[kind], source, target, UNIT_CHARS)


def sample(units: Iterable[Unit]) -> str:
    """The beginning of what is to be translated."""
    text = ""
    for unit in units:
        text += unit.text + "\n"
        if len(text) > SAMPLE_CHARS:
            break
    return text[:SAMPLE_CHARS]


def digest(unit: Unit) -> bytes:
    """The hash by which a unit's translation is found again."""
    return blake2b(f"{unit.format}\0{unit.text}".encode(), digest_size=16).digest()
