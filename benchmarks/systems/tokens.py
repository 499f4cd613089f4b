"""Text ↔ token ids for systems that decode ids; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece as spm

from benchmarks.systems.base import PLAIN_BATCH, WHOLE

Decode = Callable[[list[list[int]]], list[list[int]]]
"""Ids of a batch of sources, EOS last → those of their translations."""
PAD, UNK, BOS, EOS = 0, 1, 2, 3
NEVER = (PAD, UNK, BOS)
"""What no translation holds; `training.decoding` rules the same out."""


class Tokens:
    """The tokenizer of a model of `max_length` positions."""

    def __init__(self, path: Path, max_length: int) -> None:
        self._processor = spm.SentencePieceProcessor(model_file=str(path))
        self._max_length = max_length

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Ids of each sentence, cut to what the model takes, EOS last."""
        rows: list[list[int]] = self._processor.encode(list(sentences), out_type=int)
        return [[*row[: self._max_length - 2], EOS] for row in rows]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of ids, up to its EOS; other special ids are left out."""
        return list(self._processor.decode([_told(row) for row in rows]))

    def translate(self, decode: Decode, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Texts of sentences by `decode`, `batch_size` sentences a call; WHOLE: sorted by length,
        PLAIN_BATCH a call."""
        rows = self.encode(sentences)
        found: list[list[int]] = [[]] * len(rows)
        for group in groups([len(row) for row in rows], batch_size):
            decoded = decode([rows[index] for index in group])
            for index, ids in zip(group, decoded, strict=True):
                found[index] = ids
        return self.decode(found)

    def output_limit(self, source_length: int) -> int:
        """Most target tokens, EOS counted, for a source of so many, EOS counted; that of
        `training.decoding`."""
        return min(2 * source_length + 10, self._max_length - 1)


def groups(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of sequences of these lengths, a batch each."""
    order = list(range(len(lengths)))
    if batch_size == WHOLE:
        order.sort(key=lengths.__getitem__)
    size = batch_size or PLAIN_BATCH
    return [order[first : first + size] for first in range(0, len(order), size)]


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of ids as long as the longest, PAD right."""
    longest = max(map(len, rows))
    return [[*row, *[PAD] * (longest - len(row))] for row in rows]


def _told(row: Sequence[int]) -> list[int]:
    ids = [int(token) for token in row]
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [token for token in ids[:end] if token > EOS]
