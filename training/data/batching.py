"""Batches by target-token budget, of sentences alike in length, from memory-mapped columns.

A column spans many Arrow shards and is read a row or a batch at a time; nothing else is copied.
Shapes: B batch, S source length, T target length, K top-k. Padding is on the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from training.model.transformer import BOS, EOS, PAD


class TargetSequence(NamedTuple):
    """What a batch is taught to write: its references or a teacher's translations of it.

    `trg_in` [B, T] starts with BOS, `trg_out` [B, T] ends with EOS. Where the teacher's
    distributions are known: `top_ids` [N, K], `top_logp` [N, K] (nats) and `tail` [N] (the
    probability mass outside the top k) for the N non-pad positions in row-major order.
    """

    trg_in: Tensor
    trg_out: Tensor
    top_ids: Tensor | None = None
    top_logp: Tensor | None = None
    tail: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """Non-pad target positions [B, T], bool."""
        return self.trg_out != PAD

    @property
    def targets(self) -> Tensor:
        """The words at the non-pad positions, [N]."""
        return self.trg_out[self.mask]


class Batch(NamedTuple):
    """Source ids [B, S] with the target sequences that a loss asks for."""

    ids: Tensor
    src: Tensor
    reference: TargetSequence | None = None
    hypothesis: TargetSequence | None = None
    closest: TargetSequence | None = None
    drawn: TargetSequence | None = None
    student: TargetSequence | None = None

    @property
    def targets(self) -> dict[str, TargetSequence]:
        """The target sequences that the batch has, by their path."""
        named = ("reference", "hypothesis", "closest", "drawn", "student")
        return {name: target for name in named if (target := getattr(self, name)) is not None}

    @property
    def ntokens(self) -> int:
        """Non-pad target tokens of the longest target, the unit of speed and budget."""
        return max(int(target.mask.sum()) for target in self.targets.values())

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        moved: Batch = _move(self, device)
        return moved


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Batch | TargetSequence):
        return type(value)(*(_move(part, device) for part in value))
    return value


def padded(values: np.ndarray, lengths: np.ndarray) -> Tensor:
    """Ids of all rows one after another, and how many each row has [B] → [B, L], PAD on the
    right."""
    rows = np.full((len(lengths), int(lengths.max(initial=0))), PAD, dtype=np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = values
    return torch.from_numpy(rows)


def pad_rows(rows: Sequence[np.ndarray]) -> Tensor:
    """Rows of ids → [B, L], PAD on the right."""
    values = np.concatenate(rows) if len(rows) else np.empty(0, dtype=np.int64)
    return padded(values, np.array([len(row) for row in rows], dtype=np.int64))


def target_sequence(rows: Sequence[np.ndarray]) -> TargetSequence:
    """Rows of target ids, EOS last → inputs and outputs, each [B, T]."""
    return target_from_outputs(pad_rows(rows))


def target_from_outputs(trg_out: Tensor) -> TargetSequence:
    """Outputs [B, T], EOS last, PAD right → the target sequence with its inputs."""
    trg_in = torch.cat([trg_out.new_full((len(trg_out), 1), BOS), trg_out[:, :-1]], dim=1)
    # An input position under padding is padding too: EOS is never fed.
    return TargetSequence(trg_in.masked_fill(trg_out == PAD, PAD), trg_out)


def token_batches(
    src_lengths: np.ndarray, trg_lengths: np.ndarray, budget: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Row numbers of each batch, in shuffled order.

    Rows are sorted by target length, then source length, ties broken at random, and cut where
    rows × longest target (or source, where a source is over twice the budget) exceeds `budget`
    tokens. A single row longer than the budget is a batch of its own.
    """
    ties = generator.random(len(src_lengths))
    order = np.lexsort((ties, src_lengths, trg_lengths)).astype(np.int32)
    del ties
    batches: list[np.ndarray] = []
    start = 0
    widest = 0
    for position, row in enumerate(order):
        widest_with = max(widest, int(trg_lengths[row]), int(src_lengths[row] + 1) // 2)
        if position > start and widest_with * (position - start + 1) > budget:
            batches.append(order[start:position])
            start = position
            widest_with = max(int(trg_lengths[row]), int(src_lengths[row] + 1) // 2)
        widest = widest_with
    if start < len(order):
        batches.append(order[start:])
    return [batches[index] for index in generator.permutation(len(batches))]


def process_share(batches: list[np.ndarray], rank: int, world_size: int) -> Iterator[np.ndarray]:
    """Every `world_size`-th batch; a last incomplete round is left out, so that no process waits
    for a batch that another does not have."""
    rounds = len(batches) // world_size
    for index in range(rounds):
        yield batches[index * world_size + rank]


def clipped(rows: list[list[int]], longest: int) -> list[list[int]]:
    """Source ids cut to what a model can take, EOS kept last."""
    return [row if len(row) <= longest else [*row[: longest - 1], EOS] for row in rows]


# --- columns -----------------------------------------------------------------------------------


def map_table(path: Path) -> pa.Table:
    """An Arrow IPC file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def ragged(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A list column → its flat values [total] and row offsets [rows + 1], without a copy.

    Raises ValueError for a column of several chunks, which no file of ours has.
    """
    array = whole(column)
    return array.values.to_numpy(), array.offsets.to_numpy()


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
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
        self.parts = [whole(column).to_numpy() for column in columns]
        super().__init__([len(part) for part in self.parts])

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows, dtype=np.int64)
        shards, local = self.find_all(wanted)
        values = np.empty(len(wanted), dtype=self.parts[0].dtype)
        for shard in np.unique(shards):
            here = shards == shard
            values[here] = self.parts[shard][local[here]]
        return values

    def equals(self, other: NumberColumn) -> bool:
        """Whether both have the same shards with the same numbers."""
        return len(self.parts) == len(other.parts) and all(
            np.array_equal(ours, theirs)
            for ours, theirs in zip(self.parts, other.parts, strict=True)
        )
