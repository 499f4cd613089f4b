"""OpenDocument texts: the paragraphs and headings of their body, tables, headers, footers, notes
and frames. See OpenDocument 1.3, part 3, sections 5 to 7 for the elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from lxml import etree

from service.documents.base import FileError, Inline, OpenFile, Unit, beginning, check_count
from service.documents.xml import (
    Archive,
    Code,
    Element,
    detached,
    empty,
    fill,
    local_name,
    names,
    namespace,
    read_inline,
    read_xml,
    text_of,
)

MEDIA_TYPE = "application/vnd.oasis.opendocument.text"
"""How the media type of texts, their templates and the like begins."""
PARTS = ("content.xml", "styles.xml")
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
PARAGRAPHS = (f"{TEXT}p", f"{TEXT}h")
SKIPPED = (f"{TEXT}tracked-changes", f"{OFFICE}annotation")
"""Deleted text and comments."""
UNSEEN = names(
    "rsid paragraph-rsid language language-asian language-complex country rfc-language-tag"
)
"""Properties of text that make no difference to a reader."""
POINTS = names(
    "s note bookmark bookmark-start bookmark-end reference-mark reference-mark-start "
    "reference-mark-end change change-start change-end soft-page-break number toc-mark script "
    "alphabetical-index-mark user-index-mark"
)


class OdtFile(OpenFile):
    """An OpenDocument text; a unit is a paragraph."""

    def __init__(self, data: bytes) -> None:
        self.archive = Archive(data)
        _check(self.archive)
        self.parts = [part for part in PARTS if part in self.archive]
        self.archive.check_parts(self.parts)
        inlines = [
            inline
            for part in self.parts
            for _, inline in _paragraphs(read_xml(self.archive.read(part)).root)
        ]
        self.units: Sequence[Unit] = [inline.unit for inline in inlines]
        self.places = [beginning(inline) for inline in inlines]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        remaining = iter(translations)
        changed = {}
        for part in self.parts:
            document = read_xml(self.archive.read(part))
            for element, inline in list(_paragraphs(document.root)):
                translation = next(remaining)
                if translation != inline.unit.text:
                    events = inline.translated(translation)
                    empty(element)
                    fill(element, events, detached)
                    changed[part] = document
        return self.archive.write({part: document.write() for part, document in changed.items()})


def open_odt(data: bytes, source: str, target: str, max_unit_chars: int) -> OdtFile:
    """An OpenDocument text. Raises FileError if it is damaged or encrypted."""
    return OdtFile(data)


def _check(archive: Archive) -> None:
    if "mimetype" in archive:
        type = archive.read("mimetype").decode("ascii", "replace").strip()
        if not type.startswith(MEDIA_TYPE):
            raise FileError(f"the file is no OpenDocument text but {type[:80]!r}; save it as .odt")
    manifest = "META-INF/manifest.xml"
    if "encrypted-package" in archive or (
        manifest in archive and b"encryption-data" in archive.read(manifest)
    ):
        raise FileError("the file is encrypted; save it without a password")
    if "content.xml" not in archive:
        raise FileError("the file is no OpenDocument text: it has no content.xml; save it again")


def _paragraphs(root: Element) -> Iterator[tuple[Element, Inline]]:
    """The paragraphs of a part that have a letter, outer ones first."""
    classify = _classifier(_unseen_styles(root), _struck_styles(root))
    walker = etree.iterwalk(root, events=("start",), tag=(*PARAGRAPHS, *SKIPPED))
    for _, element in walker:
        if element.tag in SKIPPED:
            walker.skip_subtree()
            continue
        inline = read_inline(element, classify, _add_text)
        if inline.translatable:
            yield element, inline


def _add_text(inline: Inline, text: str) -> None:
    inline.text(re.sub(r"[ \t\r\n]+", " ", text))


def _unseen_styles(root: Element) -> frozenset[str]:
    """Automatic styles of text that change nothing that is seen."""
    found = set()
    for styles in root.iterchildren(f"{OFFICE}automatic-styles"):
        for style in styles.iterchildren(f"{STYLE}style"):
            seen = (
                style.get(f"{STYLE}family") != "text" or f"{STYLE}parent-style-name" in style.attrib
            )
            seen = seen or any(
                child.tag != f"{STYLE}text-properties"
                or any(name.rsplit("}", 1)[-1] not in UNSEEN for name in child.attrib)
                for child in style
            )
            if not seen:
                found.add(style.get(f"{STYLE}name", ""))
    return frozenset(found)


def _struck_styles(root: Element) -> frozenset[str]:
    """Automatic styles that draw a line through text."""
    return frozenset(
        style.get(f"{STYLE}name", "")
        for styles in root.iterchildren(f"{OFFICE}automatic-styles")
        for properties in styles.iter(f"{STYLE}text-properties")
        if properties.get(f"{STYLE}text-line-through-style", "none") != "none"
        and (style := properties.getparent()).get(f"{STYLE}family") == "text"
    )


def _classifier(unseen: frozenset[str], struck: frozenset[str]) -> Callable[[Element], Code]:
    def classify(element: Element) -> Code:
        name = local_name(element)
        if namespace(element) != TEXT or name in POINTS:
            return Code("point")
        match name:
            case "span":
                style = element.get(f"{TEXT}style-name", "")
                if style in unseen:
                    return Code("through")
                return Code("around", style, name="s" if style in struck else "")
            case "a" | "meta":
                return Code("around")
            case "tab" | "line-break":
                return Code("line")
        if not text_of(element).strip():
            return Code("point")
        return Code("word", in_order=name in ("page-number", "page-count"))

    return classify
