"""A Word paragraph as pieces: texts, containers and everything else, in order.

A field becomes one piece (the text of a link is translated, all else stays). See ECMA-376, part 1,
section 17.16 for fields.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from lxml import etree

from service.documents.base import FileError
from service.documents.xml import Element, local_name, names, text_of

NO_BREAK_HYPHEN = "\u2011"
CONTAINERS = names("hyperlink ins moveTo sdt customXml dir bdo sdtContent")
"""Elements of a paragraph whose runs are part of the sentence."""
PROPERTIES = names("pPr rPr sdtPr sdtEndPr smartTagPr customXmlPr")
TRANSPARENT = names("smartTag")
"""Containers that a reader does not see."""
DROPPED = names("proofErr lastRenderedPageBreak softHyphen")
"""What is about the words that were there."""
LINES = names("tab br cr ptab")
FIELD_PARTS = {"begin": "begin", "separate": "separate", "end": "end"}

PAGE_NUMBERS = (["PAGE"], ["NUMPAGES"], ["SECTIONPAGES"], ["SECTION"])
PieceKind = Literal[
    "text", "line", "word", "point", "enter", "leave", "begin", "code", "separate", "end"
]
"""`enter`, `leave`: ends of a container. `begin`, `code`, `separate`, `end`: parts of a field."""


@dataclass(frozen=True, slots=True)
class DocxPiece:
    """A part of a paragraph: an element of a run with these properties, or one beside the runs, or
    all `parts` of a field.

    A link that is a field enters with `parts` and leaves with them.
    """

    kind: PieceKind
    element: Element = None
    text: str = ""
    in_run: bool = False
    properties: Element = None
    parts: Sequence[DocxPiece] = ()

    def is_page_number(self, ns: str) -> bool:
        """Whether it is a field that counts pages."""
        if self.parts:
            code = "".join(part.text for part in self.parts if part.kind == "code")
        else:
            code = "" if self.element is None else self.element.get(f"{ns}instr", "")
        return code.upper().split()[:1] in PAGE_NUMBERS

    def nodes(self, ns: str) -> Iterator[Element]:
        """Children of a paragraph that are this piece; they are taken from where they were."""
        for piece in self.parts or (self,):
            if piece.parts:
                yield from piece.nodes(ns)
                continue
            piece.element.tail = None
            yield in_run([piece.element], piece.properties, ns) if piece.in_run else piece.element


def in_run(elements: Sequence[Element], properties: Element, ns: str) -> Element:
    """A run of elements with a copy of its properties."""
    run = etree.Element(f"{ns}r")
    if properties is not None:
        run.append(copy.deepcopy(properties))
        run[0].tail = None
    run.extend(elements)
    return run


def pieces_of(paragraph: Element, ns: str) -> Iterator[DocxPiece]:
    """The pieces of a paragraph, without recursion."""
    waiting = [(iter(paragraph), False)]
    while waiting:
        child = next(waiting[-1][0], None)
        if child is None:
            if waiting.pop()[1]:
                yield DocxPiece("leave")
            continue
        name = local_name(child) if isinstance(child.tag, str) else "comment"
        own = name != "comment" and child.tag.startswith(ns)
        if own and (name in PROPERTIES or name in DROPPED):
            continue
        if own and name == "r":
            yield from _pieces_of_run(child, ns)
        elif own and (name in CONTAINERS or (name == "fldSimple" and _is_link(child, ns))):
            yield DocxPiece("enter", child)
            waiting.append((iter(child), True))
        elif own and name in TRANSPARENT:
            waiting.append((iter(child), False))
        elif (own and name == "fldSimple") or name == "oMath":
            shown = text_of(child)
            yield DocxPiece("word" if shown.strip() else "point", child, shown)
        else:
            yield DocxPiece("point", child)


def _is_link(element: Element, ns: str) -> bool:
    return is_link(element.get(f"{ns}instr", ""))


def is_link(code: str) -> bool:
    """Whether a field's code says that its result is the text of a link."""
    return code.split()[:1] == ["HYPERLINK"]


def _pieces_of_run(run: Element, ns: str) -> Iterator[DocxPiece]:
    properties = run.find(f"{ns}rPr")
    for child in run:
        name = local_name(child) if isinstance(child.tag, str) else "comment"
        kind: PieceKind = "point"
        text = ""
        if name in PROPERTIES or name in DROPPED:
            continue
        if name == "t":
            kind, text = "text", re.sub(r"[\t\r\n]", " ", child.text or "")
        elif name == "noBreakHyphen":
            kind, text = "text", NO_BREAK_HYPHEN
        elif name in LINES:
            kind = "line"
        elif name == "fldChar":
            kind = FIELD_PARTS.get(child.get(f"{ns}fldCharType", ""), "point")  # type: ignore[assignment]
        elif name == "instrText":
            kind, text = "code", child.text or ""
        elif name == "ruby" and (base := child.find(f"{ns}rubyBase")) is not None:
            text = text_of(base)
            kind = "word" if text.strip() else "point"
        yield DocxPiece(kind, child, text, True, properties)


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
