"""Words of a Word paragraph that are formatted in part, each given one format.

Half a word cannot be found in a translation, so it would have to stay as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from service.files.docx_pieces import DocxPiece
from service.files.xml import local_name, names

MAX_PART = 40
"""Letters of the longest part of a word that is moved, so that any input takes linear time."""
WESTERN = "\u0e00"
"""Scripts before this code point put spaces between words."""
MEANT = names("vertAlign position")
"""What parts a word on purpose: H₂O."""


def whole_words(pieces: Sequence[DocxPiece]) -> list[DocxPiece]:
    """The same pieces, but a word in two texts side by side is in the one that has more of it."""
    whole: list[DocxPiece] = []
    for piece in pieces:
        while piece.kind == "text" and whole and whole[-1].kind == "text":
            before = whole[-1]
            tail, head = _letters(before.text[: -MAX_PART - 2 : -1]), _letters(piece.text)
            if not tail or not head or max(tail, head) > MAX_PART or _is_meant(before, piece):
                break
            if tail >= head:
                whole[-1] = replace(before, text=before.text + piece.text[:head])
                piece = replace(piece, text=piece.text[head:])
                break
            piece = replace(piece, text=before.text[-tail:] + piece.text)
            whole[-1] = replace(before, text=before.text[:-tail])
            if whole[-1].text:
                break
            whole.pop()
        if piece.kind != "text" or piece.text:
            whole.append(piece)
    return whole


def _letters(text: str) -> int:
    """How many letters and digits of a word a text begins with, at most one more than MAX_PART."""
    for at, character in enumerate(text[: MAX_PART + 1]):
        if not character.isalnum() or character >= WESTERN:
            return at
    return min(len(text), MAX_PART + 1)


def _is_meant(*pieces: DocxPiece) -> bool:
    return any(
        local_name(child) in MEANT
        for piece in pieces
        if piece.properties is not None
        for child in piece.properties
    )
