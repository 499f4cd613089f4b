"""Where in a translation the ends of tags and the symbols of its source belong.

A tagged span is looked for by its own translation; a symbol goes to the word boundary that
corresponds to its own. Where that is not clear, the answer is None, and the sentence is split at
its tags instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.text.inline import MARK, InlineElement, InlineText
from service.text.placeholders import SentPlaceholder
from service.text.sentences import pair_up

WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u9fff]+")
CLAUSE_ENDS = tuple(".,;:!?…")
MARKS_AROUND = re.compile(r"[^\w\s\ufffc]{2}")
ONE_LETTER_WORD = "\u4e00"
ENOUGH = 0.6
"""The least similarity of a stretch of the translation to a tagged span's own translation."""
FAR = 0.35
"""What a stretch loses in similarity for lying at the other end of the sentence."""
MAX_WORDS = 250
"""Longer sentences are split at their tags: the search takes quadratic time."""


@dataclass
class Span:
    """Words `first` up to `end` of a sentence between two tags; one of them may be elsewhere."""

    opening: InlineElement | None
    closing: InlineElement | None
    first: int
    end: int
    stretch: tuple[int, int] = (0, 0)
    """Where it is in the source's `InlineText.text`, tags left out."""
    children: list[Span] = field(default_factory=list)
    source: tuple[int, int] = (0, 0)
    """`first` and `end` in the source, once they are those of the translation."""


@dataclass(frozen=True)
class AlignmentPoint:
    """Something without width before word `word` of a sentence."""

    element: InlineElement
    word: int
    spaces: tuple[bool, bool]
    """Whether there is a space before and after it in the source."""
    is_before_mark: bool = False
    """Whether punctuation that ends a clause, or a closing bracket, follows it directly."""
    is_after_word: bool = False
    """Whether a word or a tag is directly before it, and no letter or digit directly after it."""
    marks: str = ""
    """The quote or bracket before it and the one after it, if it is alone between them."""


@dataclass(frozen=True)
class Words:
    """The words of a text and where they are in it."""

    text: str
    spans: Sequence[tuple[int, int]]
    instead: Sequence[str | None] = ()
    """What some of the words are called, if not as in the text."""

    @classmethod
    def of(cls, text: str) -> Words:
        return cls(text, [match.span() for match in WORD.finditer(text)])

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> str:
        start, end = self.spans[index]
        if self.instead and (name := self.instead[index]) is not None:
            return name.casefold()
        return self.text[start:end].casefold()


def find_spans(core: InlineText) -> tuple[Span, list[AlignmentPoint]] | None:
    """The tree of a sentence's tagged spans, and its symbols. None if spans overlap."""
    words = [start for start, _ in source_words(core, None).spans]
    partners = pair_up(core)
    root = Span(None, None, 0, len(words), (0, len(core.text)), source=(0, len(words)))
    open_spans, points = [root], []
    at = 0
    for place, element in zip(core.places, core.elements, strict=True):
        while at < len(words) and words[at] < place:
            at += 1
        if element.kind in ("point", "space"):
            around = (core.text[:place][-1:].isspace(), core.text[place + 1 :][:1].isspace())
            is_before_mark = core.text[place + 1 :][:1] in (*CLAUSE_ENDS, ")", "]")
            marks = core.text[max(0, place - 1) : place] + core.text[place + 1 : place + 2]
            marks = marks if len(marks) == 2 and MARKS_AROUND.fullmatch(marks) else ""
            left, right = core.text[place - 1 : place], core.text[place + 1 : place + 2]
            is_after_word = (left.isalnum() or left == MARK) and not right.isalnum()
            points.append(AlignmentPoint(element, at, around, is_before_mark, is_after_word, marks))
        elif element.kind == "open":
            span = Span(element, None, at, len(words), (place + 1, len(core.text)))
            open_spans[-1].children.append(span)
            open_spans.append(span)
        elif element.kind == "close" and place in partners:
            span = open_spans.pop()
            if span.stretch[0] != partners[place] + 1:
                return None
            span.closing, span.end, span.stretch = element, at, (span.stretch[0], place)
        elif element.kind == "close":
            if len(open_spans) > 1:
                return None
            root.children = [Span(None, element, 0, at, (0, place), root.children)]
    return root, points


def source_words(core: InlineText, words_sent: Sequence[SentPlaceholder] | None) -> Words:
    """Words of a sentence, at their places in it; each protected one as its placeholder word."""
    text = list(core.text)
    protected = [
        place
        for place, element in zip(core.places, core.elements, strict=True)
        if element.stands_for_word
    ]
    for place in protected:
        text[place] = ONE_LETTER_WORD
    words = Words.of("".join(text))
    names = {place: sent.expected for place, sent in zip(protected, words_sent or (), strict=False)}
    return Words(words.text, words.spans, [names.get(start) for start, _ in words.spans])


