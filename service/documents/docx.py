"""Word documents: the paragraphs of their body, tables, headers, footers, notes and text boxes.

A paragraph is flattened into pieces: texts, containers and everything else, in order. A field
becomes one piece (the text of a link is translated, all else stays). A word that is formatted in
part gets one format, because half a word cannot be found in a translation. The pieces become text
with inline codes: the format that most of the text has is left out, so most paragraphs are plain
sentences, and text with another format is a span. See ECMA-376, part 1, section 17.3 for the
elements.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, repeat
from typing import Any, Literal

from lxml import etree

from service.documents.base import Event, FileError, Inline, OpenFile, Unit, check_count
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
    text_of,
)

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
        self.units: Sequence[Unit] = [
            paragraph.inline.unit
            for part in self.parts
            for paragraph in _paragraphs(read_xml(self.archive.read(part)).root)
        ]

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
