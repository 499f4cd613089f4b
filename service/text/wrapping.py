"""Paragraphs of several lines: their translations get lines again.

A break between sentences stays there, so a text of one sentence a line stays one. The lines of a
sentence part where the source's do in proportion, after the same mark at best; where one would be
too long, all are filled up to the width of the source.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.text.inline import InlineElement, InlineText
from service.text.patterns import PROTECTED, may_be_protected

SPACE = re.compile(r"(?<!\s) (?!\s)")
CLAUSE_MARKS = ",;:)—–"
SAME_MARK_CHARS = 12
"""How much farther a break may be for the mark that it has before it in the source."""
SHORT_LINE = 72
LONGER = 1.5
"""Lines of a translation may be so many times as long as the source's, if they are short."""


NEAR = 5
"""Spaces on each side of where a line would end in proportion, of which one is chosen."""
LOOKAHEAD_CHARS = 200
"""By how much of a text it is told whether a line may begin with it."""

WantedBreak = tuple[float, str, InlineElement]
"""Where a line should end, the mark that is before it in the source, and what is written there."""


@dataclass(frozen=True)
class Wrapping:
    """How a paragraph's lines may be parted. Functions are those of its format."""

    width: int
    """Characters of its longest line."""
    read: Callable[[str], InlineText]
    """Source → text with inline elements, within which no line is parted."""
    may_begin: Callable[[str], bool]
    """Whether a line of a paragraph may begin with a text, which means nothing else then."""

    def wrapped(self, parts: Sequence[tuple[str, InlineText | None]]) -> str:
        """What is written of a paragraph, in lines. `parts` are translations with their sources,
        and what is kept, without one."""
        written: list[str] = []
        line: list[tuple[str, InlineText | None]] = []
        for text, source in parts:
            if source is None and is_break(text):
                written += (self._in_lines(line), text)
                line = []
            else:
                line.append((text, source))
        return "".join((*written, self._in_lines(line)))

    def _in_lines(self, parts: Sequence[tuple[str, InlineText | None]]) -> str:
        """What is between two breaks that stay, in lines again if it was in lines."""
        text = "".join(part for part, _ in parts)
        wanted: list[WantedBreak] = []
        start = 0
        for part, source in parts:
            if source is not None:
                own = [
                    (start + share * len(part), mark, element)
                    for share, mark, element in _breaks_within(source)
                ]
                ends = [start + place for place in _ends_of_lines(part)]
                wanted += _without_kept(own, ends, _kept_breaks(source))
            start += len(part)
        if not wanted:
            return text
        places = list(self._places(text))
        chosen = _nearest(text, places, wanted)
        ends = list(_ends_of_lines(text))
        longest = max(self.width, min(SHORT_LINE, LONGER * self.width))
        if any(end - first > longest for first, end in _lines(sorted((*chosen, *ends)), len(text))):
            chosen = [
                first + place
                for first, end in _lines(ends, len(text))
                for place in filled(
                    [place - first for place in places if first <= place < end],
                    end - first,
                    self.width,
                )
            ]
        pieces: list[str] = []
        done = 0
        for index, place in enumerate(chosen):
            gap = wanted[min(index, len(wanted) - 1)][2]
            pieces += (text[done:place], gap.raw)
            done = place + 1
        return "".join((*pieces, text[done:]))

    def _places(self, text: str) -> Iterator[int]:
        """The spaces at which a line may be parted."""
        spans = PROTECTED.finditer(text) if may_be_protected(text) else ()
        kept = {place for match in spans for place in range(*match.span())}
        place = 0
        for part in self.read(text):
            if isinstance(part, str):
                spaces = (place + match.start() for match in SPACE.finditer(part))
                yield from (at for at in spaces if at not in kept and self._may_part(text, at))
                place += len(part)
            else:
                place += len(part.raw)

    def _may_part(self, text: str, at: int) -> bool:
        return 0 < at < len(text) - 1 and self.may_begin(text[at + 1 : at + LOOKAHEAD_CHARS])


def is_break(text: str) -> bool:
    """Whether a line ends within a text."""
    return "\n" in text or "\r" in text


def _breaks_within(source: InlineText) -> Iterator[WantedBreak]:
    """Where lines end within a sentence, as a share of its length, with the mark before each."""
    length = sum(len(part) if isinstance(part, str) else _width(part) for part in source)
    place, last = 0, ""
    for part in source:
        if isinstance(part, str):
            place, last = place + len(part), part[-1]
        else:
            if part.kind == "character" and is_break(part.raw):
                yield place / length, last if last in CLAUSE_MARKS else "", part
            place, last = place + _width(part), part.raw[-1:]


def _kept_breaks(source: InlineText) -> int:
    """How many lines end within what is kept of a sentence (code)."""
    kept = (element.raw for element in source.elements if element.kind != "character")
    return sum(raw.count("\n") for raw in kept)


def _without_kept(wanted: list[WantedBreak], ends: Sequence[int], count: int) -> list[WantedBreak]:
    """The breaks of a sentence that its translation lacks, whose lines have `ends`, `count` of them
    within what is kept: one that was translated in parts has some."""
    for _ in range(min(len(ends) - count, len(wanted))):
        wanted.remove(min(wanted, key=lambda one: min(abs(one[0] - end) for end in ends)))
    return wanted


def _ends_of_lines(text: str) -> Iterator[int]:
    return (place for place, character in enumerate(text) if character == "\n")


def _width(element: InlineElement) -> int:
    is_gap = element.kind == "character" and is_break(element.raw)
    return 1 if is_gap else len(element.raw)


def _nearest(text: str, places: Sequence[int], wanted: Sequence[WantedBreak]) -> list[int]:
    """A place for each break that is wanted, in order; fewer where there are not enough."""
    chosen: list[int] = []
    for target, mark, _ in wanted:
        first = bisect_right(places, chosen[-1]) if chosen else 0
        middle = max(first, bisect_left(places, target))
        near = places[max(first, middle - NEAR) : middle + NEAR]
        if not near:
            break

        def distance(place: int, target: float = target, mark: str = mark) -> float:
            is_same = bool(mark) and text[place - 1] == mark
            return abs(place - target) - (SAME_MARK_CHARS if is_same else 0)

        chosen.append(min(near, key=distance))
    return chosen


def _lines(breaks: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    starts = [0, *(place + 1 for place in breaks)]
    yield from zip(starts, [*breaks, length], strict=True)


def filled(places: Sequence[int], length: int, width: int) -> list[int]:
    """Breaks at the last of the places that each line can reach."""
    breaks: list[int] = []
    start = 0
    for place, following in zip(places, [*places[1:], length], strict=False):
        if following - start > width:
            breaks.append(place)
            start = place + 1
    return breaks
