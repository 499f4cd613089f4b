"""Reads protobuf messages without their schema: ONNX graphs and SentencePiece models.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class MessageField(NamedTuple):
    """A field's number, its bytes or its value as a number, and where in the message it ends."""

    number: int
    content: int | memoryview
    end: int


def message_fields(message: memoryview) -> Iterator[MessageField]:
    """Each field of a message, in order. Raises ValueError or IndexError for other bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        match key & 7:
            case 0:
                number, place = _varint(message, place)
                yield MessageField(key >> 3, number, place)
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
        content = message[place : place + length]
        place += length
        yield MessageField(key >> 3, content, place)


def numbers(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field. Raises ValueError or IndexError for other bytes."""
    place = 0
    while place < len(packed):
        number, place = _varint(packed, place)
        yield number


def nested(number: int, message: bytes) -> bytes:
    """A message as the field of another."""
    return _varint_bytes(number << 3 | 2) + _varint_bytes(len(message)) + message


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


def _varint_bytes(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
