"""What is struck out: `<del>cold</del>hot`, `colo<del>u</del>r`, `~~old~~ new`.

It is no part of the sentence, which reads on without it. It is translated as a paragraph of its
own, and stays before the word that follows it, or behind the one before it. A word of which a part
is struck out is written twice, since a part of a word cannot be found in its translation:
`<del>colour</del>color`. So are changes that are tracked in Word
(`service/documents/docx_changes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.text.attributes import TakenOut
from service.text.inline import (
    ANCHOR,
    MARK,
    STRUCK,
    Block,
    Escape,
    InlineElement,
    InlineText,
    InlineTextBuilder,
    kept,
)
from service.text.sentences import SPACED, is_balanced, pair_up

SENTENCE_END = re.compile(r"[.!?…](?:\W|\Z)")
TOKEN_BEHIND = re.compile(rf"[^\s{MARK}]*")
TOKEN_BEFORE = re.compile(rf"[^\s{MARK}]*\Z")
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+){0,5}")
BEFORE_WORD, BEHIND_WORD = "\"'“„‘«([¿¡", ".,;:!?…)]\"'”’»"
LOOKAROUND_CHARS = 60
SPACES = " \t"
JOINTS = frozenset("-‐‑/_")
"""Beside these, what is struck out is a part of a word."""
INSERTED = "ins"
WITHIN = "within"
"""Name of tags of what is struck out within something that is."""
ENDING = 2
"""Letters of the longest ending of a word: `dog<del>s</del>`, not `hot<del>cold</del>`."""
MAX_PART = 40
"""Letters of the longest part of a word that is read, so that any input takes linear time."""


def without_struck(inline: InlineText, escape: Escape, taken: TakenOut | None) -> InlineText:
    """The text with what is struck out in the tags of the words beside it. It is `taken` out to be
    translated; without it, or where it ends a sentence or has no letter, it is left in its place.
    """
    if not any(element.name in STRUCK for element in inline.elements):
        return inline
    inline = _with_whole_changes(inline)
    if taken is None:
        return inline
    partners = pair_up(inline)
    stretches = _stretches(inline, partners)
    if not stretches or not _has_letter_besides(inline, stretches):
        return inline
    builder, done, at = InlineTextBuilder(), 0, 0
    while at < len(stretches):
        start, end = stretches[at]
        output = _written(inline.cut(start, end), escape, taken)
        at += 1
        while at < len(stretches) and not inline.text[end : stretches[at][0]].strip(SPACES):
            output += inline.text[end : stretches[at][0]]
            output += _written(inline.cut(*stretches[at]), escape, taken)
            end = stretches[at][1]
            at += 1
        struck = InlineElement(inline.cut(start, end).raw(), "point", output)
        done = _add_beside_word(builder, inline, partners, struck, (start, end), done)
    builder.add_inline(inline.cut(done, len(inline.text)))
    return builder.build()


Stretch = tuple[int, int]
"""Where it starts and ends in a text, its tags counted."""


def _stretches(inline: InlineText, partners: Mapping[int, int]) -> list[Stretch]:
    """What is struck out within sentences, in order, with tags that have nothing else in them."""
    found: list[Stretch] = []
    for place, element in zip(inline.places, inline.elements, strict=True):
        if element.kind != "open" or element.name not in STRUCK or place not in partners:
            continue
        if found and place < found[-1][1]:
            continue
        start, end = place, partners[place] + 1
        inside = inline.cut(start + 1, end - 1)
        if not inside.has_letter() or not is_balanced(inside) or SENTENCE_END.search(inside.text):
            continue
        while start and partners.get(start - 1) == end:
            start, end = start - 1, end + 1
        if _is_beside_word(inline.text, start, end):
            found.append((start, end))
    return found


def _is_beside_word(text: str, start: int, end: int) -> bool:
    """Whether a sentence reads on without what is struck out: no mark of it is alone then."""
    if text[start - 1 : start] in JOINTS or text[end : end + 1] in JOINTS:
        return False
    before = text[max(0, start - LOOKAROUND_CHARS) : start].rstrip()[-1:]
    after = text[end : end + LOOKAROUND_CHARS].lstrip()[:1]
    return any(character.isalnum() or character == MARK for character in before + after)


def _has_letter_besides(inline: InlineText, stretches: Sequence[Stretch]) -> bool:
    ends = [0, *(place for stretch in stretches for place in stretch), len(inline.text)]
    return any(
        inline.cut(start, end).has_letter()
        for start, end in zip(ends[::2], ends[1::2], strict=True)
    )


def _written(stretch: InlineText, escape: Escape, taken: TakenOut) -> str:
    """What is written for it: its tags, and a number in the place of what is in them."""
    depth = 1
    while stretch.elements[depth - 1].name not in STRUCK:
        depth += 1
    inside = stretch.cut(depth, len(stretch.text) - depth)
    elements = [
        replace(element, name=WITHIN) if element.name in STRUCK else element
        for element in inside.elements
    ]
    number = taken.add(Block(replace(inside, elements=elements), escape))
    before, after = stretch.cut(0, depth), stretch.cut(len(stretch.text) - depth, len(stretch.text))
    return before.output() + number + after.output()


def _add_beside_word(
    builder: InlineTextBuilder,
    inline: InlineText,
    partners: Mapping[int, int],
    struck: InlineElement,
    stretch: Stretch,
    done: int,
) -> int:
    """Add a text from `done` on up to what is struck out of it, in a tag of a word beside it: of
    the one before if it touches that alone, else of the one behind. Returns up to where."""
    start, end = stretch
    text = inline.text
    word_end = start - _spaces(text[max(done, start - LOOKAROUND_CHARS) : start][::-1])
    word_start = _beginning_of_word(inline, word_end, done, partners)
    next_start = end + _spaces(text[end : end + LOOKAROUND_CHARS])
    next_end = _end_of_word(inline, next_start, partners)
    touches_last = word_start < word_end == start and next_start > end
    if next_start < next_end and not touches_last:
        builder.add_inline(inline.cut(done, start))
        first = inline.element_at(next_start)
        space = text[end:next_start]
        if first is not None and first.kind == "open":
            raw, output = struck.raw + space + first.raw, struck.output + space + first.output
            builder.add_element(replace(first, raw=raw, output=output))
            return next_start + 1
        raw, output = struck.raw + space, struck.output + space
        builder.add_element(InlineElement(raw, "open", output, "", ANCHOR))
        builder.add_inline(inline.cut(next_start, next_end))
        builder.add_element(kept("", "close", name=ANCHOR))
        return next_end
    if word_start < word_end:
        last = inline.element_at(word_end - 1)
        space = text[word_end:start]
        if last is not None and last.kind == "close":
            builder.add_inline(inline.cut(done, word_end - 1))
            raw, output = last.raw + space + struck.raw, last.output + space + struck.output
            builder.add_element(replace(last, raw=raw, output=output))
            return end
        builder.add_inline(inline.cut(done, word_start))
        builder.add_element(kept("", "open", name=ANCHOR))
        builder.add_inline(inline.cut(word_start, word_end))
        raw, output = space + struck.raw, space + struck.output
        builder.add_element(InlineElement(raw, "close", output, "", ANCHOR))
        return end
    builder.add_inline(inline.cut(done, start))
    builder.add_element(struck)
    return end


def _spaces(text: str) -> int:
    return len(text) - len(text.lstrip(SPACES))


def _end_of_word(inline: InlineText, start: int, partners: Mapping[int, int]) -> int:
    """Where a word ends that starts at a place, or the tag there; the place if there is neither."""
    element = inline.element_at(start)
    if element is not None and element.kind == "open":
        return start + 1 if start in partners else start
    token = TOKEN_BEHIND.match(inline.text, start, start + LOOKAROUND_CHARS)
    word = token[0].rstrip(BEHIND_WORD) if token else ""
    return start + len(word) if _is_word(word) else start


def _beginning_of_word(
    inline: InlineText, end: int, earliest: int, partners: Mapping[int, int]
) -> int:
    """The same of what ends at a place."""
    element = inline.element_at(end - 1) if end > earliest else None
    if element is not None and element.kind == "close":
        return end - 1 if end - 1 in partners else end
    token = TOKEN_BEFORE.search(inline.text, max(earliest, end - LOOKAROUND_CHARS), end)
    word = token[0].lstrip(BEFORE_WORD) if token else ""
    return end - len(word) if _is_word(word) else end


def _is_word(text: str) -> bool:
    return WORD.fullmatch(text) is not None and max(text) < SPACED


def _with_whole_changes(inline: InlineText) -> InlineText:
    """The text with words that are struck out in part written as the old and the new one."""
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
