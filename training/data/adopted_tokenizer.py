"""A teacher's SentencePiece model as ours: the same pieces and segmentation, other ids.

Everything after the tokenizer (model, export, service) reserves ids 0 to 3 for padding, unknown,
begin and end. Teachers number their pieces in other ways: their vocabulary may put the special
tokens elsewhere, shift every id (fairseq), or add language tokens. So the teacher's model is
rewritten with our four special pieces first and its own pieces behind them in their order; scores,
algorithm and normalisation stay, and with them the segmentation. A teacher is then asked by piece.

A model without byte fallback stays without: a character that it has no piece for is an unknown
piece, for the student as for the teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from training.config.recipe import RecipeError

ModelProto: Any = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
Piece = ModelProto.SentencePiece
SPECIAL = (
    ("<pad>", Piece.CONTROL),
    ("<unk>", Piece.UNKNOWN),
    ("<s>", Piece.CONTROL),
    ("</s>", Piece.CONTROL),
)
"""Our special pieces in the order of their ids, which `training.model` names."""


def adopt(path: Path) -> bytes:
    """The SentencePiece model at `path` with our special ids; one that has them already is kept
    byte for byte.

    Pieces that stand for no text (control pieces, such as language tags) are left out. Raises
    RecipeError where the file is no SentencePiece model or its unknown piece has another role.
    """
    model = _read(path)
    if has_our_ids(model):
        return path.read_bytes()
    names = {name for name, _ in SPECIAL}
    kept = [
        (piece.piece, piece.score, piece.type)
        for piece in model.pieces
        if piece.type not in (Piece.CONTROL, Piece.UNKNOWN, Piece.UNUSED)
        and piece.piece not in names
    ]
    if not kept:
        raise RecipeError(f"{path}: a SentencePiece model without pieces")
    del model.pieces[:]
    for name, kind in SPECIAL:
        model.pieces.add(piece=name, score=0.0, type=kind)
    for name, score, kind in kept:
        model.pieces.add(piece=name, score=score, type=kind)
    spec = model.trainer_spec
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = range(len(SPECIAL))
    spec.pad_piece, spec.unk_piece, spec.bos_piece, spec.eos_piece = (name for name, _ in SPECIAL)
    del spec.control_symbols[:]
    spec.vocab_size = len(model.pieces)
    return bytes(model.SerializeToString())


def has_our_ids(model: Any) -> bool:
    """Whether pieces 0 to 3 are our special ones, and no piece beyond them stands for no text."""
    first = tuple((piece.piece, piece.type) for piece in model.pieces[: len(SPECIAL)])
    return first == SPECIAL and all(
        piece.type not in (Piece.CONTROL, Piece.UNKNOWN) for piece in model.pieces[len(SPECIAL) :]
    )


def segmentation(path: Path) -> tuple[list[tuple[str, float, int]], bytes]:
    """What decides how a model cuts text: pieces with score and type, normalisation.

    Raises RecipeError where the file is no SentencePiece model.
    """
    return segmentation_of(adopt(path))


def segmentation_of(sentencepiece: bytes) -> tuple[list[tuple[str, float, int]], bytes]:
    """What decides how a model, which has our ids already, cuts text."""
    model = ModelProto.FromString(sentencepiece)
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    spec = [model.trainer_spec.model_type, model.trainer_spec.byte_fallback]
    return pieces, model.normalizer_spec.SerializeToString() + repr(spec).encode()


def _read(path: Path) -> Any:
    try:
        return ModelProto.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise RecipeError(f"{path}: no SentencePiece model there ({error})") from None
