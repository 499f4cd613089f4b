"""Vocabularies of pretrained models in our ids.

Other toolkits number their pieces in their own ways. Ours are fixed: 0 `<pad>`, 1 `<unk>`, 2 `<s>`,
3 `</s>`, then the original pieces in their order. The SentencePiece model is rewritten that way,
and `original_ids` says which row of the original embeddings each of our ids has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sentencepiece as spm
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from training.data.adopted_tokenizer import SPECIAL, ModelProto, Piece
from training.pretrained.files import PretrainedError

PAD, UNK, BOS, EOS = range(len(SPECIAL))
MAX_PIECES = 1_000_000
NO_TEXT = (Piece.CONTROL, Piece.UNKNOWN)


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model with our ids, and the original ids."""

    model: bytes
    original_ids: NDArray[np.int64]
    """[V], −1 where the original has no such token"""
    original_size: int
    our_ids: NDArray[np.int64] = field(init=False)
    """[original size], −1 for tokens that we leave out"""

    def __post_init__(self) -> None:
        ours = np.full(self.original_size, -1, dtype=np.int64)
        present = np.flatnonzero(self.original_ids >= 0)[::-1]  # of two, the first counts
        ours[self.original_ids[present]] = present
        object.__setattr__(self, "our_ids", ours)

    def __len__(self) -> int:
        return len(self.original_ids)

    def rows(self, table: NDArray[np.float32], missing: float = 0.0) -> NDArray[np.float32]:
        """An original table [original size, …] in our order [V, …]; `missing` where it has none."""
        rows = np.full((len(self), *table.shape[1:]), missing, dtype=np.float32)
        present = self.original_ids >= 0
        rows[present] = table[self.original_ids[present]]
        return rows


def parse_sentencepiece(data: bytes, origin: str) -> Any:
    """A SentencePiece model. Raises PretrainedError where the bytes are none."""
    try:
        model = ModelProto.FromString(data)
        if 0 < len(model.pieces) <= MAX_PIECES:
            spm.SentencePieceProcessor(model_proto=data)
            return model
        reason = f"{len(model.pieces)} pieces"
    except (DecodeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise PretrainedError(f"{origin}: no SentencePiece model ({reason})")


def renumbered(data: bytes, origin: str) -> Vocabulary:
    """A SentencePiece model whose ids are the embedding's rows, as Marian has it, in our ids.

    Pieces that stand for no text are left out. Raises PretrainedError where the bytes are no model,
    or it has no unknown piece or no `</s>`.
    """
    model = parse_sentencepiece(data, origin)
    unknown = [i for i, piece in enumerate(model.pieces) if piece.type == Piece.UNKNOWN]
    ends = [
        i
        for i, piece in enumerate(model.pieces)
        if piece.piece == "</s>" and piece.type == Piece.CONTROL
    ]
    if len(unknown) != 1 or len(ends) != 1:
        raise PretrainedError(f"{origin}: a SentencePiece model without <unk> or </s>")
    names = {name for name, _ in SPECIAL}
    kept = [
        i
        for i, piece in enumerate(model.pieces)
        if piece.type not in NO_TEXT and piece.piece not in names
    ]
    pieces = [(model.pieces[i].piece, model.pieces[i].score, model.pieces[i].type) for i in kept]
    return Vocabulary(
        with_pieces(model, pieces),
        np.array([-1, unknown[0], -1, ends[0], *kept], dtype=np.int64),
        len(model.pieces),
    )


def with_pieces(model: Any, pieces: list[tuple[str, float, int]]) -> bytes:
    """A SentencePiece model with our special pieces and then these (text, score, type) as its
    own; algorithm and normalisation stay."""
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    del rewritten.pieces[:]
    for name, kind in SPECIAL:
        rewritten.pieces.add(piece=name, score=0.0, type=kind)
    for text, score, kind in pieces:
        rewritten.pieces.add(piece=text, score=score, type=kind)
    spec = rewritten.trainer_spec
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = PAD, UNK, BOS, EOS
    spec.pad_piece, spec.unk_piece, spec.bos_piece, spec.eos_piece = (name for name, _ in SPECIAL)
    del spec.control_symbols[:]
    spec.vocab_size = len(rewritten.pieces)
    return bytes(rewritten.SerializeToString())
