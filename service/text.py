"""Texts → sentences a model can translate, and back, losing nothing in between.

A text is cut into parts that together are the text (in Unicode's NFC): sentences to translate, and
everything else (blank lines, spaces around sentences, lines without a letter) to keep as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sentencex

LINE_BREAK = re.compile("(\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])")
EDGES = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)
# Where a sentence that is too long may be cut, best first: after a clause, a comma, a word.
CUTS = (
    re.compile(r"(?<=[;:!?…。！？；：—–])\s*(?=\S)"),
    re.compile(r"(?<=[,、，)\]])\s+(?=\S)"),
    re.compile(r"\s+(?=\S)"),
)
MIDDLE = (0.15, 0.85)
"""Where in a sentence a cut must fall, as a share of its length."""


@dataclass(frozen=True)
class Part:
    """A stretch of a text: a sentence to translate, or something to keep."""

    text: str
    translate: bool


def split_text(
    text: str, language: str, count_tokens: Callable[[str], int], max_tokens: int
) -> list[Part]:
    """Cut a text into parts; `"".join(part.text for part in parts)` is its NFC.

    A part to translate has at most `max_tokens` tokens: what is longer is cut after a clause, a
    comma or a word near its middle, or between letters where nothing else is left.
    """
    parts: list[Part] = []
    for position, line in enumerate(LINE_BREAK.split(unicodedata.normalize("NFC", text))):
        if position % 2:
            parts.append(Part(line, False))
            continue
        for sentence in _sentences(line, language):
            parts.extend(_cut(sentence, count_tokens, max_tokens))
    return [part for part in parts if part.text]


def join_parts(parts: Sequence[Part], translations: Sequence[str]) -> str:
    """Put the translations, in order, in the places of the parts to translate.

    Raises ValueError if there are more or fewer translations than such parts.
    """
    wanted = sum(part.translate for part in parts)
    if wanted != len(translations):
        raise ValueError(f"{len(translations)} translations for {wanted} sentences")
    remaining = iter(translations)
    return "".join(next(remaining) if part.translate else part.text for part in parts)


def _sentences(line: str, language: str) -> Iterator[str]:
    """Sentences of a line, in order, adding up to the line."""
    if not line or line.isspace():
        yield line
        return
    sentences = list(sentencex.segment(language, line))
    yield from sentences if "".join(sentences) == line else [line]


def _cut(sentence: str, count_tokens: Callable[[str], int], max_tokens: int) -> Iterator[Part]:
    match = EDGES.fullmatch(sentence)
    assert match is not None
    before, core, after = match.groups()
    yield Part(before, False)
    if not any(character.isalpha() for character in core):
        yield Part(core, False)
    elif len(core) == 1 or count_tokens(core) <= max_tokens:
        yield Part(core, True)
    else:
        place = _cutting_place(core)
        yield from _cut(core[:place], count_tokens, max_tokens)
        yield from _cut(core[place:], count_tokens, max_tokens)
    yield Part(after, False)


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
