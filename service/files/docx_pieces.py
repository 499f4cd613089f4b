"""A Word paragraph, flattened: texts, containers and everything else in order."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lxml import etree

from service.files.xml import Element, local_name, names, text_of

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
        yield DocxPiece(kind, child, text, True, properties)
