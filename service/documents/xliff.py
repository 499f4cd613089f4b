"""XLIFF 1.2 and 2.x: `<target>` of each segment that is not translated yet, or of each that is not
approved where it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lxml import etree

from service.documents.base import (
    NOT_TRANSLATED,
    TOO_LONG,
    Event,
    FileError,
    OpenFile,
    Unit,
    UnitWarning,
    check_count,
)
from service.documents.messages import CHOICE_LEFT, Message, message_of
from service.documents.xml import (
    SUB_LEFT,
    Classify,
    Code,
    Element,
    base_language,
    empty,
    fill,
    has_sub,
    insert_after,
    local_name,
    namespace,
    outermost,
    read_inline,
    read_xml,
)

REPLACED = ("needs-translation",)
"""States by which a file asks for another target."""
COPIES = ("new", "initial")
"""States of a target that may be a copy of its source, which is replaced."""
SIGNED_OFF = ("final", "signed-off")
"""States of a target that a person has approved."""
APPROVED = "it is approved; take the approval away to have it translated anew"
IN_CHARACTERS = ("char", "character", "codepoint", "glyph")
ITS_TRANSLATE = "{http://www.w3.org/2005/11/its}translate"


@dataclass(frozen=True)
class Segment1:
    """A segment of XLIFF 1.2. `holder` is its source, or that in parts; `places` are the numbers
    of those of its marks that the messages are, none if there are no marks. `kept` are what marks
    have been given by a person, `empty` the marks that stay empty, by number."""

    place: str
    holder: Element
    former: Element | None
    messages: Sequence[Message] = ()
    places: Sequence[int] = ()
    kept: Mapping[int, Element] = field(default_factory=dict)
    empty: Sequence[int] = ()
    left: Sequence[str] = ()

    def write(
        self, written: Sequence[Sequence[Event]], target: str, *, is_whole: bool = True
    ) -> None:
        if not written:
            return
        kept = {place: copy.deepcopy(mark) for place, mark in self.kept.items()}
        new = _fresh_target(self.holder, self.former)
        for claim in ("state-qualifier", "phase-name"):
            new.attrib.pop(claim, None)
        is_whole = is_whole and not self.empty
        new.set("state", "needs-review-translation" if is_whole else "needs-translation")
        if not kept and is_whole:
            new.set("state-qualifier", "leveraged-mt")
        filled = [new]
        if self.places:
            new.text = self.holder.text
            new.extend(copy.deepcopy(child) for child in self.holder)
            marks = _marks(new)
            filled = [marks[place] for place in self.places]
            for place in self.empty:
                empty(marks[place])
            for place, mark in kept.items():
                empty(marks[place])
                marks[place].text = mark.text
                marks[place].extend(mark)
        for element, events in zip(filled, written, strict=True):
            empty(element)
            fill(element, events)
        file = next(self.holder.iterancestors(f"{namespace(new)}file"), None)
        if file is not None and not file.get("target-language"):
            file.set("target-language", target)


@dataclass(frozen=True)
class Segment2:
    """A segment of XLIFF 2."""

    place: str
    element: Element
    source: Element
    former: Element | None
    messages: Sequence[Message] = ()
    left: Sequence[str] = ()

    def write(
        self, written: Sequence[Sequence[Event]], target: str, *, is_whole: bool = True
    ) -> None:
        if not written:
            return
        fill(_fresh_target(self.source, self.former), written[0])
        self.element.set("state", "translated" if is_whole else "initial")
        self.element.set("subState", "quickstudy:machine")
        root = self.element.getroottree().getroot()
        if not root.get("trgLang"):
            root.set("trgLang", target)


class XliffFile(OpenFile):
    """An XLIFF file; its units are its segments that have no translation, or all that are not
    approved, to `replace` what there is."""

    def __init__(self, data: bytes, source: str, target: str, replace: bool) -> None:
        self.data, self.source, self.target, self.replace = data, source, target, replace
        inlines = [
            (segment.place, inline)
            for segment in _segments(read_xml(data).root, source, target, replace)
            for message in segment.messages
            for inline in message.inlines
        ]
        self.units: Sequence[Unit] = [inline.unit for _, inline in inlines]
        self.places = [place for place, _ in inlines]

    def warnings(self, translations: Sequence[str]) -> Sequence[UnitWarning]:
        found = []
        for segment, written in self._written(read_xml(self.data).root, translations):
            found += [UnitWarning(segment.place, NOT_TRANSLATED, reason) for reason in segment.left]
            holder = segment.holder if isinstance(segment, Segment1) else segment.source
            if written and (reason := _too_long(holder, written)):
                found.append(UnitWarning(segment.place, TOO_LONG, reason))
        return found

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        document = read_xml(self.data)
        place = 0
        for segment, written in list(self._written(document.root, translations)):
            following = place + sum(len(message.inlines) for message in segment.messages)
            is_whole = not any(at in self.incomplete for at in range(place, following))
            segment.write(written, self.target, is_whole=is_whole)
            place = following
        return document.write()

    def _written(
        self, root: Element, translations: Sequence[str]
    ) -> Iterator[tuple[Segment1 | Segment2, list[list[Event]]]]:
        """Each segment with the translations of its messages."""
        remaining = iter(translations)
        for segment in _segments(root, self.source, self.target, self.replace):
            yield (
                segment,
                [
                    message.events([next(remaining) for _ in message.inlines])
                    for message in segment.messages
                ],
            )


def open_xliff(
    data: bytes, source: str, target: str, max_unit_chars: int, replace: bool = False
) -> XliffFile:
    """An XLIFF file. Raises FileError if it is for other languages."""
    return XliffFile(data, source, target, replace)


def _segments(
    root: Element, source: str, target: str, replace: bool
) -> Iterator[Segment1 | Segment2]:
    if local_name(root) != "xliff":
        raise FileError("the file is not XLIFF: its root is not <xliff>; give it the name it had")
    if root.get("version", "1.2").startswith("2"):
        _check_languages(root, "srcLang", "trgLang", source, target)
        return _segments_of_2(root, replace)
    for file in root.iterchildren("{*}file"):
        _check_languages(file, "source-language", "target-language", source, target)
    return _segments_of_1(root, replace)


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


def _is_filled(target: Element | None, classify: Classify) -> bool:
    """Whether there is text in a target, not only codes and marks."""
    return target is not None and bool(_shown(target, classify))


def _shown(element: Element, classify: Classify) -> str:
    inline = read_inline(element, classify)
    words = (event.text or event.shown for event in inline.events)
    return " ".join("".join(words).split())


def _why_left(
    unit: Element,
    source: Element,
    target: Element | None,
    state: str | None,
    classify: Classify,
    replace: bool,
) -> str | None:
    """Why a segment is not translated: empty where it has a translation, None if it is to be."""
    is_approved = unit.get("approved") == "yes"
    if not _is_filled(target, classify):
        return "it is approved, with an empty target" if is_approved else None
    if replace:
        return APPROVED if is_approved or state in SIGNED_OFF else None
    if is_approved or state not in REPLACED + COPIES:
        return ""
    if state in REPLACED or _shown(target, classify) == _shown(source, classify):
        return None
    return (
        f"its state is {state!r}, but its target is no copy of its source; empty the target to "
        "have it translated"
    )


def _segments_of_1(root: Element, replace: bool) -> Iterator[Segment1]:
    ns = namespace(root)
    for unit in outermost(root, f"{ns}trans-unit"):
        source, former = unit.find(f"{ns}source"), unit.find(f"{ns}target")
        if source is None or _translate_says_no(unit):
            continue
        place = unit.get("resname") or unit.get("id", "")
        parted = unit.find(f"{ns}seg-source")
        holder = source if parted is None else parted
        marks = _marks(holder)
        in_target = _marks(former) if former is not None else []
        if marks and in_target and unit.get("approved") != "yes" and not replace:
            yield _partly_filled(place, holder, former, marks, in_target)
            continue
        state = former.get("state") if former is not None else None
        reason = _why_left(unit, source, former, state, _classify_1, replace)
        if reason is None:
            yield _segment_1(place, holder, former, marks, {})
        elif reason and read_inline(source, _classify_1).translatable:
            yield Segment1(place, holder, former, left=[reason])


def _partly_filled(
    place: str, holder: Element, former: Element, marks: list[Element], in_target: list[Element]
) -> Segment1:
    """A segment whose target has marks: those with text stay."""
    state = former.get("state")
    by_id = {mark.get("mid"): mark for mark in in_target}
    kept = {}
    for number, mark in enumerate(marks):
        given = by_id.get(mark.get("mid"))
        if given is None or not _is_filled(given, _classify_1):
            continue
        copied = _shown(given, _classify_1) == _shown(mark, _classify_1)
        if not (copied and state in REPLACED + COPIES):
            kept[number] = given
    segment = _segment_1(place, holder, former, marks, kept)
    if not segment.messages:
        return segment
    parts = set(in_target)
    between = _shown(former, lambda one: Code("point") if one in parts else _classify_1(one))
    foreign = len(by_id) < len(in_target) or not by_id.keys() <= {m.get("mid") for m in marks}
    if kept and (foreign or any(map(str.isalnum, between))):
        reason = "its target has other parts than its source; empty it to have it translated"
        return Segment1(place, holder, former, left=[reason])
    return segment


def _segment_1(
    place: str,
    holder: Element,
    former: Element | None,
    marks: list[Element],
    kept: Mapping[int, Element],
) -> Segment1:
    """A segment with what is to be translated of it."""
    messages, places, unread = [], [], []
    left = []
    for number, element in enumerate(marks or [holder]):
        inline = read_inline(element, _classify_1)
        if number in kept or not inline.translatable:
            continue
        if has_sub(element):
            left.append(SUB_LEFT)
        message = message_of(inline)
        if message is None:
            left.append(CHOICE_LEFT)
            unread.append(number)
        elif message.inlines:
            messages.append(message)
            places.append(number)
    return Segment1(place, holder, former, messages, places if marks else [], kept, unread, left)


def _segments_of_2(root: Element, replace: bool) -> Iterator[Segment2]:
    ns = namespace(root)
    for unit in outermost(root, f"{ns}unit"):
        if _translate_says_no(unit):
            continue
        keeping: set[str] = set()
        for segment in outermost(unit, f"{ns}segment"):
            yield from _segment_2(unit, segment, keeping, replace)


def _segment_2(
    unit: Element, segment: Element, keeping: set[str], replace: bool
) -> Iterator[Segment2]:
    ns = namespace(segment)
    source, former = segment.find(f"{ns}source"), segment.find(f"{ns}target")
    if source is None:
        return
    place = "/".join(filter(None, (unit.get("id"), segment.get("id"))))
    inline = read_inline(source, _classify_2, keeping=keeping)
    state = segment.get("state")
    reason = _why_left(segment, source, former, state, _classify_2, replace)
    if reason == "" or not inline.translatable:
        return
    message = message_of(inline)
    if reason is None and message is not None:
        yield Segment2(place, segment, source, former, [message])
    else:
        yield Segment2(place, segment, source, former, left=[reason or CHOICE_LEFT])


def _too_long(holder: Element, written: Sequence[Sequence[Event]]) -> str | None:
    """What is wrong if a translation is longer than a file allows."""
    text = "".join(event.text or event.shown for events in written for event in events)
    for element in (holder, *holder.iterancestors()):
        if (most := element.get("maxbytes", "")).isdecimal():
            size = len(text.encode())
            return f"{size} bytes, at most {most} are allowed" if size > int(most) else None
        if (most := element.get("maxwidth", "")).isdecimal():
            if element.get("size-unit", "pixel").lower() in IN_CHARACTERS:
                return _over(len(text), int(most))
            original = len("".join(holder.itertext()))
            unit = element.get("size-unit", "pixel")
            if len(text) > original:
                return (
                    f"longer than its source ({len(text)} characters, {original}), and its place "
                    f"has {most} {unit}: look whether it fits"
                )
            return None
        for name, value in element.attrib.items():
            bound = value.rsplit(",", 1)[-1].strip()
            if name.endswith("}sizeRestriction") and bound.isdecimal():
                return _over(len(text), int(bound))
            if name.endswith("}storageRestriction") and bound.isdecimal():
                size = len(text.encode())
                return f"{size} bytes, at most {bound} are allowed" if size > int(bound) else None
    return None


def _over(length: int, most: int) -> str | None:
    return f"{length} characters, at most {most} are allowed" if length > most else None


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
            protected = element.get("mtype") in ("protected", "x-its-translate-no")
            return Code("word" if protected or element.get(ITS_TRANSLATE) == "no" else "around")
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
            kept = element.get("translate") == "no"
            return Code("start", f"mark {element.get('id', '')}", kept)
        case "em":
            return Code("end", f"mark {element.get('startRef', '')}")
        case "ph":
            return Code("line" if element.get("subType") == "xlf:lb" else "placeholder")
    return Code("point")
