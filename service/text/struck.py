"""What is struck out beside a word, or within one: `<del>cold</del>hot`, `colo<del>u</del>r`.

A stretch that is struck out is a word of its own where it touches another one on one side. A word
of which a part is struck out is written twice, the old one struck out, since a part of a word
cannot be found in its translation: `<del>colour</del>color`. Changes that are tracked in Word are
read likewise (`service/documents/docx_changes.py`).
"""

from __future__ import annotations

from service.text.inline import STRUCK, InlineText, InlineTextBuilder
from service.text.sentences import SPACED, pair_up

INSERTED = "ins"
ENDING = 2
"""Letters of the longest ending of a word: `dog<del>s</del>`, not `hot<del>cold</del>`."""
MAX_PART = 40
"""Letters of the longest part of a word that is read, so that any input takes linear time."""


def with_whole_changes(inline: InlineText) -> InlineText:
    """The text with words that are struck out in part written as the old and the new one."""
    if not any(element.name in STRUCK for element in inline.elements):
        return inline
    partners = pair_up(inline)
    builder, done = InlineTextBuilder(), 0
    for place, element in zip(inline.places, inline.elements, strict=True):
        if element.kind != "open" or element.name not in STRUCK or place not in partners:
            continue
        old = (place, partners[place])
        new = _insertion_beside(inline, old, partners)
        first, last = min(old[0], new[0] if new else place), max(old[1], new[1] if new else 0)
        if first < done or not _are_letters(inline, old) or (new and not _are_letters(inline, new)):
            continue
        start, end = _letters_before(inline.text, first, done), _letters_after(inline.text, last)
        head, tail = inline.cut(start, first), inline.cut(last + 1, end)
        if not _is_within_word(len(head.text), old, new, len(tail.text)):
            continue
        builder.add_inline(inline.cut(done, start))
        for change in sorted((old, new)) if new else (old,):
            builder.add_inline(inline.cut(change[0], change[0] + 1))
            for part in (head, inline.cut(change[0] + 1, change[1]), tail):
                builder.add_inline(part)
            builder.add_inline(inline.cut(change[1], change[1] + 1))
        if not new:
            builder.add_inline(head)
            builder.add_inline(tail)
        done = end
    if done == 0:
        return inline
    builder.add_inline(inline.cut(done, len(inline.text)))
    return builder.build()


Change = tuple[int, int]
"""Places of its two tags."""


def _insertion_beside(inline: InlineText, old: Change, partners: dict[int, int]) -> Change | None:
    """What was inserted for what is struck out, directly before or after it."""
    for place in (old[0] - 1, old[1] + 1):
        element = inline.element_at(place)
        if element is not None and element.name == INSERTED and place in partners:
            first, last = sorted((place, partners[place]))
            if (first == place) == (place > old[0]):
                return first, last
    return None


def _are_letters(inline: InlineText, change: Change) -> bool:
    inside = inline.text[change[0] + 1 : change[1]]
    return len(inside) <= MAX_PART and inside.isalpha()


def _letters_before(text: str, place: int, earliest: int) -> int:
    start = place
    while start > max(earliest, place - MAX_PART) and _is_letter(text[start - 1]):
        start -= 1
    return start


def _letters_after(text: str, place: int) -> int:
    end = place + 1
    while end < min(len(text), place + MAX_PART) and _is_letter(text[end]):
        end += 1
    return end


def _is_letter(character: str) -> bool:
    return character.isalpha() and character < SPACED


def _is_within_word(head: int, old: Change, new: Change | None, tail: int) -> bool:
    """Whether the change is one of a part of a word, by the letters before and after it."""
    if head and tail:
        return True
    removed = old[1] - old[0] - 1
    inserted = new[1] - new[0] - 1 if new else 0
    if head:
        return removed <= ENDING + (new is not None) and inserted <= ENDING + 1
    return bool(tail and new) and max(removed, inserted) <= ENDING
