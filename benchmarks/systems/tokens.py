"""Text ↔ token ids for systems that decode ids; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece as spm

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

    def output_limit(self, source_length: int) -> int:
        """Most target tokens, EOS counted, for a source of so many, EOS counted; that of
        `training.decoding`."""
        return min(2 * source_length + 10, self._max_length - 1)


def _told(row: Sequence[int]) -> list[int]:
    ids = [int(token) for token in row]
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [token for token in ids[:end] if token > EOS]
