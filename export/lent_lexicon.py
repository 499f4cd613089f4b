"""The lexicon of the pretrained model that a student started from, in the student's ids.

It was learnt from the text of that model, far more than a run's: a shortlist of a run's text alone
lacks the translations of rare words. A listed piece that the student's smaller vocabulary no longer
has is listed as the pieces that it is cut into there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sentencepiece as spm
from numpy.typing import NDArray

from training.data.tokenizer import pieces_of
from training.pretrained.base import PretrainedModel
from training.pretrained.vocabulary import parse_sentencepiece

Ids = NDArray[np.int64]
UNKNOWN = 1


@dataclass(frozen=True)
class LentLexicon:
    """Target ids that each source id of the student may become, `lists`, and those that any may,
    `always`."""

    lists: dict[int, Ids]
    always: Ids


def lent_lexicon(
    model: PretrainedModel, tokenizer: bytes, source_tokenizer: bytes | None = None
) -> LentLexicon | None:
    """A pretrained model's lexicon for a student of these SentencePiece models, of the target or of
    both sides and of the source; None where the model has none.

    Raises PretrainedError where the bytes are no SentencePiece model.
    """
    lexicon = model.lexicon
    if lexicon is None:
        return None
    cut = _Cutter(tokenizer)
    words = [cut(piece) for piece in pieces_of(model.tokenizer)]

    def mapped(ids: NDArray[np.int32]) -> Ids:
        return np.array(sorted({ours for theirs in ids for ours in words[theirs]}), dtype=np.int64)

    ours = {piece: index for index, piece in enumerate(pieces_of(source_tokenizer or tokenizer))}
    theirs = pieces_of(model.source_tokenizer or model.tokenizer)
    starts, ends = lexicon.offsets[:-1], lexicon.offsets[1:]
    lists = {
        ours[piece]: mapped(lexicon.targets[start:end])
        for piece, start, end in zip(theirs, starts, ends, strict=True)
        if piece in ours
    }
    return LentLexicon(lists, mapped(lexicon.always))


class _Cutter:
    """Pieces of another vocabulary as ids of this one."""

    def __init__(self, tokenizer: bytes) -> None:
        self._ids = {piece: index for index, piece in enumerate(pieces_of(tokenizer))}
        proto = parse_sentencepiece(tokenizer, "the tokenizer")
        # What is cut is a piece, the sign for a space included, and not a sentence.
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        self._processor = spm.SentencePieceProcessor(model_proto=proto.SerializeToString())

    def __call__(self, piece: str) -> list[int]:
        """Its id, or those of the pieces that it is cut into, without the unknown one."""
        if piece in self._ids:
            return [self._ids[piece]]
        return [i for i in self._processor.encode(piece.replace("▁", " ")) if i != UNKNOWN]
