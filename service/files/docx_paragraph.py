"""A paragraph of a Word document ↔ text with codes.

The format that most of the text has is left out, so that most paragraphs are plain sentences; what
is formatted otherwise is a stretch. See ECMA-376, part 1, section 17.3 for the elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, repeat
from typing import Any

from lxml import etree

from service.files.docx_fields import resolve_fields
from service.files.docx_pieces import NO_BREAK_HYPHEN, PROPERTIES, DocxPiece, in_run, pieces_of
from service.files.docx_words import whole_words
from service.files.inline import Event, Inline
from service.files.xml import XML_SPACE, Element, local_name, names, shell

UNSEEN = names("lang noProof rPrChange ins del moveFrom moveTo snapToGrid")
"""Properties of runs that make no difference to a reader."""
SEEN_ON_SPACES = names("u strike dstrike highlight shd bdr em")
MARKUP_CHARS = 5
"""Of an element, besides its name."""
FormatKey = tuple[Any, ...]
"""Properties of a run as far as a reader sees them."""


@dataclass(frozen=True)
class Format:
    """The code of a stretch that is formatted otherwise than most text around it."""

    properties: Element


@dataclass(frozen=True)
class Container:
    """The code of a link, an insertion and the like; `base` is the format of most of its text."""

    piece: DocxPiece
    base: Element


@dataclass(frozen=True)
class ContainerEnd:
    """The code of a container's end."""

    piece: DocxPiece


@dataclass
class _Level:
    """How many letters have which format, of the text directly in a paragraph or container."""

    letters: dict[FormatKey, int] = field(default_factory=dict)
    properties: dict[FormatKey, Element] = field(default_factory=dict)

    def add(self, key: FormatKey, piece: DocxPiece) -> None:
        self.properties.setdefault(key, piece.properties)
        self.letters[key] = self.letters.get(key, 0) + sum(map(str.isalnum, piece.text))

    @property
    def base(self) -> FormatKey:
        return max(self.letters, key=self.letters.__getitem__, default=())


class DocxParagraph:
    """A `w:p` element, and what it says; text boxes in it are paragraphs of their own."""

    def __init__(self, element: Element, ns: str) -> None:
        self.element, self.ns = element, ns
        self.inline = Inline()
        all_pieces = list(pieces_of(element, ns))
        self.copied_chars = _copied_chars(all_pieces)
        pieces = whole_words(resolve_fields(all_pieces))
        keys = _keys(pieces)
        levels = _levels(pieces, keys)
        self.base = levels[-1].properties.get(levels[-1].base)
        self._read(pieces, keys, levels)

    def _read(
        self, pieces: Sequence[DocxPiece], keys: Sequence[FormatKey], levels: dict[int, _Level]
    ) -> None:
        """Text and codes in order; `within` has the base and the open format of each level."""
        within: list[tuple[FormatKey, FormatKey | None]] = [(levels[-1].base, None)]
        for at, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
            base, current = within[-1]
            if piece.kind == "text":
                if key != (base if current is None else current) and _is_seen(piece, key):
                    if current is not None:
                        self.inline.close()
                    if key != base:
                        self.inline.open(Format(piece.properties))
                    within[-1] = (base, key if key != base else None)
                self.inline.text(piece.text)
            elif piece.kind in ("enter", "leave"):
                if current is not None:
                    self.inline.close()
                    within[-1] = (base, None)
                if piece.kind == "enter":
                    level = levels[at]
                    self.inline.open(Container(piece, level.properties.get(level.base)))
                    within.append((level.base, None))
                else:
                    self.inline.close(ContainerEnd(piece))
                    within.pop()
            elif piece.kind == "word":
                self.inline.word(piece, piece.text)
            elif piece.kind == "line":
                self.inline.line(piece)
            else:
                self.inline.point(piece)
        if within[-1][1] is not None:
            self.inline.close()

    def write(self, events: Iterable[Event]) -> None:
        """Put text and codes in the place of the paragraph's content."""
        _clear(self.element)
        parents, formats = [self.element], [self.base]
        for event in events:
            match event.code:
                case None:
                    _add_text(parents[-1], event.text, formats[-1], self.ns)
                case DocxPiece():
                    parents[-1].extend(event.code.nodes(self.ns))
                case Format(properties) if event.kind == "open":
                    formats.append(properties)
                case Container(piece, base):
                    formats.append(base)
                    if piece.parts:
                        parents[-1].extend(piece.nodes(self.ns))
                        parents.append(parents[-1])
                    else:
                        parents.append(_opened(piece.element, parents[-1]))
                case ContainerEnd(piece):
                    formats.pop()
                    parents.pop()
                    if piece.parts:
                        parents[-1].extend(piece.nodes(self.ns))
                case _:
                    formats.pop()


