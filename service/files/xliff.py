"""XLIFF 1.2 and 2.x: `<target>` of each segment that is not translated yet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from service.files.codes import Code, read_inline
from service.files.inline import Inline
from service.files.unit import FileError, Unit, check_count
from service.files.xml import (
    Element,
    base_language,
    empty,
    fill,
    insert_after,
    local_name,
    namespace,
    read_xml,
    text_of,
)

UNTRANSLATED = ("new", "needs-translation", "initial")
"""States that say that a target is only a copy of its source."""


@dataclass(frozen=True)
class Segment:
    """A `<source>` whose target is to be filled: its stretches, and how to make the target."""

    stretches: Sequence[Inline]
    write: Callable[[Sequence[str]], None]
    """Translations of the stretches → the target."""


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
            segment.write([next(remaining) for _ in segment.stretches])
        return document.write()


def open_xliff(data: bytes, source: str, target: str, max_unit_chars: int) -> XliffFile:
    """An XLIFF file. Raises FileError if it is for other languages."""
    return XliffFile(data, source, target)


def _segments(root: Element, source: str, target: str) -> Iterator[Segment]:
    if local_name(root) != "xliff":
        raise FileError("the file is not XLIFF: its root is not <xliff>; give it the name it had")
    if root.get("version", "1.2").startswith("2"):
        _check_languages(root, "srcLang", "trgLang", source, target)
        return _segments_of_2(root, target)
    for file in root.iterchildren("{*}file"):
        _check_languages(file, "source-language", "target-language", source, target)
    return _segments_of_1(root, target)


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
    return not text_of(target).strip() and not len(target)


def _segments_of_1(root: Element, target: str) -> Iterator[Segment]:
    ns = namespace(root)
    for unit in root.iterdescendants(f"{ns}trans-unit"):
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
        marks = [mark for mark in holder.iterdescendants(f"{ns}mrk") if mark.get("mtype") == "seg"]
        places = marks or [holder]
        found = [(at, read_inline(place, _classify_1)) for at, place in enumerate(places)]
        found = [(at, inline) for at, inline in found if inline.translatable]
        if not found:
            continue

        def write(
            translations: Sequence[str],
            holder: Element = holder,
            former: Element | None = former,
            found: Sequence[tuple[int, Inline]] = found,
            marked: bool = bool(marks),
        ) -> None:
            new = _fresh_target(holder, former, ns)
            new.set("state", "needs-review-translation")
            new.set("state-qualifier", "leveraged-mt")
            places = [new]
            if marked:
                _copy_content(holder, new)
                places = [one for one in new.iter(f"{ns}mrk") if one.get("mtype") == "seg"]
            for (at, inline), translation in zip(found, translations, strict=True):
                empty(places[at])
                fill(places[at], inline.translated(translation))
            file = next(holder.iterancestors(f"{ns}file"), None)
            if file is not None and not file.get("target-language"):
                file.set("target-language", target)

        yield Segment([inline for _, inline in found], write)


def _segments_of_2(root: Element, target: str) -> Iterator[Segment]:
    ns = namespace(root)
    for segment in root.iterdescendants(f"{ns}segment"):
        source, former = segment.find(f"{ns}source"), segment.find(f"{ns}target")
        if (
            source is None
            or not _to_fill(former, segment.get("state"))
            or _translate_says_no(segment)
        ):
            continue
        inline = read_inline(source, _classify_2)
        if not inline.translatable:
            continue

        def write(
            translations: Sequence[str],
            segment: Element = segment,
            source: Element = source,
            former: Element | None = former,
            inline: Inline = inline,
        ) -> None:
            fill(_fresh_target(source, former, ns), inline.translated(translations[0]))
            segment.set("state", "translated")
            segment.set("subState", "quickstudy:machine")
            if not root.get("trgLang"):
                root.set("trgLang", target)

        yield Segment([inline], write)


def _fresh_target(source: Element, former: Element | None, ns: str) -> Element:
    """The target beside a source, without content."""
    if former is not None:
        empty(former)
        return former
    new = etree.Element(f"{ns}target", nsmap=source.nsmap)
    insert_after(source, new)
    return new


def _copy_content(source: Element, target: Element) -> None:
    target.text = source.text
    for child in source:
        target.append(copy.deepcopy(child))


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
