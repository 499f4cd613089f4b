"""Word documents: the paragraphs of their body, tables, headers, footers, notes and text boxes.

A paragraph is flattened into pieces (`docx_pieces.py`). A word that is formatted in
part gets one format, because half a word cannot be found in a translation. The pieces become text
with inline codes: the format that most of the text has is left out, so most paragraphs are plain
sentences, and text with another format is a span. A word that a tracked change alters in part is
changed as a whole (`docx_changes.py`). See ECMA-376, part 1, section 17.3 for the
elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, repeat
from typing import Any

from lxml import etree

from service.documents.base import Event, FileError, Inline, OpenFile, Unit, beginning, check_count
from service.documents.docx_changes import MAX_PART, letters, whole_changes
from service.documents.docx_pieces import (
    NO_BREAK_HYPHEN,
    PROPERTIES,
    DocxPiece,
    in_run,
    pieces_of,
    resolve_fields,
)
from service.documents.xml import (
    XML_SPACE,
    Archive,
    Element,
    XmlFile,
    local_name,
    names,
    namespace,
    read_xml,
    shell,
)

MEANT = names("vertAlign position")
"""What parts a word on purpose: H₂O."""


def whole_words(pieces: Sequence[DocxPiece]) -> list[DocxPiece]:
    """The same pieces, but a word in two texts side by side is in the one that has more of it."""
    whole: list[DocxPiece] = []
    for piece in pieces:
        while piece.kind == "text" and whole and whole[-1].kind == "text":
            before = whole[-1]
            if is_struck(before) != is_struck(piece):
                break
            tail, head = letters(before.text[: -MAX_PART - 2 : -1]), letters(piece.text)
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


STRIKES = names("strike dstrike")
OFF = ("0", "false", "off")


def is_struck(piece: DocxPiece) -> bool:
    """Whether a line goes through its text."""
    return piece.properties is not None and any(
        local_name(child) in STRIKES and not any(value in OFF for value in child.attrib.values())
        for child in piece.properties.iterchildren(tag=etree.Element)
    )


def _is_meant(*pieces: DocxPiece) -> bool:
    return any(
        local_name(child) in MEANT
        for piece in pieces
        if piece.properties is not None
        for child in piece.properties
    )


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
        """What most text has that is not struck out, if there is any."""
        unstruck = [key for key in self.letters if not any(map(_strikes, key))]
        return max(unstruck or self.letters, key=self.letters.__getitem__, default=())


class DocxParagraph:
    """A `w:p` element, and what it says; text boxes in it are paragraphs of their own."""

    def __init__(self, element: Element, ns: str) -> None:
        self.element, self.ns = element, ns
        self.inline = Inline()
        all_pieces = list(pieces_of(element, ns))
        self.copied_chars = _copied_chars(all_pieces)
        pieces = whole_words(whole_changes(resolve_fields(all_pieces), ns))
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
                        name = "s" if is_struck(piece) else "span"
                        self.inline.open(Format(piece.properties), name)
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
                self.inline.word(piece, piece.text, in_order=piece.is_page_number(self.ns))
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


def _strikes(one: tuple[Any, ...]) -> bool:
    """Whether a property of a format is a line through its text."""
    tag, *values = one
    name = tag.rsplit("}", 1)[-1]
    return name in STRIKES and not any(value in OFF for _, value in values)


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


CONTENT_TYPES = "[Content_Types].xml"
MAIN = ("document.main+xml", "template.main+xml")
TRANSLATED = (*MAIN, "header+xml", "footer+xml", "footnotes+xml", "endnotes+xml")
"""How the content types of the parts that are translated end."""
MAX_COPIED_CHARS = 32 << 20
"""What the formats of a part's runs may come to, once each part of a run is one with its format."""


class DocxFile(OpenFile):
    """A Word document; a unit is a paragraph."""

    def __init__(self, data: bytes) -> None:
        self.archive = Archive(data)
        self.parts = _parts(self.archive)
        self.archive.check_parts(self.parts)
        inlines = [
            paragraph.inline
            for part in self.parts
            for paragraph in _paragraphs(read_xml(self.archive.read(part)).root)
        ]
        self.units: Sequence[Unit] = [inline.unit for inline in inlines]
        self.places = [beginning(inline) for inline in inlines]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        remaining = iter(translations)
        changed = {}
        for part in self.parts:
            document = read_xml(self.archive.read(part))
            if _rewrite(document, remaining):
                changed[part] = document.write()
        return self.archive.write(changed)


def open_docx(data: bytes, source: str, target: str, max_unit_chars: int) -> DocxFile:
    """A Word document. Raises FileError if it is damaged, encrypted or has macros."""
    return DocxFile(data)


def _parts(archive: Archive) -> list[str]:
    """Names of the parts to translate, the document itself first."""
    if "EncryptedPackage" in archive:
        raise FileError("the file is encrypted; save it without a password")
    types = {
        element.get("PartName", "").lstrip("/"): element.get("ContentType", "")
        for element in read_xml(archive.read(CONTENT_TYPES)).root.iter("{*}Override")
    }
    macros = any("macroEnabled" in type or "vbaProject" in type for type in types.values())
    if macros or any(name.lower().endswith("vbaproject.bin") for name in archive.members):
        raise FileError("the file has macros, which is not accepted; save it as .docx without them")
    found = [
        name
        for name, type in types.items()
        if type.endswith(TRANSLATED) and "wordprocessingml" in type and "glossary" not in type
    ]
    found.sort(key=lambda name: (not types[name].endswith(MAIN), name))
    if not found or not types[found[0]].endswith(MAIN):
        raise FileError("the file is not a Word document: it has no main part; save it again")
    return found


def _paragraphs(root: Element) -> Iterator[DocxParagraph]:
    """The paragraphs of a part that have a letter."""
    ns = namespace(root)
    if local_name(root) not in ("document", "hdr", "ftr", "footnotes", "endnotes"):
        raise FileError("the file is not a Word document: it has an unknown part; save it again")
    copied = 0
    for element in root.iter(f"{ns}p"):
        paragraph = DocxParagraph(element, ns)
        copied += paragraph.copied_chars
        if copied > MAX_COPIED_CHARS:
            raise FileError(
                "the file has runs of so many parts with so large formats that its translation "
                f"would have more than {MAX_COPIED_CHARS:,} characters of formats; simplify them"
            )
        if paragraph.inline.translatable:
            yield paragraph


def _rewrite(document: XmlFile, translations: Iterator[str]) -> bool:
    """Put translations into a part; whether it has changed."""
    changed = False
    for paragraph in list(_paragraphs(document.root)):
        translation = next(translations)
        if translation != paragraph.inline.unit.text:
            paragraph.write(paragraph.inline.translated(translation))
            changed = True
    return changed
