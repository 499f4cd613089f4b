"""Fields of a Word paragraph, each made one piece: a link's text is translated, all else stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from service.files.docx_pieces import DocxPiece, is_link
from service.files.unit import FileError

FIELD_KINDS = ("begin", "code", "separate", "end")
MAX_NESTED = 300
"""Fields and containers in each other, each of which is looked through."""


@dataclass
class _Open:
    """A container (-1) or a field that has begun, and where its result begins."""

    begin: int
    separate: int | None = None


def resolve_fields(pieces: Sequence[DocxPiece]) -> list[DocxPiece]:
    """The same pieces without parts of fields: a field that begins and ends in the paragraph is a
    word or, if it shows nothing, a point; parts of others are points."""
    ends, results = _match(pieces)
    entered = [0, *accumulate(piece.kind in ("enter", "leave") for piece in pieces)]
    resolved: list[DocxPiece] = []
    links: dict[int, DocxPiece] = {}
    at = 0
    while at < len(pieces):
        piece, end, result = pieces[at], ends.get(at), results.get(at)
        if at in links:
            resolved.append(DocxPiece("leave", parts=[piece]))
        elif end is not None and result is not None and _begins_link(pieces[at : result + 1]):
            links[end] = piece
            resolved.append(DocxPiece("enter", parts=pieces[at : result + 1]))
            at = result
        elif end is not None and entered[at] == entered[end]:
            shown = "".join(
                one.text
                for one in pieces[end if result is None else result : end]
                if one.kind == "text"
            )
            kind = "word" if shown.strip() else "point"
            resolved.append(DocxPiece(kind, text=shown, parts=pieces[at : end + 1]))  # type: ignore[arg-type]
            at = end
        else:
            resolved.append(replace(piece, kind="point") if piece.kind in FIELD_KINDS else piece)
        at += 1
    return resolved


def _begins_link(pieces: Sequence[DocxPiece]) -> bool:
    code = "".join(piece.text for piece in pieces if piece.kind == "code")
    return all(piece.kind in FIELD_KINDS for piece in pieces) and is_link(code)


def _match(pieces: Sequence[DocxPiece]) -> tuple[dict[int, int], dict[int, int]]:
    """For each field's begin: where it ends, in the same container, and where its result begins."""
    waiting: list[_Open] = []
    ends: dict[int, int] = {}
    results: dict[int, int] = {}
    for at, piece in enumerate(pieces):
        last = waiting[-1] if waiting else None
        if piece.kind == "enter":
            waiting.append(_Open(-1))
        elif piece.kind == "leave":
            while waiting.pop().begin >= 0:
                pass
        elif piece.kind == "begin":
            waiting.append(_Open(at))
            if len(waiting) > MAX_NESTED:
                raise FileError(f"fields of a paragraph nest deeper than {MAX_NESTED}; part it")
        elif last is None or last.begin < 0:
            continue
        elif piece.kind == "separate" and last.separate is None:
            last.separate = at
        elif piece.kind == "end":
            waiting.pop()
            ends[last.begin] = at
            if last.separate is not None:
                results[last.begin] = last.separate
    return ends, results
