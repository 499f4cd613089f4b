"""Pieces of a sentence: cut out of it, and what tells whether their translations are usable."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from service.text.inline import InlineElement, InlineText
from service.text.placeholders import SentPlaceholder, protected_words
from service.text.sentences import edges

MARKS_BEFORE = re.compile(r"[,;:.!?…]+\s+")


def count_words(text: str) -> int:
    """Words of a text; a percent sign counts as one."""
    return sum(
        any(map(str.isalnum, word)) or word == "%" for word in text.replace("%", " %").split()
    )


def repeats(text: str) -> bool:
    """Whether a word follows itself."""
    return any(left == right for left, right in pairwise(text.casefold().split()))


def trimmed(
    inline: InlineText, words: Sequence[SentPlaceholder]
) -> tuple[InlineText, InlineText, Sequence[SentPlaceholder], InlineText]:
    """What is before a part's sentence, the sentence, its protected words, what is after it. A mark
    that ends what was before the part (`, you have`) is before its sentence."""
    start, end = edges(inline)
    if (mark := MARKS_BEFORE.match(inline.text, start, end)) and mark.end() < end:
        start = mark.end()
    before, core = inline.cut(0, start), inline.cut(start, end)
    first = len(protected_words(before))
    inside = words[first : first + len(protected_words(core))]
    return before, core, inside, inline.cut(end, len(inline.text))


def without_spaces(core: InlineText) -> str:
    """A sentence's text with plain spaces for those that are elements and come back as such."""
    text = core.text
    if not core.elements:
        return text
    for place, element in zip(core.places, core.elements, strict=True):
        if element.kind == "space":
            text = f"{text[:place]} {text[place + 1 :]}"
    return text


def is_mark(element: InlineElement) -> bool:
    return element.has_no_width


def is_protected_word(element: InlineElement) -> bool:
    return element.stands_for_word


def split_at(inline: InlineText, at: Callable[[InlineElement], bool]) -> list[InlineText]:
    """Cut before and after some elements; the parts add up."""
    places = [
        place for place, element in zip(inline.places, inline.elements, strict=True) if at(element)
    ]
    cuts = sorted({0, len(inline.text), *places, *(place + 1 for place in places)})
    return [inline.cut(start, end) for start, end in pairwise(cuts)]


def runs_on(source: str, translation: str) -> bool:
    """Whether the translation of a part repeats itself or is far too long."""
    return repeats(translation) or len(translation.split()) > 2 * len(source.split()) + 2


def like(source: str, translation: str, whole: str) -> str:
    """The translation of a part without the capital letter that a sentence would have."""
    first = re.match(r"\w+", translation)
    if first and source[:1].islower() and re.search(rf"\b{first[0].lower()}\b", whole):
        return first[0].lower() + translation[first.end() :]
    return translation
