"""Characters that a SentencePiece model lacks, and models that have them.

Vocabularies without byte fallback turn what they lack into `<unk>`, and the words beside it are
translated wrongly or vanish. `missing_characters` lists what a model lacks of `COMMON`; a student's
vocabulary can have it added by `extend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sentencepiece as spm

from training.data.adopted_tokenizer import Piece
from training.pretrained.files import PretrainedError, shown
from training.pretrained.vocabulary import NO_TEXT, UNWRITABLE, parse_sentencepiece

UNKNOWN_PENALTY = 10.0
"""By how much an unknown piece scores below the lowest of a unigram model (`kUnkPenalty` in
src/unigram_model.cc of SentencePiece)."""


def _range(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))


COMMON = "".join(
    (
        _range(0x21, 0x7E),  # ASCII: letters, digits, punctuation
        _range(0xA1, 0xAC) + _range(0xAE, 0xFF),  # Latin-1, but for the soft hyphen
        _range(0x100, 0x17F),  # Latin Extended-A
        "ȘșȚț",
        "‘’‚‛“”„‟‹›′″",  # quotation marks and primes
        "‐‑‒–—―−",  # hyphens, dashes, minus
        "…•‣·†‡‰§¶",
        "€£¥¢₹₽₺₩₪₫₴₦₱₿",  # currencies
        "←↑→↓↔↕⇐⇒⇔",
        "×÷±≈≠≤≥∞√∑∂∆π°µ½¼¾²³¹",
        "©®™№ªº",
        "✓✔✗✘★☆♥♡♪■□▪●○▶◀",
        "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗🙂🤗🤩🤔😐🙄😏😮😴😌😜😒😔😕🙃😲🙁😞😢😭😩😱😳😡😠🤬😷🤒😇🥳",
        "👋👌👍👎👏🙌🙏🤝💪👀❤🧡💛💚💙💜🖤💔💕💯✨🔥🎉🎂🎁🏆⚽☀🌍🌈⭐✅❌⚠❗❓➡⬅⬆⬇🚀📌📍📅📞📧💡🔗🔒",
        "\ufe0f\u200d",  # what emoji are put together with
    )
)
"""Characters of everyday text in languages with Latin letters, each at most twice."""


def missing_characters(tokenizer: bytes) -> str:
    """The characters of `COMMON` that a SentencePiece model, after its own normalisation, gives as
    an unknown piece; none where it falls back to bytes.

    Raises PretrainedError where the bytes are no model.
    """
    return _given_as(tokenizer, lambda processor, id_: id_ == processor.unk_id())


def written_in_bytes(tokenizer: bytes) -> str:
    """The characters of `COMMON` that a SentencePiece model has no piece for and gives as bytes:
    what its text had seldom or never.

    Raises PretrainedError where the bytes are no model.
    """
    return _given_as(tokenizer, lambda processor, id_: processor.is_byte(id_))


def _given_as(tokenizer: bytes, is_such: Callable[[spm.SentencePieceProcessor, int], bool]) -> str:
    """The characters of `COMMON` among whose ids is such a one."""
    parse_sentencepiece(tokenizer, "the tokenizer")
    processor = spm.SentencePieceProcessor(model_proto=tokenizer)
    characters = list(dict.fromkeys(COMMON))
    return "".join(
        character
        for character, ids in zip(characters, processor.encode(characters), strict=True)
        if any(is_such(processor, id_) for id_ in ids)
    )


def extend(model: bytes, pieces: Iterable[str], byte_fallback: bool) -> bytes:
    """A SentencePiece model with these pieces behind its own, and, if asked for, byte fallback.

    Ids stay, and so does the segmentation of text that the model had no unknown piece for. So a
    piece that the model can write already is left out, and so is a longer text without a character
    that no piece of the model holds. A single character becomes a normal piece that costs what an
    unknown one did; a longer text becomes a user-defined piece, which is never cut. Raises
    PretrainedError where the bytes are no model or a piece is no text.
    """
    proto = parse_sentencepiece(model, "the tokenizer")
    processor = spm.SentencePieceProcessor(model_proto=model)
    present = {piece.piece for piece in proto.pieces}
    held = set("".join(piece.piece for piece in proto.pieces if piece.type not in NO_TEXT))
    score = min((p.score for p in proto.pieces if p.type == Piece.NORMAL), default=0.0)
    for text in pieces:
        if not text or text != "".join(text.split()) or UNWRITABLE.search(text):
            raise PretrainedError(f"{shown(text)} cannot be a piece: it is empty or has spaces")
        piece = _normalized(processor, text)
        single = len(piece) == 1
        unknown = processor.unk_id() in processor.encode(text)
        if piece in present or not unknown or not (single or set(piece) - held):
            continue
        proto.pieces.add(
            piece=piece,
            score=score - UNKNOWN_PENALTY,
            type=Piece.NORMAL if single else Piece.USER_DEFINED,
        )
        present.add(piece)
    if byte_fallback:
        _add_bytes(proto, present)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    extended = bytes(proto.SerializeToString())
    parse_sentencepiece(extended, "the extended tokenizer")
    return extended


def _normalized(processor: Any, text: str) -> str:
    """A text as the model's pieces have it."""
    return str(processor.normalize(text)).removeprefix("▁").removesuffix("▁")


def _add_bytes(proto: Any, present: set[str]) -> None:
    """Add what is missing of the 256 byte pieces, and let the model fall back to them."""
    if proto.trainer_spec.byte_fallback:
        return
    for value in range(256):
        name = f"<0x{value:02X}>"
        if name in present:
            raise PretrainedError(f"the tokenizer has a piece {name} that is no byte")
        proto.pieces.add(piece=name, score=0.0, type=Piece.BYTE)
    proto.trainer_spec.byte_fallback = True
