"""Ascending numbers packed by Elias and Fano."""

from __future__ import annotations

import numpy as np
import pytest

from export.runtime.elias_fano import low_bits, pack, packed_size, unpack


def test_by_hand() -> None:
    """2, 3, 5, 7 below 8: one low bit each, 0 1 1 1; above it 1, 1, 2, 3 in the bits 0110 1010."""
    assert low_bits(4, 8) == 1
    assert pack(np.array([2, 3, 5, 7]), 8) == bytes([0b1110, 0b01010110])
    assert unpack(bytes([0b1110, 0b01010110]), 4, 8).tolist() == [2, 3, 5, 7]


@pytest.mark.parametrize(("count", "universe"), [(0, 0), (0, 9), (1, 1), (500, 700), (90, 1 << 40)])
def test_numbers_come_back(count: int, universe: int) -> None:
    chooser = np.random.default_rng(count)
    numbers = np.sort(chooser.integers(0, max(universe, 1), count))
    data = pack(numbers, universe)
    assert len(data) == packed_size(count, universe)
    assert np.array_equal(unpack(data, count, universe), numbers)


@pytest.mark.parametrize("numbers", [[3, 2], [-1, 2], [2, 8]])
def test_numbers_that_do_not_ascend_below_the_limit_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        pack(np.array(numbers), 8)


def test_bytes_that_hold_no_such_numbers_are_refused() -> None:
    data = pack(np.array([2, 3, 5, 7]), 8)
    with pytest.raises(ValueError, match="take"):
        unpack(data + b"1", 4, 8)
    with pytest.raises(ValueError, match="it holds 3 numbers, not 4"):
        unpack(bytes([data[0], 0b01010100]), 4, 8)
    with pytest.raises(ValueError, match="do not ascend"):
        unpack(bytes([0b1101, data[1]]), 4, 8)
    with pytest.raises(ValueError, match="cannot be packed"):
        unpack(b"", -1, 8)
