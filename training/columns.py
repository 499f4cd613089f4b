"""Columns of many Arrow shards as one: memory-mapped, a row at a time, nothing copied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa


def map_table(path: Path) -> pa.Table:
    """An Arrow IPC file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def ragged(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A list column → its flat values [total] and row offsets [rows + 1], without a copy.

    Raises ValueError for a column of several chunks, which no file of ours has.
    """
    array = _whole(column)
    return array.values.to_numpy(), array.offsets.to_numpy()


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column's one chunk; `combine_chunks` would copy it. A shard without rows has none."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks > 1:
        raise ValueError(f"a column of {column.num_chunks} record batches instead of one")
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


class Sharded:
    """Which shard a row lies in, and where."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def find(self, row: int) -> tuple[int, int]:
        """Shard of a row, and the row's number in it."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return shard, row - int(self._starts[shard])

    def find_all(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shards of many rows [rows], and their numbers in them [rows]."""
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        return shards, rows - self._starts[shards]


class RaggedColumn(Sharded):
    """A list column over many shards: row → its values."""

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        parts = [ragged(column) for column in columns]
        self._values = [values for values, _ in parts]
        self._offsets = [offsets for _, offsets in parts]
        super().__init__([len(offsets) - 1 for offsets in self._offsets])

    def __getitem__(self, row: int) -> np.ndarray:
        shard, local = self.find(row)
        start, end = self._offsets[shard][local : local + 2]
        return self._values[shard][start:end]

    def take(self, rows: np.ndarray, width: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Many rows at once → their values one after another [total / width, width], without the
        second axis for a width of 1, and how many groups of `width` each row has [rows].

        A batch of hundreds of rows costs a few copies instead of a look-up a row.
        """
        shards, local = self.find_all(rows)
        present = np.unique(shards)
        begins = np.empty(len(rows), dtype=np.int64)
        lengths = np.empty(len(rows), dtype=np.int64)
        for shard in present:
            here, offsets = shards == shard, self._offsets[shard]
            begins[here] = offsets[local[here]] // width
            lengths[here] = offsets[local[here] + 1] // width - begins[here]
        # Where in its shard each group lies: after its row's begin and the groups before it.
        before = lengths.cumsum() - lengths
        places = np.arange(lengths.sum()) + np.repeat(begins - before, lengths)
        owners = np.repeat(shards, lengths)
        taken = np.empty((len(places), width), dtype=self._values[0].dtype)
        for shard in present:
            here = owners == shard
            taken[here] = self._values[shard].reshape(-1, width)[places[here]]
        return (taken[:, 0] if width == 1 else taken), lengths

    @property
    def total(self) -> int:
        """Values in all rows."""
        return sum(len(values) for values in self._values)

    @property
    def mean(self) -> float:
        """Mean of all values, read a shard at a time; 0 where there are none."""
        sums = (float(values.sum(dtype=np.float64)) for values in self._values)
        return sum(sums) / max(self.total, 1)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Values in each row, [rows], int32: 4 bytes a row, held once asked for."""
        lengths = np.empty(len(self), dtype=np.int32)
        for start, offsets in zip(self._starts, self._offsets, strict=False):
            np.subtract(
                offsets[1:],
                offsets[:-1],
                out=lengths[start : start + len(offsets) - 1],
                casting="unsafe",
            )
        return lengths


class NumberColumn(Sharded):
    """A column of one number a row over many shards."""

    def __init__(self, columns: Sequence[pa.ChunkedArray]) -> None:
        self.parts = [_whole(column).to_numpy() for column in columns]
        super().__init__([len(part) for part in self.parts])

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows, dtype=np.int64)
        shards, local = self.find_all(wanted)
        found = np.empty(len(wanted), dtype=self.parts[0].dtype)
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self.parts[shard][local[here]]
        return found

    def equals(self, other: NumberColumn) -> bool:
        """Whether both have the same shards with the same numbers."""
        return len(self.parts) == len(other.parts) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.parts, other.parts, strict=True)
        )
