"""Tracked changes within a word: the whole word is deleted and inserted, because a part of a word
cannot be found in its translation.

`col` + deleted `ou` + inserted `o` + `r` becomes deleted `colour` + inserted `color`. Who rejects
the change gets the old word of the source back. See ECMA-376, part 1, section 17.13.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lxml import etree

from service.documents.docx_pieces import PROPERTIES, DocxPiece, in_run
from service.documents.xml import XML_SPACE, Element, local_name, shell

MAX_PART = 40
"""Letters of the longest part of a word that is moved, so that any input takes linear time."""
WESTERN = "\u0e00"
"""Scripts before this code point put spaces between words."""
NEW_IDS = 1_000_000_000
"""Added to the id of a change for the one that is made beside it."""


@dataclass
class _Change:
    """A word in parts, each with the properties of its run: before the changes, and after them."""

    start: int
    end: int
    old: list[tuple[str, Element]] = field(default_factory=list)
    new: list[tuple[str, Element]] = field(default_factory=list)
    deletion: Element = None
    insertion: Element = None

    def keep(self, text: str, properties: Element) -> None:
        self.old.append((text, properties))
        self.new.append((text, properties))


def whole_changes(pieces: Sequence[DocxPiece], ns: str) -> list[DocxPiece]:
    """The same pieces, with words that are changed in part in their changes as a whole. Changes of
    anything but plain text stay as they are."""
    changed: list[DocxPiece] = []
    at = 0
    while at < len(pieces):
        change = _change_at(pieces, at, ns)
        if change is None:
            changed.append(pieces[at])
            at += 1
            continue
        before = changed[-1] if changed and changed[-1].kind == "text" else None
        after = pieces[change.end] if change.end < len(pieces) else None
        tail = before.text[len(before.text) - letters(before.text[::-1]) :] if before else ""
        head = after.text[: letters(after.text)] if after and after.kind == "text" else ""
        if not _is_within_word(change, tail, head):
            changed += pieces[at : change.end]
            at = change.end
            continue
        if before and tail:
            change.old.insert(0, (tail, before.properties))
            change.new.insert(0, (tail, before.properties))
            rest = before.text[: len(before.text) - len(tail)]
            changed[-1:] = [_text(rest, before.properties)] if rest else []
        if after and head:
            change.keep(head, after.properties)
        changed += _pieces(change, ns)
        if after and head and (rest := after.text[len(head) :]):
            changed.append(_text(rest, after.properties))
        at = change.end + bool(head)
    return changed


def _change_at(pieces: Sequence[DocxPiece], start: int, ns: str) -> _Change | None:
    """The changes that begin at a piece, with letters alone between them; None if there are none of
    plain text."""
    change = _Change(start, start)
    between: list[DocxPiece] = []
    at = start
    while at < len(pieces):
        piece = pieces[at]
        if piece.kind == "text" and change.end > start and piece.text.isalnum():
            between.append(piece)
            at += 1
            continue
        end = _read_change(pieces, at, ns, change, between)
        if end is None:
            break
        between = []
        at = change.end = end
    return change if change.end > start else None


def _read_change(
    pieces: Sequence[DocxPiece], at: int, ns: str, change: _Change, between: list[DocxPiece]
) -> int | None:
    """Add an insertion or deletion to a change; where it ends, None if it is none of plain text."""
    piece = pieces[at]
    if piece.element is None or piece.in_run or piece.parts:
        return None
    if piece.kind == "point" and piece.element.tag == f"{ns}del":
        deleted = _deleted(piece.element, ns)
        if deleted is None:
            return None
        for one in between:
            change.keep(one.text, one.properties)
        change.old += deleted
        change.deletion = piece.element if change.deletion is None else change.deletion
        return at + 1
    if piece.kind != "enter" or piece.element.tag != f"{ns}ins":
        return None
    end = at + 1
    while end < len(pieces) and pieces[end].kind == "text":
        end += 1
    if end == len(pieces) or pieces[end].kind != "leave":
        return None
    for one in between:
        change.keep(one.text, one.properties)
    change.new += [(one.text, one.properties) for one in pieces[at + 1 : end]]
    change.insertion = piece.element if change.insertion is None else change.insertion
    return end + 1


def _deleted(element: Element, ns: str) -> list[tuple[str, Element]] | None:
    """The runs of a deletion; None if there is anything but text in them."""
    runs = []
    for run in element:
        if run.tag != f"{ns}r":
            return None
        text = ""
        for child in run:
            name = local_name(child)
            if name == "delText":
                text += child.text or ""
            elif name not in PROPERTIES:
                return None
        runs.append((text, run.find(f"{ns}rPr")))
    return runs


def _is_within_word(change: _Change, tail: str, head: str) -> bool:
    """Whether letters outside of a change touch letters in it, or each other across it."""
    old, new = ("".join(text for text, _ in parts) for parts in (change.old, change.new))
    if max(len(tail), len(head)) > MAX_PART:
        return False
    return any(
        (tail and (inside or head)[:1].isalnum()) or (head and (inside or tail)[-1:].isalnum())
        for inside in (old, new)
        if inside or (tail and head)
    )


def _pieces(change: _Change, ns: str) -> list[DocxPiece]:
    deletion = _element(f"{ns}del", change.deletion, change.insertion, ns)
    for text, properties in change.old:
        deleted = etree.Element(f"{ns}delText")
        deleted.text = text
        deleted.set(XML_SPACE, "preserve")
        deletion.append(in_run([deleted], properties, ns))
    insertion = _element(f"{ns}ins", change.insertion, change.deletion, ns)
    return [
        DocxPiece("point", deletion),
        DocxPiece("enter", insertion),
        *(_text(text, properties) for text, properties in change.new if text),
        DocxPiece("leave"),
    ]


def _element(tag: str, own: Element, other: Element, ns: str) -> Element:
    """An empty change: that of the file, or one by the author and of the date of the other."""
    if own is not None:
        return shell(own)
    made = shell(other)
    made.tag = tag
    number = made.get(f"{ns}id", "")
    if number.isdecimal():
        made.set(f"{ns}id", str(int(number) % NEW_IDS + NEW_IDS))
    return made


def _text(text: str, properties: Element) -> DocxPiece:
    return DocxPiece("text", None, text, True, properties)


def letters(text: str) -> int:
    """How many letters and digits of a word a text begins with, at most one more than MAX_PART."""
    for at, character in enumerate(text[: MAX_PART + 1]):
        if not character.isalnum() or character >= WESTERN:
            return at
    return min(len(text), MAX_PART + 1)
