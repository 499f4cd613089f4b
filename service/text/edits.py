"""Where stand-ins, tags and symbols go in a translation, as edits of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.text.align import AlignmentPoint, Span, Words
from service.text.protect import strip_invented_markup
from service.text.rich import InlineElement, InlineText
from service.text.stand_ins import SentPlaceholder, occurrences, opaque_words

GENITIVE = re.compile("['’]s")


@dataclass(frozen=True)
class Edit:
    """Something that takes the place of `text[start:end]`; `order` decides among equals."""

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
    """Opaque words in the places of their stand-ins, if each is there exactly once."""
    edits: list[Edit] = []
    for special, after, word in zip(opaque_words(core), _after_words(core), words, strict=True):
        matches = occurrences(word.expected, text)
        if len(matches) != 1:
            return None
        start, end = matches[0].span()
        output, shown = special.output, special.shown
        genitive = text[end : end + 1] == "s"
        if special.name == "term":
            shown = special.term
            if start == 0:
                output, shown = _as_first(output, core), _as_first(shown, core)
            end += genitive
        elif genitive and not GENITIVE.match(after):
            return None
        edits.append(Edit(start, end, (3, len(edits)), output, shown))
    return edits


def _after_words(core: InlineText) -> list[str]:
    """What follows each opaque word directly."""
    return [
        core.text[place + 1 : place + 3]
        for place, special in zip(core.places, core.specials, strict=True)
        if special.stands_for_word
    ]


def _as_first(term: str, core: InlineText) -> str:
    first = next(
        part for part in core if not (isinstance(part, InlineElement) and part.has_no_width)
    )
    begins = first if isinstance(first, str) else first.shown
    return term[:1].upper() + term[1:] if begins[:1].isupper() else term


def tag_edits(core: InlineText, root: Span, output: Words) -> list[Edit]:
    """Openings before their first word, endings after their last, well nested."""
    edits: list[Edit] = []

    def place(span: Span, depth: int) -> int:
        end = output.spans[span.end - 1][1] if span.end else 0
        for child in span.children:
            end = max(end, place(child, depth + 1))
        last = core.text[span.stretch[1] - 1]
        if span.closing and last in ".,;:!?" and output.text[end : end + 1] == last:
            end += 1
        if span.opening:
            start = output.spans[span.first][0]
            edits.append(Edit(start, start, (2, depth), span.opening.output, ""))
        if span.closing:
            edits.append(Edit(end, end, (0, -depth), span.closing.output, ""))
        return end

    place(root, 0)
    return edits


def point_edit(point: AlignmentPoint, word: int, order: int, output: Words) -> Edit:
    """A symbol at a boundary between words, with the spaces that it has in the source."""
    special, text = point.special, output.text
    before = output.spans[word - 1][1] if word else 0
    after = output.spans[word][0] if word < len(output) else len(text)
    if special.kind == "space":
        start = before if text[before:after].isspace() else after
        return Edit(start, after, (1, order), special.output, special.shown)
    match point.spaces:
        case (True, True):
            glue = (" ", "") if word == len(output) else ("", " ")
            return Edit(after, after, (1, order), special.output.join(glue), special.shown)
        case (False, True):
            return Edit(before, before, (1, order), special.output, special.shown)
    return Edit(after, after, (1, order), special.output, special.shown)
