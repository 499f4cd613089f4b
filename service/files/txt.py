"""Plain text, Markdown and HTML: pieces of the text, read as such when they are translated."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.files.encoding import Encoding, decode
from service.files.pieces import cut_up, has_words
from service.files.unit import MAX_UNIT_CHARS, Unit, check_count
from service.text import Format

CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?\scharset\s{0,9}=\s{0,9}["']?([\w-]{1,40})""", re.IGNORECASE
)
CHARSET_WITHIN = 4096
"""Bytes from the start within which HTML names its encoding."""
BROWSERS_READ_AS_1252 = re.compile(r"(?:us-)?ascii|latin-?1|iso-?8859-?1", re.IGNORECASE)


class TextFile:
    """A text in pieces, those with a letter to be translated."""

    def __init__(self, text: str, encoding: Encoding, format: Format, max_chars: int) -> None:
        self.encoding, self.format = encoding, format
        self.pieces = cut_up(text, format, max_chars)
        self.places = [
            at
            for at, piece in enumerate(self.pieces)
            if any(map(str.isalpha, piece))
            and (len(piece) <= MAX_UNIT_CHARS or has_words(piece, format))
        ]
        self.units: Sequence[Unit] = [Unit(self.pieces[at], format) for at in self.places]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        pieces = list(self.pieces)
        for at, translation in zip(self.places, translations, strict=True):
            pieces[at] = translation
        return self.encoding.encode("".join(pieces), references=self.format == "html")


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
