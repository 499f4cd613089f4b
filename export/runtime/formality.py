"""Tags that ask a model for a form of address: pieces before its sources.

A tag is a user-defined piece of the source's tokenizer, which would also cut a text at it. Texts
are cut by a copy of the tokenizer that holds the tags as unused pieces: ids stay, and a text that
contains a tag is read as the characters that it consists of.
"""

from __future__ import annotations

import sentencepiece as spm

from export.runtime.bundle import Bundle
from export.runtime.manifest import BundleError, Formality
from export.runtime.protobuf import message_fields, nested

SPACE = "▁"
PIECES_FIELD, TEXT_FIELD = 1, 1
"""`ModelProto.pieces` and `SentencePiece.piece` in sentencepiece_model.proto."""
AS_UNUSED = bytes((3 << 3, 5))
"""`SentencePiece.type`, UNUSED; of a field that comes twice, the second counts."""


def load_tags(bundle: Bundle, tokenizer: spm.SentencePieceProcessor) -> dict[Formality, list[str]]:
    """The pieces before a source for each form of address; none for a bundle that has one form.

    They are those of the tag as a text, so that tag and text are cut as in training. Raises
    BundleError where the source's tokenizer does not have a tag as one piece.
    """
    if bundle.manifest.formality is None:
        return {}
    tags = bundle.manifest.formality.by_form
    for tag in tags.values():
        if not is_one_piece(tokenizer, tag):
            raise BundleError(
                f"{bundle.source_tokenizer_path} does not cut {tag!r} to one piece, which the "
                "manifest's formality names: train with the tag in the recipe's tokenizer.add, or "
                "export the bundle without corpus.formality"
            )
    return {form: tokenizer.encode(tag, out_type=str) for form, tag in tags.items()}


def is_one_piece(tokenizer: spm.SentencePieceProcessor, tag: str) -> bool:
    """Whether a tokenizer has a tag as one piece, after a space at most."""
    *space, last = tokenizer.encode(tag, out_type=str) or [""]
    known = not tokenizer.is_unknown(tokenizer.piece_to_id(tag))
    return last == tag and known and set(space) <= {SPACE}


def text_tokenizer(
    bundle: Bundle, tokenizer: spm.SentencePieceProcessor
) -> spm.SentencePieceProcessor:
    """The source's tokenizer for texts, which never cuts one to a tag; `tokenizer` itself for a
    bundle without tags."""
    if bundle.manifest.formality is None:
        return tokenizer
    tags = {tag.encode() for tag in bundle.manifest.formality.by_form.values()}
    model = without_pieces(tokenizer.serialized_model_proto(), tags)
    return spm.SentencePieceProcessor(model_proto=model)


def without_pieces(model: bytes, unused: set[bytes]) -> bytes:
    """A SentencePiece model whose pieces of these texts (UTF-8) are unused; ids stay."""
    whole = memoryview(model)
    parts: list[memoryview] = []
    start = 0
    for number, content, end in message_fields(whole):
        part = whole[start:end]
        if number == PIECES_FIELD and not isinstance(content, int) and _text_of(content) in unused:
            part = memoryview(nested(PIECES_FIELD, bytes(content) + AS_UNUSED))
        parts.append(part)
        start = end
    return b"".join(parts)


def _text_of(piece: memoryview) -> bytes:
    texts = (content for number, content, _ in message_fields(piece) if number == TEXT_FIELD)
    return b"".join(text for text in texts if isinstance(text, memoryview))
