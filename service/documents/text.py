"""Plain text, Markdown and HTML files, cut into pieces that can be translated one by one.

A piece of markup is cut where it reads in itself as it does in the whole; the pieces add up to the
text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from service.documents.base import MAX_UNIT_CHARS, Encoding, OpenFile, Unit, check_count, decode
from service.text.document import READERS, Format
from service.text.inline import Block

PLACES = (
    re.compile(r"(?:\r\n?|\n)[ \t]*(?:\r\n?|\n)+"),
    re.compile(r"\r\n?|[\n\x85\u2028\u2029]"),
    re.compile(r"[.!?…]['\"”’»)]*\s+|[。！？]"),
    re.compile(r"\s"),
)
"""After which plain text may be cut, best first: a blank line, a line, a sentence, a space."""
MAX_SMALLER = 4
"""Shorter pieces that are tried where markup would be read otherwise in pieces."""


def cut_up(text: str, format: Format, max_chars: int) -> list[str]:
    """Cut a text into pieces of at most `max_chars` characters, in linear time.

    Markup is cut where each piece is read as it is in the whole, at best; a piece is longer where
    there is no such place, or where what cannot be cut is.
    """
    if len(text) <= max_chars:
        return [text] if text else []
    return _cut_text(text, max_chars) if format == "text" else _cut_markup(text, format, max_chars)


def _cut_text(text: str, max_chars: int) -> list[str]:
    pieces = []
    start = 0
    while len(text) - start > max_chars:
        end = _cutting_place(text, start, start + max_chars)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _cutting_place(text: str, start: int, end: int) -> int:
    """The last of the best places in the second half of a stretch."""
    for pattern in PLACES:
        places = [match.end() for match in pattern.finditer(text, (start + end + 1) // 2, end)]
        if places:
            end = places[-1]
            break
    while end < len(text) and (
        text[end - 1 : end + 1] == "\r\n" or unicodedata.combining(text[end]) > 0
    ):
        end += 1
    return end


MAX_MARKUP = 20_000
"""A longer piece of markup is cut although it is read otherwise then: a link is not known for one,
or a tag has its end in another piece. All of it is kept in any case."""
Item = str | Block
"""What a reader of markup gives."""


def _cut_markup(text: str, format: Format, max_chars: int) -> list[str]:
    read = READERS[format]
    items = list(read(text))
    sources = [item if isinstance(item, str) else item.inline.raw() for item in items]
    if "".join(sources) != text:
        return [text]
    ends = list(accumulate(map(len, sources)))
    stops = [
        stop
        for stop, end in enumerate(ends, 1)
        if stop == len(items) or format == "html" or _begins_anew(text, end)
    ]
    places = [ends[stop - 1] for stop in stops]
    pieces = []
    at = start = 0
    while start < len(text):
        for choice in _choices(places, start, max_chars):
            stop, end = stops[choice], places[choice]
            piece = text[start:end]
            if _merged(read(piece)) == _merged(items[at:stop]):
                break
        else:
            choice = _last_within(places, start, MAX_MARKUP)
            stop, end = stops[choice], places[choice]
            piece = text[start:end]
        pieces.append(piece)
        at, start = stop, end
    return pieces


def _begins_anew(text: str, place: int) -> bool:
    """Whether a line of Markdown begins that is not indented, after a blank one."""
    if text[place - 1 : place] != "\n" or text[place : place + 1].isspace():
        return False
    return not text[text.rfind("\n", 0, place - 1) + 1 : place].strip()


def _choices(places: Sequence[int], start: int, max_chars: int) -> Iterator[int]:
    """Which of the places a piece may end at, best first: the last that is near enough, some before
    it, then ones twice as far each."""
    first = bisect_right(places, start)
    fitting = _last_within(places, start, max_chars)
    yield from range(fitting, max(first, fitting - MAX_SMALLER + 1) - 1, -1)
    while max_chars < MAX_MARKUP:
        max_chars = min(2 * max_chars, MAX_MARKUP)
        farther = _last_within(places, start, max_chars)
        if farther > fitting:
            yield farther
            fitting = farther


def _last_within(places: Sequence[int], start: int, max_chars: int) -> int:
    """The last place that is near enough, or the first one of all."""
    return max(bisect_right(places, start), bisect_right(places, start + max_chars) - 1)


def has_words(piece: str, format: Format) -> bool:
    """Whether there is a letter in a piece of markup outside of what is kept."""
    return any(
        isinstance(item, Block) and item.inline.has_letter() for item in READERS[format](piece)
    )


def _merged(items: Iterable[Item]) -> list[Item]:
    """Items, with what is kept and stands side by side in one."""
    merged: list[Item] = []
    for item in items:
        if isinstance(item, str) and merged and isinstance(merged[-1], str):
            merged[-1] += item
        elif item != "":
            merged.append(item)
    return merged


CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?\scharset\s{0,9}=\s{0,9}["']?([\w-]{1,40})""", re.IGNORECASE
)
CHARSET_WITHIN = 4096
"""Bytes from the start within which HTML names its encoding."""
BROWSERS_READ_AS_1252 = re.compile(r"(?:us-)?ascii|latin-?1|iso-?8859-?1", re.IGNORECASE)


class TextFile(OpenFile):
    """A text in pieces, those with a letter to be translated."""

    def __init__(self, text: str, encoding: Encoding, format: Format, max_chars: int) -> None:
        self.encoding, self.format = encoding, format
        self.pieces = cut_up(text, format, max_chars)
        self.translated = [
            at
            for at, piece in enumerate(self.pieces)
            if any(map(str.isalpha, piece))
            and (len(piece) <= MAX_UNIT_CHARS or has_words(piece, format))
        ]
        self.units: Sequence[Unit] = [Unit(self.pieces[at], format) for at in self.translated]
        ends = list(accumulate(piece.count("\n") for piece in self.pieces))
        self.places = [_lines(self.pieces[at], ends[at]) for at in self.translated]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        pieces = list(self.pieces)
        for at, translation in zip(self.translated, translations, strict=True):
            pieces[at] = translation
        return self.encoding.encode("".join(pieces), references=self.format == "html")


def _lines(piece: str, end: int) -> str:
    """Which lines of the file a piece takes; `end` is how many breaks there are up to its end."""
    following = piece.lstrip("\r\n")
    first = end - following.count("\n") + 1
    last = first + following.rstrip("\r\n").count("\n")
    return f"line {first}" if first == last else f"lines {first}–{last}"


def open_txt(data: bytes, source: str, target: str, max_unit_chars: int) -> TextFile:
    """Plain text; each line is a paragraph."""
    return TextFile(*decode(data, source), "text", max_unit_chars)


def open_markdown(data: bytes, source: str, target: str, max_unit_chars: int) -> TextFile:
    """Markdown."""
    return TextFile(*decode(data, source), "markdown", max_unit_chars)


def open_html(data: bytes, source: str, target: str, max_unit_chars: int) -> TextFile:
    """HTML; what its encoding has not is written as `&#…;`."""
    found = CHARSET.search(data[:CHARSET_WITHIN])
    declared = found[1].decode("ascii") if found else None
    if declared and BROWSERS_READ_AS_1252.fullmatch(declared):
        declared = "windows-1252"
    return TextFile(*decode(data, source, declared), "html", max_unit_chars)
