"""Token ids of a corpus (and the teacher's labels beside them), memory-mapped, as batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from training.batching import Batch, TargetSide, pad_rows, process_share, target_side, token_batches
from training.distill.labels import LabelStore
from training.distill.objectives.base import PathName
from training.recipe import RecipeError
from training.tokenizer import ragged


class Ragged:
    """A list column over many shards: row → its values, without holding them in memory."""

    def __init__(self, columns: list[pa.ChunkedArray]) -> None:
        parts = [ragged(column) for column in columns]
        self._values = [values for values, _ in parts]
        self._offsets = [offsets for _, offsets in parts]
        self._starts = np.cumsum([0] + [len(offsets) - 1 for offsets in self._offsets])
        self.lengths = np.concatenate([np.diff(offsets) for offsets in self._offsets])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        local = row - int(self._starts[shard])
        start, end = self._offsets[shard][local : local + 2]
        return self._values[shard][start:end]


def map_table(path: Path) -> pa.Table:
    """An Arrow IPC file, memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class TokenData:
    """Training text as token ids, with the teacher's labels where the objective reads them.

    Raises RecipeError where there is no text, or the labels were made for other text.
    """

    def __init__(self, shards: list[Path], labels: LabelStore | None = None) -> None:
        tables = [map_table(path) for path in shards]
        if not tables or not sum(len(table) for table in tables):
            raise RecipeError("no training text: run the `prepare` and `tokenize` stages")
        self.ids = np.concatenate([table["id"].to_numpy() for table in tables])
        self.src = Ragged([table["src"] for table in tables])
        self.trg = Ragged([table["trg"] for table in tables])
        self.labels = labels
        if labels is not None and not np.array_equal(labels.ids, self.ids):
            raise RecipeError("the label store is of other text: run the `label` stage again")

    def __len__(self) -> int:
        return len(self.ids)

    def _rows(self, path: PathName) -> Ragged:
        """Target ids of every row along a path."""
        return self.trg if path == "reference" else self._store().translations(path)

    def _lengths(self, paths: tuple[PathName, ...]) -> np.ndarray:
        return np.maximum.reduce([self._rows(path).lengths for path in paths])

    def _store(self) -> LabelStore:
        if self.labels is None:
            raise RecipeError("this objective reads the teacher's labels: run the `label` stage")
        return self.labels

    def _side(self, rows: np.ndarray, path: PathName, distributions: bool) -> TargetSide:
        source = self._rows(path)
        side = target_side([source[row] for row in rows])
        if not distributions:
            return side
        top_ids, top_logp, tail = self._store().distributions(path, rows)
        return TargetSide(side.trg_in, side.trg_out, top_ids, top_logp, tail)

    def batch(
        self, rows: np.ndarray, paths: tuple[PathName, ...], distributions: tuple[PathName, ...]
    ) -> Batch:
        """The batch of some rows, with the target sides and distributions asked for."""
        sides = {path: self._side(rows, path, path in distributions) for path in paths}
        return Batch(
            ids=torch.from_numpy(self.ids[rows]),
            src=pad_rows([self.src[row] for row in rows]),
            **sides,
        )

    def batch_count(
        self, seed: int, budget: int, paths: tuple[PathName, ...], world_size: int
    ) -> int:
        """Batches a process has in an epoch (a tie of lengths aside, the same in every epoch)."""
        generator = np.random.default_rng([seed, 0])
        batches = token_batches(self.src.lengths, self._lengths(paths), budget, generator)
        return len(batches) // world_size

    def epoch(
        self,
        number: int,
        seed: int,
        budget: int,
        paths: tuple[PathName, ...],
        distributions: tuple[PathName, ...],
        rank: int,
        world_size: int,
        start: int = 0,
    ) -> Iterator[Batch]:
        """This process's batches of one epoch, from its `start`-th on.

        The order depends on (seed, epoch number) alone, so a resumed run sees the same batches.
        """
        generator = np.random.default_rng([seed, number])
        batches = token_batches(self.src.lengths, self._lengths(paths), budget, generator)
        for index, rows in enumerate(process_share(batches, rank, world_size)):
            if index >= start:
                yield self.batch(rows, paths, distributions)
