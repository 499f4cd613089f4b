"""Edits that put what was protected back into a translation: words in the place of what was sent
for them, tags around their words, symbols between words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.text.alignment import CLAUSE_ENDS, AlignmentPoint, Span, Words
from service.text.clock import TWELVE_HOURS
from service.text.currencies import SIGNS
from service.text.inline import MARK, InlineElement, InlineText
from service.text.placeholders import (
    NUMERAL,
    SentPlaceholder,
    is_symbol,
    numeral_occurrences,
    occurrences,
    protected_words,
)
from service.text.protected import strip_invented_markup
from service.text.sentences import reads

GENITIVE = re.compile("['’]s")
OPENING_MARKS = f"\"'“„‘‚«‹([{{¿¡{SIGNS}#+±~−-"
CLOSING_QUOTES = "\"'“”‘’»›"
CLOSING_MARKS = f".,;:!?…)]}}{CLOSING_QUOTES}%‰°+*{SIGNS}"
SPACED_MARKS = tuple(f"%‰{SIGNS}")
"""What some languages put a space before."""


BEGINNINGS = (
    (re.compile("[–—―-] "), re.compile("[–—―-] ?\\Z")),
    (re.compile(f"[{SIGNS}]"), re.compile(f"(?:\\b[A-Z]{{1,3}} ?)?[{SIGNS}] ?\\Z")),
)
"""What a tagged span may begin with in the source, and what is before its first word then."""


@dataclass(frozen=True)
class Edit:
    """A replacement of `text[start:end]`; `order` decides among edits with the same start."""

    start: int
    end: int
    order: tuple[int, int]
    output: str
    shown: str


def clean(translation: str) -> str:
    return strip_invented_markup(translation).strip()


def replacements_of(
    text: str, core: InlineText, words: Sequence[SentPlaceholder]
) -> list[Edit] | None:
    """Replacements of placeholder words by protected words, if each occurs exactly once."""
    edits: list[Edit] = []
    for element, after, word in zip(protected_words(core), _after_words(core), words, strict=True):
        is_numeral = element.name == NUMERAL
        find = numeral_occurrences if is_numeral else occurrences
        matches = find(word.expected, text)
        if len(matches) != 1:
            return None
        start, end = matches[0].span()
        if is_numeral and element.output[-1:].isalpha() and text[end : end + 1].isalpha():
            return None  # it has its unit with it
        output, shown = element.output, element.term or element.shown
        if is_numeral:
            if element.raw != element.shown and (half := TWELVE_HOURS.match(text, end)):
                end = half.end()  # `18 pm`
            if start == 0 and core.raw()[:1].isupper():
                output, shown = (one[:1].upper() + one[1:] for one in (output, shown))
            edits.append(Edit(start, end, (3, len(edits)), output, shown))
            continue
        genitive = text[end : end + 1] == "s"
        if element.name == "term":
            if start == 0:
                output, shown = _as_first(output, core), _as_first(shown, core)
            end += genitive
        elif genitive and not GENITIVE.match(after):
            return None
        edits.append(Edit(start, end, (3, len(edits)), output, shown))
    return edits


def _after_words(core: InlineText) -> list[str]:
    """What follows each protected word directly."""
    return [
        core.text[place + 1 : place + 3]
        for place, element in zip(core.places, core.elements, strict=True)
        if element.stands_for_word
    ]


def _as_first(term: str, core: InlineText) -> str:
    first = next(
        part for part in core if not (isinstance(part, InlineElement) and part.has_no_width)
    )
    begins = first if isinstance(first, str) else first.shown
    return term[:1].upper() + term[1:] if begins[:1].isupper() else term


def tag_edits(core: InlineText, root: Span, output: Words) -> list[Edit]:
    """Opening tags before their first word, closing tags after their last, well nested."""
    edits: list[Edit] = []

    def place(span: Span, depth: int) -> tuple[int, int]:
        start = output.spans[span.first][0] if span.first < len(output) else len(output.text)
        end = output.spans[span.end - 1][1] if span.end else 0
        for child in span.children:
            child_start, child_end = place(child, depth + 1)
            start, end = min(start, child_start), max(end, child_end)
        inside = "".join(
            part if isinstance(part, str) else reads(part) for part in core.cut(*span.stretch)
        )
        if span.opening:
            start = _before_opening_marks(inside, output.text, start)
            edits.append(Edit(start, start, (2, depth), span.opening.output, ""))
            if span.opening.parts_words and _touches_word(core, span.stretch[0] - 2, -1):
                edits.extend(_without_space(output.text, start - 1))
        if span.closing:
            end = _after_closing_marks(inside, output.text, end)
            edits.append(Edit(end, end, (0, -depth), span.closing.output, ""))
            if span.closing.parts_words and _touches_word(core, span.stretch[1] + 1, 1):
                edits.extend(_without_space(output.text, end))
        return start, end

    place(root, 0)
    return edits


def _touches_word(core: InlineText, place: int, step: int) -> bool:
    """Whether a word or an amount is at a place of a source, or behind the tags there."""
    while (element := core.element_at(place)) is not None and element.kind in ("open", "close"):
        place += step
    if element is not None and element.has_no_width:
        return False
    return place >= 0 and _is_of_word(core.text[place : place + 1])


def _is_of_word(character: str) -> bool:
    return character.isalnum() or (character != "" and character in SIGNS + MARK)


def _without_space(text: str, place: int) -> list[Edit]:
    """What takes away the space at a place, if it is one between two words."""
    if not 0 < place < len(text) - 1 or text[place] != " ":
        return []
    is_between = _is_of_word(text[place - 1]) and _is_of_word(text[place + 1])
    return [Edit(place, place + 1, (1, -1), "", "")] if is_between else []


def _before_opening_marks(inside: str, text: str, start: int) -> int:
    """Where a span begins whose first word is at `start`: before as many opening marks as it has in
    the source, if nothing but a space or a bracket is before them; before the dash or the sign of a
    currency that it begins with there."""
    for begins, ends in BEGINNINGS:
        if begins.match(inside) and (mark := ends.search(text, max(0, start - 9), start)):
            return mark.start()
    count = len(inside) - len(inside.lstrip(OPENING_MARKS))
    place = start
    while count and place and text[place - 1] in OPENING_MARKS:
        place, count = place - 1, count - 1
    before = text[place - 1 : place]
    return place if not before or before.isspace() or before in "([{“„«" else start


def _after_closing_marks(inside: str, text: str, end: int) -> int:
    """Where a span ends whose last word ends at `end`: after the marks that end it in the
    source."""
    marks = inside[len(inside.rstrip(CLOSING_MARKS)) :].replace("…", "...…")
    allowed = set(marks) | (set(CLOSING_QUOTES) if set(marks) & set(CLOSING_QUOTES) else set())
    count = len(marks)
    while count and text[end : end + 1]:
        gap = text[end].isspace() and text[end + 1 : end + 2] in SPACED_MARKS
        if text[end + gap : end + gap + 1] not in allowed:
            break
        end, count = end + gap + 1, count - 1
    return end


def point_edit(point: AlignmentPoint, word: int, order: int, output: Words) -> Edit:
    """A symbol at a boundary between words, with the spaces that it has in the source."""
    element, text = point.element, output.text
    before = output.spans[word - 1][1] if word else 0
    after = output.spans[word][0] if word < len(output) else len(text)
    if point.marks and (place := text.find(point.marks, before, after)) >= 0:
        return Edit(place + 1, place + 1, (1, order), element.output, element.shown)
    if element.kind == "space" and point.is_after_word and text[before : before + 1].isspace():
        return Edit(before, before + 1, (1, order), element.output, element.shown)
    if element.kind == "space":
        start = before if text[before:after].isspace() else after
        return Edit(start, after, (1, order), element.output, element.shown)
    if point.is_before_mark:
        gap = text[before : before + 1].isspace() and text[before + 1 : before + 2] in CLAUSE_ENDS
        start = before + gap
        space = " " if point.spaces[0] and not gap else ""
        return Edit(start, start, (1, order), space + element.output, space + element.shown)
    match point.spaces:
        case (True, True):
            ends = (" ", "") if word == len(output) else ("", " ")
            return Edit(after, after, (1, order), element.output.join(ends), element.shown)
        case (False, True):
            return Edit(before, before, (1, order), element.output, element.shown)
        case (False, False) if is_symbol(element) and text[before:after].isspace():
            return Edit(before, after, (1, order), element.output, element.shown)
    return Edit(after, after, (1, order), element.output, element.shown)
