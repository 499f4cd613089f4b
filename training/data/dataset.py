"""Token ids of a corpus (and the teacher's labels beside them), memory-mapped, as batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from training.config.losses import TargetPath
from training.config.recipe import RecipeError
from training.data.batching import (
    Batch,
    NumberColumn,
    RaggedColumn,
    TargetSequence,
    map_table,
    padded,
    process_share,
    target_from_outputs,
    target_sequence,
    token_batches,
)
from training.distill.label_store import LabelStore


class ParallelDataset:
    """Training text as token ids, with the teacher's labels where the objective reads them.

    Without labels only rows with a reference are learnt from. With them every row is whose label
    has no fault, and one without a reference is taught along the teacher's translation on either
    path.

    Raises RecipeError where there is no text, or the labels were made for other text.
    """

    def __init__(
        self,
        shards: list[Path],
        labels: LabelStore | None = None,
        own: LabelStore | None = None,
    ) -> None:
        """`own` holds what the student wrote in the last on-policy round, with the teacher's
        distributions along it."""
        tables = [map_table(path) for path in shards]
        if not tables or not sum(len(table) for table in tables):
            raise RecipeError("no training text: run the `prepare` and `tokenize` stages")
        self.ids = NumberColumn([table["id"] for table in tables])
        self.src = RaggedColumn([table["src"] for table in tables])
        self.trg = RaggedColumn([table["trg"] for table in tables])
        self.labels = labels
        if labels is not None and not labels.ids.equals(self.ids):
            raise RecipeError("the label store is of other text: run the `label` stage again")
        self._own = own
        self._taught = self._learnable()
        self._drawn = np.empty(0, dtype=np.int64)

    def _learnable(self) -> np.ndarray | None:
        """Rows to learn from, None for all."""
        if self.labels is not None:
            faults = self.labels.faults
            if faults is None:
                return None
            # Below 0 a fault was mended.
            rows = np.flatnonzero(np.concatenate(faults.parts) <= 0).astype(np.int32)
            if not len(rows):
                raise RecipeError("every label has a fault: look at labels.filter and the teacher")
            return rows
        if self.trg.lengths.all():
            return None
        rows = np.flatnonzero(self.trg.lengths).astype(np.int32)
        if not len(rows):
            raise RecipeError("no training text has a reference: add some to corpus.train")
        return rows

    def __len__(self) -> int:
        """Rows that are learnt from."""
        return len(self.ids) if self._taught is None else len(self._taught)

    @property
    def rows(self) -> np.ndarray:
        """Numbers of the rows that are learnt from."""
        return np.arange(len(self.ids)) if self._taught is None else self._taught

    def _lengths(self, paths: tuple[TargetPath, ...]) -> np.ndarray:
        # What the student wrote counts for nothing: batches are the same from round to round.
        first, *more = (self._lengths_along(path) for path in paths if path != "student")
        return np.maximum.reduce([first, *more]) if more else first

    def _lengths_along(self, path: TargetPath) -> np.ndarray:
        if path == "drawn":
            return self._store().nbest.translations.lengths[self._drawn]
        if path != "reference":
            return self._store().translations(path).lengths
        lengths = self.trg.lengths
        if self.labels is None or lengths.all():
            return lengths
        return np.where(lengths > 0, lengths, self.labels.hypotheses.lengths)

    @property
    def hypotheses(self) -> RaggedColumn:
        """The teacher's translations. Raises RecipeError where no labels were given."""
        return self._store().hypotheses

    def _store(self) -> LabelStore:
        if self.labels is None:
            raise RecipeError("this objective reads the teacher's labels: run the `label` stage")
        return self.labels

    def _store_of(self, path: TargetPath) -> LabelStore:
        return self._own if path == "student" and self._own is not None else self._store()

    def _words(self, rows: np.ndarray, path: TargetPath) -> TargetSequence:
        """Words of a path; the teacher's translation where a row has no reference."""
        if path == "drawn":
            taken = self._store().nbest.translations.take(self._drawn[rows])
            return target_from_outputs(padded(*taken))
        column = self.trg if path == "reference" else self._store_of(path).translations(path)
        values, lengths = column.take(rows)
        if path != "reference" or lengths.all():
            return target_from_outputs(padded(values, lengths))
        references = np.split(values, lengths.cumsum()[:-1])
        hypotheses = self._store().hypotheses
        return target_sequence(
            [
                known if len(known) else hypotheses[row]
                for row, known in zip(rows, references, strict=True)
            ]
        )

    def _target(self, rows: np.ndarray, path: TargetPath, distributions: bool) -> TargetSequence:
        target = self._words(rows, path)
        if not distributions:
            return target
        top_ids, top_logp, tail = self._store_of(path).distributions(path, rows)
        return TargetSequence(target.trg_in, target.trg_out, top_ids, top_logp, tail)

    def batch(
        self,
        rows: np.ndarray,
        paths: tuple[TargetPath, ...],
        distributions: tuple[TargetPath, ...],
    ) -> Batch:
        """The batch of some rows, with the target sequences and distributions asked for; before
        the first on-policy round without what the student wrote."""
        asked = [path for path in paths if path != "student" or self._own is not None]
        targets = {path: self._target(rows, path, path in distributions) for path in asked}
        return Batch(
            ids=torch.from_numpy(self.ids[rows]),
            src=padded(*self.src.take(rows)),
            **targets,
        )

    def _batches(
        self, epoch: int, seed: int, budget: int, paths: tuple[TargetPath, ...]
    ) -> list[np.ndarray]:
        if "drawn" in paths:
            self._drawn = self._store().nbest.draw(seed, epoch)
        generator = np.random.default_rng([seed, epoch])
        src_lengths, trg_lengths = self.src.lengths, self._lengths(paths)
        if self._taught is None:
            return token_batches(src_lengths, trg_lengths, budget, generator)
        rows = self._taught
        batches = token_batches(src_lengths[rows], trg_lengths[rows], budget, generator)
        return [rows[batch] for batch in batches]

    def batch_count(
        self, seed: int, budget: int, paths: tuple[TargetPath, ...], world_size: int
    ) -> int:
        """Batches a process has in an epoch (a tie of lengths aside, the same in every epoch)."""
        return len(self._batches(0, seed, budget, paths)) // world_size

    def epoch(
        self,
        number: int,
        seed: int,
        budget: int,
        paths: tuple[TargetPath, ...],
        distributions: tuple[TargetPath, ...],
        rank: int,
        world_size: int,
        start: int = 0,
    ) -> Iterator[Batch]:
        """This process's batches of one epoch, from its `start`-th on.

        The order depends on (seed, epoch number) alone, so a resumed run sees the same batches.
        """
        batches = self._batches(number, seed, budget, paths)
        for index, rows in enumerate(process_share(batches, rank, world_size)):
            if index >= start:
                yield self.batch(rows, paths, distributions)


def translated_pairs(
    shards: list[Path], labels: Path | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every source and the teacher's translation of it, without labels its reference, as ids
    without EOS; sources that have none are left out.

    Raises RecipeError where there are to be labels and are none.
    """
    if labels is None:
        data = ParallelDataset(shards)
        for row in data.rows:
            yield data.src[row][:-1], data.trg[row][:-1]
        return
    data = ParallelDataset(shards, LabelStore(labels))
    for row in data.rows:
        yield data.src[row][:-1], data.hypotheses[row][:-1]
