"""TMX 1.1 to 1.4b translation memories: a variant of the target language for each unit that has
none, or an empty one; for every unit where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lxml import etree

from service.documents.base import (
    NOT_TRANSLATED,
    FileError,
    OpenFile,
    Unit,
    UnitWarning,
    check_count,
)
from service.documents.messages import CHOICE_LEFT, Message, message_of
from service.documents.xml import (
    SUB_LEFT,
    XML_LANG,
    Code,
    Element,
    base_language,
    empty,
    fill,
    has_sub,
    insert_after,
    local_name,
    names,
    outermost,
    read_inline,
    read_xml,
)

CLAIMS = names(
    "creationid creationdate creationtool creationtoolversion changeid changedate lastusagedate "
    "usagecount"
)
"""Attributes that say who made a variant, and when it was used."""
BOTH = 2


class TmxFile(OpenFile):
    """A translation memory; its units are what its segments of the source language say that have no
    translation, or all of them, to `replace` what there is."""

    def __init__(self, data: bytes, source: str, target: str, replace: bool) -> None:
        self.data, self.source, self.target, self.replace = data, source, target, replace
        self.left: list[UnitWarning] = []
        found = list(self._segments(read_xml(data).root, self.left))
        self.units: Sequence[Unit] = [
            inline.unit for _, message, _ in found for inline in message.inlines
        ]
        self.places = [place for _, message, place in found for _ in message.inlines]

    def warnings(self, translations: Sequence[str]) -> Sequence[UnitWarning]:
        return self.left

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        document = read_xml(self.data)
        remaining = iter(translations)
        for variant, message, _ in list(self._segments(document.root, [])):
            events = message.events([next(remaining) for _ in message.inlines])
            fill(_target_segment(variant, self.target), events)
        return document.write()

    def _segments(
        self, root: Element, left: list[UnitWarning]
    ) -> Iterator[tuple[Element, Message, str]]:
        return _segments(root, self.source, self.target, left, replace=self.replace)


def open_tmx(
    data: bytes, source: str, target: str, max_unit_chars: int, replace: bool = False
) -> TmxFile:
    """A translation memory. Raises FileError if it has nothing in the source language."""
    return TmxFile(data, source, target, replace)


def _segments(
    root: Element, source: str, target: str, left: list[UnitWarning], *, replace: bool
) -> Iterator[tuple[Element, Message, str]]:
    """Variants of the source language that are to be translated, what they say, and their units'
    names; what is not translated goes to `left`."""
    if local_name(root) != "tmx":
        raise FileError("the file is not TMX: its root is not <tmx>; give it the name it had")
    header = _child(root, "header")
    default = header.get("srclang", "") if header is not None else ""
    languages: set[str] = set()
    found = False
    for number, unit in enumerate(outermost(root, "{*}tu"), start=1):
        wanted = unit.get("srclang", default) if source == "auto" else source
        variants = [child for child in unit if local_name(child) == "tuv"]
        languages.update(map(_language, variants))
        if wanted in ("*all*", ""):
            others = [v for v in variants if base_language(_language(v)) != base_language(target)]
            variant = _choose(others, wanted)
        else:
            variant = _choose(variants, wanted)
        if variant is None:
            continue
        found = True
        segment = _child(variant, "seg")
        former = _former(variants, variant, target)
        if segment is None or (former is not None and _has_text(former) and not replace):
            continue
        inline = read_inline(segment, _classify)
        message = message_of(inline)
        place = unit.get("tuid") or f"unit {number}"
        if has_sub(segment):
            left.append(UnitWarning(place, NOT_TRANSLATED, SUB_LEFT))
        if message is None:
            left.append(UnitWarning(place, NOT_TRANSLATED, CHOICE_LEFT))
        elif message.inlines:
            yield variant, message, place
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


def _former(variants: Sequence[Element], source: Element, target: str) -> Element | None:
    """The variant of the target language, one with text before others. One of another region than
    the target's is another language."""
    found = []
    for variant in variants:
        language = _language(variant).replace("_", "-").lower()
        regions = {code for code in (language, target.lower()) if "-" in code}
        same = base_language(language) == base_language(target)
        if same and len(regions) < BOTH and variant is not source:
            found.append(variant)
    return next(iter([*filter(_has_text, found), *found]), None)


def _has_text(variant: Element) -> bool:
    """Whether a variant says anything, not only codes."""
    segment = _child(variant, "seg")
    return segment is not None and bool(read_inline(segment, _classify).shown.strip())


def _target_segment(variant: Element, target: str) -> Element:
    """An empty segment of the target language beside a variant. A variant that is replaced loses
    what tools say of it (`prop`): who confirmed it, what it was taken from."""
    unit = variant.getparent()
    assert unit is not None
    variants = [child for child in unit if local_name(child) == "tuv"]
    former = _former(variants, variant, target)
    source_segment = _child(variant, "seg")
    assert source_segment is not None
    if former is None:
        name = XML_LANG if XML_LANG in variant.attrib else "lang"
        former = etree.Element(variant.tag, {name: target}, variant.nsmap)
        insert_after(variant, former)
    if _has_text(former):
        for said in [child for child in former if local_name(child) == "prop"]:
            former.remove(said)
    for claim in CLAIMS:
        former.attrib.pop(claim, None)
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
