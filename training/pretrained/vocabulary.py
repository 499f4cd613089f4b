"""Vocabularies of pretrained models in our ids.

Other toolkits number their pieces in their own ways. Ours are fixed: 0 `<pad>`, 1 `<unk>`, 2 `<s>`,
3 `</s>`, then the original pieces in their order. The SentencePiece model is rewritten that way,
and `original_ids` says which row of the original embeddings each of our ids has.

Marian reads ids from the SentencePiece model (`renumbered`), or, as OPUS-MT's models do, from a
list of the pieces of both sides (`numbered_by_list`); then each side has a SentencePiece model of
its own, and both are given all pieces in one order. Pieces of the other side alone are of type
UNUSED there: decoded, never encoded.

Shapes: V our vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sentencepiece as spm
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from training.data.adopted_tokenizer import SPECIAL, ModelProto, Piece
from training.pretrained.files import PretrainedError, shown

PAD, UNK, BOS, EOS = range(len(SPECIAL))
MAX_PIECES = 1_000_000
NO_TEXT = (Piece.CONTROL, Piece.UNKNOWN)
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that no SentencePiece model can hold."""
ABSENT_BIAS = -1000.0
"""Output bias of tokens that the original model does not have, such as `<pad>` and `<s>`: so low
that they take no share of the probabilities."""


@dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model with our ids, and the original ids."""

    model: bytes
    original_ids: NDArray[np.int64]
    """[V], the row of the original embedding, −1 for a row of zeros"""
    absent: NDArray[np.bool_]
    """[V], tokens that the original does not have, whatever their row: it never writes them"""
    original_size: int
    our_ids: NDArray[np.int64] = field(init=False)
    """[original size], −1 for tokens that we leave out"""

    def __post_init__(self) -> None:
        ours = np.full(self.original_size, -1, dtype=np.int64)
        present = np.flatnonzero(~self.absent)
        ours[self.original_ids[present]] = present
        object.__setattr__(self, "our_ids", ours)

    def __len__(self) -> int:
        return len(self.original_ids)

    def embedding(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """An original table [original size, D] in our order [V, D]."""
        rows = np.zeros((len(self), table.shape[1]), dtype=np.float32)
        present = self.original_ids >= 0
        rows[present] = table[self.original_ids[present]]
        return rows

    def output_bias(self, bias: NDArray[np.float32]) -> NDArray[np.float32]:
        """An original bias [original size] in our order [V]."""
        rows = np.full(len(self), ABSENT_BIAS, dtype=np.float32)
        rows[~self.absent] = bias[self.original_ids[~self.absent]]
        return rows


def parse_sentencepiece(data: bytes, origin: str) -> Any:
    """A SentencePiece model. Raises PretrainedError where the bytes are none."""
    try:
        model = ModelProto.FromString(data)
        if not 0 < len(model.pieces) <= MAX_PIECES:
            reason = f"{len(model.pieces)} pieces"
        elif not all(isinstance(piece.piece, str) for piece in model.pieces):
            reason = "a piece is no text"  # protobuf gives bytes that are no UTF-8 as they are
        else:
            spm.SentencePieceProcessor(model_proto=data)
            return model
    except (DecodeError, RuntimeError) as error:
        reason = shown(str(error))
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
    original_ids = np.array([-1, unknown[0], -1, ends[0], *kept], dtype=np.int64)
    return Vocabulary(with_pieces(model, pieces), original_ids, original_ids < 0, len(model.pieces))


def with_pieces(model: Any, pieces: list[tuple[str, float, int]]) -> bytes:
    """A SentencePiece model with our special pieces and then these (text, score, type) as its own;
    algorithm and normalisation stay.

    Raises PretrainedError where they make no model.
    """
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
    data = bytes(rewritten.SerializeToString())
    try:
        spm.SentencePieceProcessor(model_proto=data)
    except RuntimeError as error:
        raise PretrainedError(f"its pieces make no SentencePiece model ({error})") from None
    return data


# --- ids from a list ---------------------------------------------------------------------------


def language_code(piece: str) -> bool:
    """Whether a piece names a target language, such as `>>deu<<`."""
    return piece.startswith(">>") and piece.endswith("<<") and len(piece) > 4


def check_prefix(prefix: Sequence[str], source: Vocabulary, origin: str) -> None:
    """Raise PretrainedError where a piece of the prefix is not in the source's vocabulary, or a
    model that translates into several languages is not told which."""
    pieces = [piece.piece for piece in ModelProto.FromString(source.model).pieces]
    codes = [piece for piece in pieces if language_code(piece)]
    choice = f"choose from {', '.join(codes[:20])}{', …' if len(codes) > 20 else ''}"
    for piece in prefix:
        if piece not in pieces[len(SPECIAL) :]:
            raise PretrainedError(
                f"{origin}: no piece {piece!r} for the prefix; "
                + (choice if codes else "it has no language codes, leave the prefix out")
            )
    if len(codes) > 1 and not prefix:
        raise PretrainedError(
            f"{origin}: it translates into {len(codes)} languages; give the source's prefix, "
            + choice
        )


def numbered_by_list(
    models: Sequence[tuple[bytes, str]], ids: Mapping[str, int], origin: str, original_size: int
) -> list[Vocabulary]:
    """SentencePiece models (bytes, origin) whose pieces' ids are in a list, in our ids: one
    vocabulary each, all of the same pieces in the same order.

    A piece that a model has and the list lacks stands for `<unk>` there, and does so here, at the
    end of the vocabulary. Raises PretrainedError where the list does not fit.
    """
    _check_ids(ids, origin, original_size)
    parsed = [parse_sentencepiece(data, name) for data, name in models]
    special = {name for name, _ in SPECIAL}
    listed = [name for name in sorted(ids, key=ids.__getitem__) if name not in special]
    known = special.union(listed)
    unlisted = dict.fromkeys(
        piece.piece
        for model in parsed
        for piece in model.pieces
        if piece.type not in (*NO_TEXT, Piece.UNUSED) and piece.piece not in known
    )
    original_ids = np.array(
        [
            *(-1, ids["<unk>"], -1, ids["</s>"]),
            *(ids[name] for name in listed),
            *(ids["<unk>"] for _ in unlisted),
        ],
        dtype=np.int64,
    )
    absent = original_ids < 0
    absent[len(SPECIAL) + len(listed) :] = True
    return [
        Vocabulary(_side(model, [*listed, *unlisted]), original_ids, absent, original_size)
        for model in parsed
    ]


def _check_ids(ids: Mapping[str, int], origin: str, original_size: int) -> None:
    values = sorted(ids.values())
    for name in ("<unk>", "</s>"):
        if name not in ids:
            raise PretrainedError(f"{origin}: {name} is missing")
    if any(not name or UNWRITABLE.search(name) for name in ids):
        raise PretrainedError(f"{origin}: a piece that is no text")
    if len(set(values)) != len(values):
        raise PretrainedError(f"{origin}: two pieces have the same id")
    if values[0] < 0 or values[-1] >= original_size:
        raise PretrainedError(
            f"{origin}: ids from {values[0]} to {values[-1]}, the model has {original_size} words"
        )


def _side(model: Any, names: list[str]) -> bytes:
    """A side's SentencePiece model with these pieces; those that are not its own are UNUSED.

    Their scores are the lowest, so that a BPE model merges what they are last.
    """
    own = {
        piece.piece: (piece.score, piece.type)
        for piece in model.pieces
        if piece.type not in NO_TEXT and not language_code(piece.piece)
    }
    lowest = min((score for score, _ in own.values()), default=0.0) - 1
    return with_pieces(model, [(name, *own.get(name, (lowest, Piece.UNUSED))) for name in names])