def _levels(pieces: Sequence[DocxPiece], keys: Sequence[FormatKey]) -> dict[int, _Level]:
    """The level of the paragraph (-1), and of each piece that enters a container."""
    levels = {-1: _Level()}
    within = [-1]
    for at, (piece, key) in enumerate(zip(pieces, keys, strict=True)):
        if piece.kind == "enter":
            levels[at] = _Level()
            within.append(at)
        elif piece.kind == "leave":
            within.pop()
        elif piece.kind == "text":
            levels[within[-1]].add(key, piece)
    return levels


def _runs(pieces: Iterable[DocxPiece]) -> Iterator[tuple[Element | None, int]]:
    """The properties of pieces, and of how many pieces in succession they are."""
    for _, group in groupby(pieces, key=lambda piece: id(piece.properties)):
        properties = [piece.properties for piece in group]
        yield properties[0], len(properties)


def _keys(pieces: Sequence[DocxPiece]) -> list[FormatKey]:
    """The format of each text."""
    keys = [key for run in _runs(pieces) for key in repeat(_key(run[0]), run[1])]
    return [key if piece.kind == "text" else () for piece, key in zip(pieces, keys, strict=True)]


def _copied_chars(pieces: Iterable[DocxPiece]) -> int:
    """About how much longer formats are as XML, if each piece is a run of its own."""
    return sum(
        _chars(properties) * (count - 1)
        for properties, count in _runs(pieces)
        if properties is not None and count > 1
    )


def _chars(properties: Element) -> int:
    return sum(
        len(local_name(element))
        + MARKUP_CHARS
        + len(element.text or "")
        + sum(map(len, element.attrib.values()))
        for element in properties.iter()
    )


def _key(properties: Element | None) -> FormatKey:
    if properties is None:
        return ()
    return tuple(
        (child.tag, *sorted(one for one in child.attrib.items() if not one[0].endswith("}hint")))
        for child in properties.iterchildren(tag=etree.Element)
        if local_name(child) not in UNSEEN
    )


def _is_seen(piece: DocxPiece, key: FormatKey) -> bool:
    """Whether a reader sees the format of a text: that of spaces is seldom seen."""
    if piece.text.strip():
        return True
    return any(tag.rsplit("}", 1)[-1] in SEEN_ON_SPACES for tag, *_ in key)


def _clear(element: Element) -> None:
    """Remove all but the properties of a paragraph."""
    for child in list(element):
        if local_name(child) not in PROPERTIES:
            element.remove(child)


def _opened(element: Element, parent: Element) -> Element:
    """A container like another, with its properties, added to a parent; where its runs go."""
    holder = shell(element)
    parent.append(holder)
    for child in list(element):
        if local_name(child) in PROPERTIES:
            child.tail = None
            holder.append(child)
    return holder


def _add_text(parent: Element, text: str, properties: Element, ns: str) -> None:
    """Add a run of text; hyphens that do not break are elements."""
    elements = []
    for part in re.split(f"({NO_BREAK_HYPHEN})", text):
        if part == NO_BREAK_HYPHEN:
            elements.append(etree.Element(f"{ns}noBreakHyphen"))
        elif part:
            written = etree.Element(f"{ns}t")
            written.text = part
            if part != part.strip():
                written.set(XML_SPACE, "preserve")
            elements.append(written)
    if elements:
        parent.append(in_run(elements, properties, ns))
