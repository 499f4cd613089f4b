"""Where in a translation the ends of tags and the symbols of its source belong.

A tagged stretch is looked for by its own translation; a symbol goes to the word boundary that
corresponds to its own. Where that is not clear, the answer is None, and the sentence is parted at
its tags instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.text.rich import Rich, Special
from service.text.sentences import pair_up
from service.text.stand_ins import Sent

WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u9fff]+")
ONE_LETTER_WORD = "\u4e00"
ENOUGH = 0.6
"""Similarity from which on a stretch of the translation is a tagged stretch's own."""
FAR = 0.35
"""What a stretch loses in similarity for lying at the other end of the sentence."""
MAX_WORDS = 250
"""Longer sentences are parted at their tags: looking for stretches takes quadratic time."""


@dataclass
class Span:
    """Words `first` up to `end` of a sentence between two tags; one of them may be elsewhere."""

    opening: Special | None
    closing: Special | None
    first: int
    end: int
    stretch: tuple[int, int] = (0, 0)
    """Where it is in the source's `Rich.text`, tags left out."""
    children: list[Span] = field(default_factory=list)


@dataclass(frozen=True)
class Point:
    """Something without width before word `word` of a sentence."""

    special: Special
    word: int
    spaces: tuple[bool, bool]
    """Whether there is a space before and after it in the source."""


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


def has_tags(core: Rich) -> bool:
    return any(special.kind in ("open", "close") for special in core.specials)


def find_spans(core: Rich) -> tuple[Span, list[Point]] | None:
    """The tree of tagged stretches of a sentence, and its symbols. None if stretches overlap."""
    words = [start for start, _ in source_words(core, None).spans]
    partners = pair_up(core)
    root = Span(None, None, 0, len(words), (0, len(core.text)))
    open_spans, points = [root], []
    at = 0
    for place, special in zip(core.places, core.specials, strict=True):
        while at < len(words) and words[at] < place:
            at += 1
        if special.kind in ("point", "space"):
            around = (core.text[:place][-1:].isspace(), core.text[place + 1 :][:1].isspace())
            points.append(Point(special, at, around))
        elif special.kind == "open":
            span = Span(special, None, at, len(words), (place + 1, len(core.text)))
            open_spans[-1].children.append(span)
            open_spans.append(span)
        elif special.kind == "close" and place in partners:
            span = open_spans.pop()
            if span.stretch[0] != partners[place] + 1:
                return None
            span.closing, span.end, span.stretch = special, at, (span.stretch[0], place)
        elif special.kind == "close":
            if len(open_spans) > 1:
                return None
            root.children = [Span(None, special, 0, at, (0, place), root.children)]
    return root, points


def source_words(core: Rich, words_sent: Sequence[Sent] | None) -> Words:
    """Words of a sentence, at their places in it; each opaque one as its stand-in."""
    text = list(core.text)
    opaque = [
        place
        for place, special in zip(core.places, core.specials, strict=True)
        if special.stands_for_word
    ]
    for place in opaque:
        text[place] = ONE_LETTER_WORD
    words = Words.of("".join(text))
    names = {place: sent.expected for place, sent in zip(opaque, words_sent or (), strict=False)}
    return Words(words.text, words.spans, [names.get(start) for start, _ in words.spans])


def locate(
    root: Span, source_words: int, output: Words, own: Mapping[tuple[int, int], str]
) -> bool:
    """Set each span's words to those of the translation; `own` has the translation of each
    stretch by itself. False if one of them is not to be found."""
    if root.children and len(output) > MAX_WORDS:
        return False
    root.first, root.end = 0, len(output)
    return _locate_children(root, max(source_words, 1), output, own)


def _locate_children(
    parent: Span, source_words: int, output: Words, own: Mapping[tuple[int, int], str]
) -> bool:
    taken: list[tuple[int, int]] = []
    for child in parent.children:
        centre = (child.first + child.end) / 2 / source_words
        child_words = Words.of(own.get(child.stretch, ""))
        window = _find(child_words, output, (parent.first, parent.end), taken, centre)
        if window is None:
            return False
        if (child.closing is None and window[1] != parent.end) or (
            child.opening is None and window[0] != parent.first
        ):
            return False
        child.first, child.end = window
        taken.append(window)
    parent.children.sort(key=lambda child: child.first)
    return all(_locate_children(child, source_words, output, own) for child in parent.children)


def _find(
    stretch: Words,
    output: Words,
    within: tuple[int, int],
    taken: Sequence[tuple[int, int]],
    centre: float,
) -> tuple[int, int] | None:
    """The words of `output` most like a stretch; `centre` is its place in the source, 0 to 1."""
    best, best_score = None, ENOUGH
    wanted = [stretch[index] for index in range(len(stretch))]
    for length in range(max(1, len(wanted) - 1), len(wanted) + 2):
        for first in range(within[0], within[1] - length + 1):
            end = first + length
            if any(first < other_end and other < end for other, other_end in taken):
                continue
            likeness = _likeness(wanted, [output[index] for index in range(first, end)])
            if likeness < ENOUGH:
                continue
            score = likeness + FAR * (0.5 - abs(centre - (first + end) / 2 / len(output)))
            if score > best_score:
                best, best_score = (first, end), score
    return best


def _likeness(wanted: Sequence[str], found: Sequence[str]) -> float:
    """How much two stretches share, 0 to 1; words with the same beginning count in part."""
    left = list(found)
    total = 0.0
    for word in wanted:
        likes = [(_word_likeness(word, other), index) for index, other in enumerate(left)]
        like, index = max(likes, default=(0.0, -1))
        if like:
            total += like
            del left[index]
    return 2 * total / (len(wanted) + len(found)) if wanted else 0.0


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


def boundary(point: Point, source: Words, output: Words) -> int:
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
