"""TMX 1.1 to 1.4b translation memories: a variant of the target language for each unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lxml import etree

from service.documents.base import FileError, Inline, OpenFile, Unit, check_count
from service.documents.xml import (
    XML_LANG,
    Code,
    Element,
    base_language,
    empty,
    fill,
    insert_after,
    local_name,
    outermost,
    read_inline,
    read_xml,
)


class TmxFile(OpenFile):
    """A translation memory; its units are what its segments of the source language say."""

    def __init__(self, data: bytes, source: str, target: str) -> None:
        self.data, self.source, self.target = data, source, target
        found = list(_segments(read_xml(data).root, source))
        self.units: Sequence[Unit] = [inline.unit for _, inline in found]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        document = read_xml(self.data)
        found = list(_segments(document.root, self.source))
        for (variant, inline), translation in zip(found, translations, strict=True):
            segment = _target_segment(variant, self.target)
            fill(segment, inline.translated(translation))
        return document.write()


def open_tmx(data: bytes, source: str, target: str, max_unit_chars: int) -> TmxFile:
    """A translation memory. Raises FileError if it has nothing in the source language."""
    return TmxFile(data, source, target)


def _segments(root: Element, source: str) -> Iterator[tuple[Element, Inline]]:
    """Variants of the source language that have a letter, and what they say."""
    if local_name(root) != "tmx":
        raise FileError("the file is not TMX: its root is not <tmx>; give it the name it had")
    header = _child(root, "header")
    default = header.get("srclang", "") if header is not None else ""
    languages: set[str] = set()
    found = False
    for unit in outermost(root, "{*}tu"):
        wanted = unit.get("srclang", default) if source == "auto" else source
        variants = [child for child in unit if local_name(child) == "tuv"]
        languages.update(map(_language, variants))
        variant = _choose(variants, wanted)
        if variant is None:
            continue
        found = True
        segment = _child(variant, "seg")
        if segment is None:
            continue
        inline = read_inline(segment, _classify)
        if inline.translatable:
            yield variant, inline
    if languages and not found:
        named = ", ".join(sorted(languages)[:20])
        raise FileError(f"the file has nothing in {source!r}, only in: {named}; choose its source")


def _choose(variants: Sequence[Element], language: str) -> Element | None:
    """The variant of a language, best with the same region; the first one for `*all*`."""
    if language in ("*all*", ""):
        return variants[0] if variants else None
    same = [one for one in variants if base_language(_language(one)) == base_language(language)]
    exact = [one for one in same if _language(one).lower() == language.lower()]
    return next(iter([*exact, *same]), None)


def _target_segment(variant: Element, target: str) -> Element:
    """An empty segment of the target language beside a variant."""
    unit = variant.getparent()
    assert unit is not None
    former = _choose([child for child in unit if local_name(child) == "tuv"], target)
    source_segment = _child(variant, "seg")
    assert source_segment is not None
    if former is None or former is variant:
        name = XML_LANG if XML_LANG in variant.attrib else "lang"
        former = etree.Element(variant.tag, {name: target}, variant.nsmap)
        insert_after(variant, former)
    segment = _child(former, "seg")
    if segment is None:
        segment = etree.SubElement(former, source_segment.tag)
        if len(former) == 1 and variant[0] is source_segment:
            former.text, segment.tail = variant.text, source_segment.tail
    empty(segment)
    return segment


def _language(variant: Element) -> str:
    return variant.get(XML_LANG) or variant.get("lang") or ""


def _child(element: Element, name: str) -> Element | None:
    return next((child for child in element if local_name(child) == name), None)


def _classify(element: Element) -> Code:
    match local_name(element):
        case "hi":
            return Code("around")
        case "bpt":
            return Code("start", element.get("i", ""))
        case "ept":
            return Code("end", element.get("i", ""))
        case "ph":
            return Code("placeholder")
    return Code("point")
