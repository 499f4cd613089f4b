"""XLIFF 1.2 and 2.x: `<target>` of each segment that is not translated yet."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lxml import etree

from service.documents.base import FileError, Inline, Unit, check_count
from service.documents.xml import (
    Code,
    Element,
    base_language,
    empty,
    fill,
    insert_after,
    local_name,
    namespace,
    outermost,
    read_inline,
    read_xml,
)

UNTRANSLATED = ("new", "needs-translation", "initial")
"""States that say that a target is only a copy of its source."""


class XliffSegment(Protocol):
    """A `<source>` whose target is to be filled."""

    @property
    def stretches(self) -> Sequence[Inline]:
        """What it says; XLIFF 1.2 may part it."""

    def write(self, translations: Sequence[str], target: str) -> None:
        """Make the target, in the language `target`, of translations of the stretches."""


@dataclass(frozen=True)
class Segment1:
    """A segment of XLIFF 1.2. `holder` is its source, or that in parts; `places` are the numbers
    of those of its marks that the stretches are, none if there are no marks."""

    holder: Element
    former: Element | None
    stretches: Sequence[Inline]
    places: Sequence[int]

    def write(self, translations: Sequence[str], target: str) -> None:
        new = _fresh_target(self.holder, self.former)
        new.set("state", "needs-review-translation")
        new.set("state-qualifier", "leveraged-mt")
        filled = [new]
        if self.places:
            new.text = self.holder.text
            new.extend(copy.deepcopy(child) for child in self.holder)
            marks = _marks(new)
            filled = [marks[place] for place in self.places]
        for element, inline, translation in zip(filled, self.stretches, translations, strict=True):
            empty(element)
            fill(element, inline.translated(translation))
        file = next(self.holder.iterancestors(f"{namespace(new)}file"), None)
        if file is not None and not file.get("target-language"):
            file.set("target-language", target)


@dataclass(frozen=True)
class Segment2:
    """A segment of XLIFF 2."""

    element: Element
    source: Element
    former: Element | None
    stretches: Sequence[Inline]

    def write(self, translations: Sequence[str], target: str) -> None:
        (inline,), (translation,) = self.stretches, translations
        fill(_fresh_target(self.source, self.former), inline.translated(translation))
        self.element.set("state", "translated")
        self.element.set("subState", "quickstudy:machine")
        root = self.element.getroottree().getroot()
        if not root.get("trgLang"):
            root.set("trgLang", target)


class XliffFile:
    """An XLIFF file; its units are its segments that have no translation."""

    def __init__(self, data: bytes, source: str, target: str) -> None:
        self.data, self.source, self.target = data, source, target
        self.units: Sequence[Unit] = [
            inline.unit
            for segment in _segments(read_xml(data).root, source, target)
            for inline in segment.stretches
        ]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        document = read_xml(self.data)
        remaining = iter(translations)
        for segment in list(_segments(document.root, self.source, self.target)):
            segment.write([next(remaining) for _ in segment.stretches], self.target)
        return document.write()


def open_xliff(data: bytes, source: str, target: str, max_unit_chars: int) -> XliffFile:
    """An XLIFF file. Raises FileError if it is for other languages."""
    return XliffFile(data, source, target)


def _segments(root: Element, source: str, target: str) -> Iterator[XliffSegment]:
    if local_name(root) != "xliff":
        raise FileError("the file is not XLIFF: its root is not <xliff>; give it the name it had")
    if root.get("version", "1.2").startswith("2"):
        _check_languages(root, "srcLang", "trgLang", source, target)
        return _segments_of_2(root)
    for file in root.iterchildren("{*}file"):
        _check_languages(file, "source-language", "target-language", source, target)
    return _segments_of_1(root)


def _check_languages(element: Element, from_: str, into: str, source: str, target: str) -> None:
    known = base_language(element.get(from_, ""))
    if known and source != "auto" and known != base_language(source):
        raise FileError(f"the file is in {known!r}, not {source!r}; choose {known!r} as its source")
    known = base_language(element.get(into, ""))
    if known and known != base_language(target):
        raise FileError(f"the file is for {known!r}, not {target!r}; choose {known!r} as target")


def _translate_says_no(element: Element) -> bool:
    """Whether an element, or one around it, says `translate="no"`."""
    while element is not None:
        said = element.get("translate")
        if said in ("no", "yes"):
            return said == "no"
        element = element.getparent()
    return False


def _to_fill(target: Element | None, state: str | None) -> bool:
    if target is None or state in UNTRANSLATED:
        return True
    return next(target.iterchildren(), None) is None and not (target.text or "").strip()


def _segments_of_1(root: Element) -> Iterator[XliffSegment]:
    ns = namespace(root)
    for unit in outermost(root, f"{ns}trans-unit"):
        source, former = unit.find(f"{ns}source"), unit.find(f"{ns}target")
        state = former.get("state") if former is not None else None
        if (
            source is None
            or unit.get("approved") == "yes"
            or not _to_fill(former, state)
            or _translate_says_no(unit)
        ):
            continue
        parted = unit.find(f"{ns}seg-source")
        holder = source if parted is None else parted
        marks = _marks(holder)
        found = [read_inline(element, _classify_1) for element in marks or [holder]]
        places = [place for place, inline in enumerate(found) if inline.translatable]
        if places:
            stretches = [found[place] for place in places]
            yield Segment1(holder, former, stretches, places if marks else [])


def _segments_of_2(root: Element) -> Iterator[XliffSegment]:
    ns = namespace(root)
    for segment in outermost(root, f"{ns}segment"):
        source, former = segment.find(f"{ns}source"), segment.find(f"{ns}target")
        if (
            source is None
            or not _to_fill(former, segment.get("state"))
            or _translate_says_no(segment)
        ):
            continue
        inline = read_inline(source, _classify_2)
        if inline.translatable:
            yield Segment2(segment, source, former, [inline])


def _marks(element: Element) -> list[Element]:
    """The segments that a source of XLIFF 1.2 is parted into, none in another."""
    marks = []
    walker = etree.iterwalk(element, events=("start",), tag=f"{namespace(element)}mrk")
    for _, mark in walker:
        if mark.get("mtype") == "seg":
            marks.append(mark)
            walker.skip_subtree()
    return marks


def _fresh_target(source: Element, former: Element | None) -> Element:
    """The target beside a source, without content."""
    if former is not None:
        empty(former)
        return former
    new = etree.Element(f"{namespace(source)}target", nsmap=source.nsmap)
    insert_after(source, new)
    return new


def _classify_1(element: Element) -> Code:
    match local_name(element):
        case "g":
            return Code("around")
        case "mrk":
            return Code("word" if element.get("mtype") == "protected" else "around")
        case "bpt" | "bx":
            return Code("start", element.get("rid", element.get("id", "")))
        case "ept" | "ex":
            return Code("end", element.get("rid", element.get("id", "")))
        case "x" | "ph":
            return Code("line" if element.get("ctype") == "lb" else "placeholder")
    return Code("point")


def _classify_2(element: Element) -> Code:
    match local_name(element):
        case "pc":
            return Code("around")
        case "mrk":
            return Code("word" if element.get("translate") == "no" else "around")
        case "sc":
            return Code("start", f"code {element.get('id', '')}")
        case "ec":
            return Code("end", f"code {element.get('startRef', '')}")
        case "sm":
            return Code("start", f"mark {element.get('id', '')}")
        case "em":
            return Code("end", f"mark {element.get('startRef', '')}")
        case "ph":
            return Code("line" if element.get("subType") == "xlf:lb" else "placeholder")
    return Code("point")
