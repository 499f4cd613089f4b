"""Ascending numbers in a little more than two bits each beside what tells them apart; no torch.

Elias 1974, "Efficient Storage and Retrieval by Content and Address of Static Files"; Fano 1971. Of
N numbers below U the lowest l = ⌊log₂(U / N)⌋ bits are stored as they are. What is above them, h,
never falls from one number to the next: in a row of bits the k-th 1 stands at place h + k.

Little endian: the N · l low bits, filled up to a byte, then N + ⌊(U - 1) / 2^l⌋ + 1 bits, likewise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
MOST = 1 << 62
"""Numbers must be below it."""


def low_bits(count: int, universe: int) -> int:
    """l, for `count` numbers below `universe`."""
    return max(0, (universe // count).bit_length() - 1) if count else 0


def packed_size(count: int, universe: int) -> int:
    """Bytes that `count` numbers below `universe` take."""
    return sum(_sizes(count, universe))


def _sizes(count: int, universe: int) -> tuple[int, int]:
    low = low_bits(count, universe)
    high = count + (max(universe - 1, 0) >> low) + 1
    return (count * low + 7) // 8, (high + 7) // 8


def pack(numbers: Numbers, universe: int) -> bytes:
    """Numbers [N] that do not fall, from 0 to below `universe`. Raises ValueError for others."""
    inside = not len(numbers) or 0 <= numbers[0] <= numbers[-1] < universe <= MOST
    if not inside or (np.diff(numbers) < 0).any():
        raise ValueError(f"numbers do not ascend from 0 to below {universe}")
    low = low_bits(len(numbers), universe)
    places = np.arange(low, dtype=np.int64)
    lowest = ((numbers[:, None] >> places) & 1).astype(np.uint8)
    ones = np.zeros(8 * _sizes(len(numbers), universe)[1], dtype=np.uint8)
    ones[(numbers >> low) + np.arange(len(numbers))] = 1
    return b"".join(np.packbits(bits, bitorder="little").tobytes() for bits in (lowest, ones))


def unpack(data: bytes, count: int, universe: int) -> Numbers:
    """The numbers [count] below `universe` that `pack` wrote. Raises ValueError for other bytes."""
    if not 0 <= count <= MOST or not 0 <= universe <= MOST:
        raise ValueError(f"{count} numbers below {universe} cannot be packed")
    lowest, ones = _sizes(count, universe)
    if len(data) != lowest + ones:
        raise ValueError(f"{count} numbers below {universe} take {lowest + ones} bytes")
    raw = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(np.unpackbits(raw[lowest:], bitorder="little"))
    if len(places) != count:
        raise ValueError(f"it holds {len(places)} numbers, not {count}")
    low = low_bits(count, universe)
    numbers = (places - np.arange(count)) << low
    bits = np.unpackbits(raw[:lowest], count=count * low, bitorder="little").reshape(count, low)
    for place in range(low):
        numbers |= bits[:, place].astype(np.int64) << place
    if count and (numbers[-1] >= universe or (np.diff(numbers) < 0).any()):
        raise ValueError(f"its numbers do not ascend to below {universe}")
    return numbers.astype(np.int64)
