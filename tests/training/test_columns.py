"""Columns over many shards: a row at a time and many at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from training.data.batching import NumberColumn, RaggedColumn

SHARDS = [[[1, 2], [], [3, 4, 5, 6]], [], [[7, 8]], [[], [9, 10, 11, 12]]]
ROWS = [row for shard in SHARDS for row in shard]


def column() -> RaggedColumn:
    return RaggedColumn(
        [pa.chunked_array([pa.array(shard, pa.list_(pa.int32()))]) for shard in SHARDS]
    )


@pytest.mark.parametrize("rows", [[0], [5, 0, 5, 2], [1, 4], [3, 2, 1, 0], []])
def test_rows_are_taken_in_the_order_asked_for(rows: list[int]) -> None:
    values, lengths = column().take(np.array(rows, dtype=np.int32))
    assert lengths.tolist() == [len(ROWS[row]) for row in rows]
    assert values.tolist() == [value for row in rows for value in ROWS[row]]
    assert values.dtype == np.int32


def test_groups_are_taken_whole() -> None:
    values, lengths = column().take(np.array([5, 0]), width=2)
    assert lengths.tolist() == [2, 1]
    assert values.tolist() == [[9, 10], [11, 12], [1, 2]]


def test_numbers_are_taken_across_shards() -> None:
    parts = [[10, 11], [], [12]]
    numbers = NumberColumn([pa.chunked_array([pa.array(part, pa.int64())]) for part in parts])
    assert numbers[[2, 0, 2]].tolist() == [12, 10, 12]
