"""SentencePiece models cut down to the pieces that a text uses.

The embeddings of a small model with a large vocabulary are half of its parameters, and most pieces
are rare. A unigram model works on without them: it cuts their words into smaller pieces.

A run's text is never all that a student will read: translated English seldom names Lisbon, which
Portuguese text does. A unigram model's scores are log-probabilities in the text that it learnt
from, so half of a piece's weight is its share of the run's text, and half its probability there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from typing import Any

import sentencepiece as spm

from training.data.adopted_tokenizer import Piece, has_our_ids
from training.pretrained.files import PretrainedError
from training.pretrained.vocabulary import parse_sentencepiece, with_pieces

LINES_AT_ONCE = 10_000


def trim(model: bytes, lines: Iterable[str], size: int, keep: Iterable[str] = ()) -> bytes:
    """A SentencePiece model, with our ids, of the `size` pieces that these lines and the text that
    the model learnt from need most, in their order.

    Pieces of one character, byte pieces, user-defined ones and those in `keep` always stay, so that
    what the model could write before it still can. Scores stay, and so does the segmentation of
    words whose pieces stay. Raises PretrainedError where these alone are more than `size`, or the
    bytes are no unigram model with our ids.
    """
    proto = parse_sentencepiece(model, "the tokenizer")
    if not has_our_ids(proto) or proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise PretrainedError("only unigram SentencePiece models can be cut down")
    if len(proto.pieces) <= size:
        return model
    needed = set(keep)
    special = sum(piece.type in (Piece.CONTROL, Piece.UNKNOWN) for piece in proto.pieces)
    own = [(i, piece) for i, piece in enumerate(proto.pieces) if i >= special]
    stays = [i for i, piece in own if _stays(piece, needed)]
    room = size - special - len(stays)
    if room < 0:
        raise PretrainedError(
            f"{size} pieces are too few: {special + len(stays)} are needed for single characters, "
            "bytes and added pieces"
        )
    counts = piece_counts(model, lines)
    total = max(counts.total(), 1)
    weight = {i: counts[i] / total + math.exp(min(piece.score, 0.0)) for i, piece in own}
    rest = sorted(weight.keys() - set(stays), key=lambda i: (-weight[i], i))
    chosen = sorted([*stays, *rest[:room]])
    return with_pieces(
        proto,
        [(p.piece, p.score, p.type) for p in (proto.pieces[i] for i in chosen)],
    )


def _stays(piece: Any, needed: set[str]) -> bool:
    return (
        piece.type != Piece.NORMAL
        or len(piece.piece.removeprefix("▁")) <= 1
        or piece.piece in needed
    )


def piece_counts(model: bytes, lines: Iterable[str]) -> Counter[int]:
    """How often each piece comes in the lines, by id."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    counts: Counter[int] = Counter()
    remaining = iter(lines)
    while chunk := list(islice(remaining, LINES_AT_ONCE)):
        counts.update(chain.from_iterable(processor.encode(chunk, out_type=int, num_threads=1)))
    return counts
