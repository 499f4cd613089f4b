"""Texts → sentences a model can translate, and back, losing nothing in between.

A text is cut into parts that together are the text (in Unicode's NFC): sentences to translate, and
everything else (blank lines, spaces around sentences, lines without a letter) to keep as it is.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import sentencex

from service.text.abbreviations import ends_sentence
from service.text.inline import LINE_END, InlineElement, InlineText

LINE_BREAK = re.compile("(\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])")
BARS = re.compile(r"(?<=\s)\|(?=\s)")
TABS_AND_BARS = re.compile(r"\s*\t\s*|(?<=\s)\|(?=\s)")
# Where a sentence that is too long may be cut, best first: after a clause, a comma, a word.
CUTS = (
    re.compile(r"(?<=[;:!?…。！？；：—–])\s*(?=\S)"),
    re.compile(r"(?<=[,、，)\]])\s+(?=\S)"),
    re.compile(r"\s+(?=\S)"),
)
AFTER_ELLIPSIS = re.compile(r"…[\"'”’»)\]]{0,3}\s++(?=[\"'“„«(¿¡]{0,3}[A-ZÀ-ÖØ-ÞΑ-ΩА-Я])")
"""A new sentence after `…`, which `sentencex` sees after `...` alone."""
MIDDLE = (0.15, 0.85)
"""Where in a sentence a cut must fall, as a share of its length."""
CHARS_PER_TOKEN = 32
"""A sentence of more characters a token than this is cut before its tokens are counted."""
MAX_AT_ONCE = 20_000
"""Characters whose sentences are looked for at once, so that any input takes linear time."""
SENTENCE_MARKS = (".", "!", "?", "…")
SPACED = "\u0e00"
"""Scripts before this code point put spaces between words."""
STANDS_FOR_WORD = "Boston"
"""What the sentence splitter sees of something protected."""

TooLong = Callable[[InlineText], bool]


@dataclass(frozen=True)
class SentencePart:
    """A stretch of a text: a sentence to translate, or something to keep."""

    text: str
    translate: bool


def split_text(
    text: str, language: str, count_tokens: Callable[[str], int], max_tokens: int
) -> list[SentencePart]:
    """Cut a text into parts; `"".join(part.text for part in parts)` is its NFC.

    A part to translate has at most `max_tokens` tokens: what is longer is cut after a clause, a
    comma or a word near its middle, or between letters where nothing else is left.
    """

    def too_long(core: InlineText) -> bool:
        return len(core.text) > CHARS_PER_TOKEN * max_tokens or count_tokens(core.text) > max_tokens

    parts: list[SentencePart] = []
    for position, line in enumerate(LINE_BREAK.split(unicodedata.normalize("NFC", text))):
        if position % 2:
            parts.append(SentencePart(line, False))
            continue
        for inline, translate in split_inline(InlineText(line), language, too_long):
            parts.append(SentencePart(inline.text, translate))
    return [part for part in parts if part.text]


def join_parts(parts: Sequence[SentencePart], translations: Sequence[str]) -> str:
    """Put the translations, in order, in the places of the parts to translate.

    Raises ValueError if there are more or fewer translations than such parts.
    """
    wanted = sum(part.translate for part in parts)
    if wanted != len(translations):
        raise ValueError(f"{len(translations)} translations for {wanted} sentences")
    remaining = iter(translations)
    return "".join(next(remaining) if part.translate else part.text for part in parts)


def split_inline(
    inline: InlineText,
    language: str,
    too_long: TooLong,
    *,
    split: bool = True,
    tabs: bool = False,
) -> Iterator[tuple[InlineText, bool]]:
    """Cut a paragraph into stretches, each to translate or not, adding up to it.

    What is to be translated starts and ends with something that is part of a sentence; it is cut
    until it is not `too_long`. Without `split`, sentences stay together. Labels that `|` parts are
    translated by themselves; with `tabs`, so is what a tab parts.
    """
    has_cells = "|" in inline.text or (tabs and "\t" in inline.text)
    has_breaks = any(element.name == LINE_END for element in inline.elements)
    cells: Iterable[InlineText] = (inline,)
    if has_cells or has_breaks:
        cells = _cells(inline, TABS_AND_BARS if tabs else BARS)
    for cell in cells:
        for window in _windows(cell):
            for sentence in _sentences(window, language) if split else (window,):
                yield from _cut(sentence, too_long)


def _cells(inline: InlineText, separators: re.Pattern[str]) -> Iterator[InlineText]:
    """What is between separators or breaks, and these."""
    spans = [match.span() for match in separators.finditer(inline.text)]
    spans += [
        (place, place + 1)
        for place, element in zip(inline.places, inline.elements, strict=True)
        if element.name == LINE_END
    ]
    start = 0
    for first, end in sorted(spans):
        yield inline.cut(start, first)
        yield inline.cut(first, end)
        start = end
    yield inline.cut(start, len(inline.text))


def _windows(inline: InlineText) -> Iterator[InlineText]:
    """Stretches of at most MAX_AT_ONCE characters, cut at a space where there is one."""
    start, length = 0, len(inline.text)
    while length - start > MAX_AT_ONCE:
        space = inline.text.rfind(" ", start + MAX_AT_ONCE // 2, start + MAX_AT_ONCE)
        end = space + 1 if space >= 0 else start + MAX_AT_ONCE
        yield inline.cut(start, end)
        start = end
    if start < length:
        yield inline.cut(start, length)


def _sentences(inline: InlineText, language: str) -> Iterator[InlineText]:
    """Sentences, in order, adding up to the text."""
    reading, ends, starts, widths = _reading(inline)
    start = 0
    for read in _sentence_ends(reading, language):
        part = bisect_left(ends, read)
        within = read - (ends[part - 1] if part else 0)
        end = _after_ends(inline, starts[part] + min(within, widths[part]))
        if end > start:
            yield inline.cut(start, end)
            start = end
    yield inline.cut(start, len(inline.text))


def _sentence_ends(reading: str, language: str) -> list[int]:
    """Where sentences end within a text, in order, the spaces after them counted."""
    sentences = [] if reading.isspace() else list(sentencex.segment(language, reading))
    ends = {match.end() for match in AFTER_ELLIPSIS.finditer(reading)} if "…" in reading else set()
    if len(sentences) > 1 and "".join(sentences) == reading:
        found = accumulate(map(len, sentences[:-1]))
        ends |= {end for end in found if ends_sentence(reading, end, language)}
    return sorted(ends)


def _reading(inline: InlineText) -> tuple[str, list[int], list[int], list[int]]:
    """The text without what has no width; where its parts end; where in `inline.text` they start
    and how wide they are there."""
    if not inline.elements:
        length = len(inline.text)
        return inline.text, [length], [0], [length]
    read: list[str] = []
    ends: list[int] = []
    starts: list[int] = []
    widths: list[int] = []
    place = end = 0
    for part in inline:
        if isinstance(part, str):
            shown, width = part, len(part)
        else:
            is_end = part.parts_words and read and read[-1].endswith(SENTENCE_MARKS)
            shown, width = " " if is_end else reads(part), 1
        if shown:
            end += len(shown)
            read.append(shown)
            ends.append(end)
            starts.append(place)
            widths.append(width)
        place += width
    return "".join(read), ends, starts, widths


def reads(element: InlineElement) -> str:
    """What the sentence splitter sees of an element."""
    if element.has_no_width:
        return ""
    return STANDS_FOR_WORD if element.stands_for_word else element.shown


def _after_ends(inline: InlineText, place: int) -> int:
    """The place after the ends of tags there."""
    while (element := inline.element_at(place)) is not None and element.kind == "close":
        place += 1
    return place


def _cut(sentence: InlineText, too_long: TooLong) -> Iterator[tuple[InlineText, bool]]:
    start, end = edges(sentence)
    if start:
        yield sentence.cut(0, start), False
    core = sentence.cut(start, end)
    if not core.has_letter():
        yield core, False
    elif len(core.text) == 1 or not too_long(core):
        yield core, True
    else:
        place = _cutting_place(core.text)
        yield from _cut(core.cut(0, place), too_long)
        yield from _cut(core.cut(place, len(core.text)), too_long)
    if end < len(sentence.text):
        yield sentence.cut(end, len(sentence.text)), False


def edges(inline: InlineText) -> tuple[int, int]:
    """Where the sentence itself starts and ends, without spaces and tags around it."""
    text = inline.text
    start, end = 0, len(text)
    if not inline.elements:
        start = end - len(text.lstrip())
        return start, max(start, len(text.rstrip()))
    partners = pair_up(inline)
    while start < end:
        first, last = inline.element_at(start), inline.element_at(end - 1)
        if text[start].isspace() or _outside(first, start, partners):
            start += 1
        elif text[end - 1].isspace() or _outside(last, end - 1, partners):
            end -= 1
        elif first and first.kind == "open" and partners[start] == end - 1:
            start, end = start + 1, end - 1
        elif _is_label(text[end - 2 : end], last) or _is_label(text[end - 3 : end - 1], last):
            end -= 1
        else:
            break
    return start, end


def _is_label(before: str, last: InlineElement | None) -> bool:
    """Whether a sentence ends with something protected after a colon."""
    return last is not None and last.stands_for_word and before[:1] == ":"


def _outside(element: InlineElement | None, place: int, partners: dict[int, int]) -> bool:
    """Whether an element at the edge of a sentence can be left out of it."""
    if element is None or not element.has_no_width:
        return False
    return element.kind == "point" or place not in partners


def pair_up(inline: InlineText) -> dict[int, int]:
    """Places of `open` and `close` that belong together, each → the other."""
    waiting: dict[str, list[int]] = {}
    partners: dict[int, int] = {}
    for place, element in zip(inline.places, inline.elements, strict=True):
        if element.kind == "open":
            waiting.setdefault(element.name, []).append(place)
        elif element.kind == "close" and waiting.get(element.name):
            partner = waiting[element.name].pop()
            partners[partner], partners[place] = place, partner
    return partners


def is_balanced(inline: InlineText) -> bool:
    """Whether every tag has its partner."""
    depth = 0
    for element in inline.elements:
        depth += {"open": 1, "close": -1}.get(element.kind, 0)
        if depth < 0:
            return False
    return depth == 0


def _cutting_place(sentence: str) -> int:
    """Where to cut a sentence of two or more characters: the best place nearest its middle."""
    middle = len(sentence) / 2
    low, high = (share * len(sentence) for share in MIDDLE)
    for pattern in CUTS:
        places = [match.start() for match in pattern.finditer(sentence)]
        places = [place for place in places if low <= place <= high]
        if places:
            return min(places, key=lambda place: abs(place - middle))
    return _between_letters(sentence, len(sentence) // 2)


def _between_letters(sentence: str, place: int) -> int:
    """The first place from there on that does not part a letter from its combining marks."""
    moved = place
    while moved < len(sentence) and _joins(sentence[moved - 1], sentence[moved]):
        moved += 1
    return moved if moved < len(sentence) else place


def _joins(left: str, right: str) -> bool:
    joiner = "\u200d"
    return bool(unicodedata.combining(right)) or joiner in (left, right)