def translation_of(stretch: str, known: Mapping[str, str], output: str) -> str:
    """That of a part of a sentence; the part itself if it has no letter, or stands in the `output`,
    the words of the whole translation, as it is; else empty."""
    if (translation := known.get(stretch)) is not None:
        return translation
    if not any(map(str.isalpha, stretch)) or f" {words_of(stretch)} " in f" {output} ":
        return stretch
    return ""


def words_of(text: str) -> str:
    """The words of a text without what is between them."""
    return " ".join(WORD.findall(text)).casefold()


def locate(
    root: Span, source_length: int, output: Words, own: Mapping[tuple[int, int], str], final: bool
) -> bool:
    """Set each span's words to those of the translation; `own` has the translation of each
    stretch by itself. False if one of them is not to be found; where that is `final`, spans keep
    their order and go where they are in proportion, and False says that there are too few words.
    """
    if root.children and len(output) > MAX_WORDS:
        return False
    root.first, root.end = 0, len(output)
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        waiting += parent.children
        windows = _windows(parent, source_length, output, own)
        if windows is None and final:
            windows = _in_proportion(parent, parent.source)
        if windows is None:
            return False
        for child, window in zip(parent.children, windows, strict=True):
            child.source = (child.first, child.end)
            child.first, child.end = window
    return True


def _windows(
    parent: Span, source_length: int, output: Words, own: Mapping[tuple[int, int], str]
) -> list[tuple[int, int]] | None:
    """Words of the translation for each child, none overlapping; None if one is not found."""
    taken: list[tuple[int, int]] = []
    for child in parent.children:
        centre = (child.first + child.end) / 2 / max(source_length, 1)
        stretch = Words.of(own.get(child.stretch, ""))
        within = (parent.first, parent.end)
        window = _find(stretch, child.end - child.first, output, within, taken, centre)
        if window is None:
            return None
        if child.closing is None:
            window = (window[0], parent.end)
        if child.opening is None:
            window = (parent.first, window[1])
        if any(window[0] < end and first < window[1] for first, end in taken):
            return None
        taken.append(window)
    return taken


def _find(
    stretch: Words,
    source_length: int,
    output: Words,
    within: tuple[int, int],
    taken: Sequence[tuple[int, int]],
    centre: float,
) -> tuple[int, int] | None:
    """The words of `output` most like a stretch of `source_length` words in the source, which is
    at `centre` there, 0 to 1."""
    wanted = [stretch[index] for index in range(len(stretch))]
    if not wanted:
        return None
    first_word, end_word = within
    likes = [
        max(_word_likeness(output[index], word) for word in dict.fromkeys(wanted))
        for index in range(first_word, end_word)
    ]
    longest = max(len(wanted), source_length) + 1
    expected = min(len(wanted), 2 * source_length + 1)
    best, best_score = None, 0.0
    for first in range(first_word, end_word):
        if not likes[first - first_word]:
            continue
        alike = 0.0
        for end in range(first + 1, min(first + longest, end_word) + 1):
            alike += likes[end - 1 - first_word]
            if not likes[end - 1 - first_word]:
                continue
            likeness = 2 * min(alike, expected) / (end - first + expected)
            if likeness < ENOUGH:
                continue
            if any(first < other_end and other < end for other, other_end in taken):
                continue
            score = likeness + FAR * (0.5 - abs(centre - (first + end) / 2 / len(output)))
            if score > best_score:
                best, best_score = (first, end), score
    return best


def _in_proportion(parent: Span, source: tuple[int, int]) -> list[tuple[int, int]] | None:
    """Words for each child as many as there are to spare, in order and in proportion."""
    width = parent.end - parent.first
    if width < len(parent.children):
        return None
    share = width / max(source[1] - source[0], 1)
    windows = []
    earliest = parent.first
    for index, child in enumerate(parent.children):
        latest = parent.end - (len(parent.children) - index - 1)
        first = parent.first + round((child.first - source[0]) * share)
        first = min(max(first, earliest), latest - 1)
        end = parent.first + round((child.end - source[0]) * share)
        end = min(max(end, first + 1), latest)
        end = parent.end if child.closing is None else end
        first = parent.first if child.opening is None else first
        windows.append((first, end))
        earliest = end
    return windows


def _word_likeness(word: str, other: str) -> float:
    if word == other:
        return 1.0
    shared = 0
    for left, right in zip(word, other, strict=False):
        if left != right:
            break
        shared += 1
    longest = max(len(word), len(other))
    return shared / longest if shared >= 2 and shared >= 0.6 * longest else 0.0


def boundary(point: AlignmentPoint, source: Words, output: Words) -> int:
    """The word of the translation before which a symbol goes: after or before the word that it
    stands beside if that was copied, else in proportion."""
    found = [output[index] for index in range(len(output))]
    if point.word > 0 and found.count(source[point.word - 1]) == 1:
        return found.index(source[point.word - 1]) + 1
    if point.word < len(source) and found.count(source[point.word]) == 1:
        return found.index(source[point.word])
    if point.word >= len(source):
        return len(output)
    return round(point.word / len(source) * len(output))
