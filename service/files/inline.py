"""Text with codes in it (formatting, images, fields) ↔ the HTML that the translator gets of it.

A code is a tag with a number; what it stands for waits here. The translator keeps such tags and
puts them round the words that correspond; see `service/text/html.py` for what each name means to
it: `span` is a stretch within a sentence, `bx` has no width, `x` is a word if spaces are around it,
`ph` a word that stays, `br` the end of a line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.files.unit import Unit
from service.text.html import tokenize

ID = re.compile(r'\sid="(\d{1,9})"')
HARD_SPACES = {ord(space): f"&#{ord(space)};" for space in "\u00a0\u202f\u2009"}
"""Spaces that the translator keeps in HTML only."""
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
EventKind = Literal["text", "open", "close", "point"]


@dataclass(frozen=True, slots=True)
class Event:
    """Text, an end of a stretch, or something without text; `code` is what the reader of the file
    gave for it."""

    kind: EventKind
    text: str = ""
    code: Any = None


class Inline:
    """Collects the text and the codes of a paragraph, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._parts: list[str] = []
        self._numbers: list[tuple[EventKind, int]] = []
        self._codes: list[Any] = []
        self._ends: dict[int, Any] = {}
        self._open: list[int] = []

    def text(self, text: str) -> None:
        """Add text as a reader sees it."""
        if text:
            self.events.append(Event("text", text))
            self._parts.append(html.escape(text, quote=False).translate(HARD_SPACES))

    def lines(self, text: str) -> None:
        """Add text whose line breaks count; each is a code of its own, the break itself."""
        for at, line in enumerate(text.split("\n")):
            if at:
                self.line("\n")
            self.text(line)

    def open(self, code: Any) -> None:
        """Begin a stretch."""
        number = self._add("open", code)
        self._open.append(number)
        self._parts.append(f'<span id="{number}">')

    def close(self, code: Any = None) -> None:
        """End the stretch that was begun last; its code is that of the beginning, if not given."""
        number = self._open.pop()
        self._numbers.append(("close", number))
        self._ends[number] = self._codes[number] if code is None else code
        self.events.append(Event("close", code=self._ends[number]))
        self._parts.append("</span>")

    def point(self, code: Any) -> None:
        """Add something that is no part of the sentence: an anchor, an image."""
        self._parts.append(f'<bx id="{self._add("point", code)}"/>')

    def placeholder(self, code: Any) -> None:
        """Add something that stands for a word if spaces are around it."""
        self._parts.append(f'<x id="{self._add("point", code)}"/>')

    def word(self, code: Any, shown: str) -> None:
        """Add something that stands for a word, and is kept: a field."""
        shown = html.escape(shown, quote=False)
        self._parts.append(f'<ph id="{self._add("point", code)}">{shown}</ph>')

    def line(self, code: Any) -> None:
        """Add a break of the line or a tab: sentences end here."""
        self._parts.append(f'<br id="{self._add("point", code)}"/>')

    def _add(self, kind: EventKind, code: Any) -> int:
        number = len(self._codes)
        self._codes.append(code)
        self._numbers.append((kind, number))
        self.events.append(Event(kind, code=code))
        return number

    @property
    def shown(self) -> str:
        """The text without codes."""
        return "".join(event.text for event in self.events)

    @property
    def translatable(self) -> bool:
        """Whether there is a letter in the text."""
        return any(map(str.isalpha, self.shown))

    @property
    def unit(self) -> Unit:
        """What the translator gets: HTML where there is anything but text and line breaks."""
        text = "".join(event.code if event.code == "\n" else event.text for event in self.events)
        if any(code != "\n" for code in self._codes) or not HARD_SPACES.keys().isdisjoint(
            map(ord, text)
        ):
            return Unit("".join(self._parts), "html")
        return Unit(text, "text")

    def translated(self, translation: str) -> Sequence[Event]:
        """The events of a translation of `unit`.

        If it lacks a code, has one twice or crosses two, its text stands where the first text was,
        and all codes stay in their places.
        """
        unit = self.unit
        if translation == unit.text:
            return self.events
        if unit.format == "text":
            return [Event("text", without_controls(translation))]
        parsed = _parse(translation)
        if not _complete(parsed, self._numbers):
            return self._all_at_first("".join(item for item in parsed if isinstance(item, str)))
        return [
            Event("text", item)
            if isinstance(item, str)
            else Event(item[0], code=(self._ends if item[0] == "close" else self._codes)[item[1]])
            for item in parsed
        ]

    def _all_at_first(self, text: str) -> list[Event]:
        events: list[Event] = []
        for event in self.events:
            if event.kind != "text":
                events.append(event)
            elif text:
                events.append(Event("text", text))
                text = ""
        return events


Parsed = str | tuple[EventKind, int]


def _parse(translation: str) -> list[Parsed]:
    """Text and numbered codes of what the translator gave; other tags are left out."""
    parsed: list[Parsed] = []
    waiting: list[int] = []
    word = False
    for token in tokenize(translation):
        found = ID.search(token.raw)
        if token.kind == "text" and not word:
            parsed.append(without_controls(html.unescape(token.raw)))
        elif token.name == "ph":
            word = token.kind == "open"
            if word and found:
                parsed.append(("point", int(found[1])))
        elif token.kind == "open" and found:
            waiting.append(int(found[1]))
            parsed.append(("open", waiting[-1]))
        elif token.kind == "close":
            parsed.append(("close", waiting.pop() if waiting else -1))
        elif token.kind == "void" and found:
            parsed.append(("point", int(found[1])))
    return parsed


def _complete(parsed: Sequence[Parsed], numbers: Sequence[tuple[EventKind, int]]) -> bool:
    """Whether each code is there once, as it was."""
    return sorted(item for item in parsed if not isinstance(item, str)) == sorted(numbers)


def without_controls(text: str) -> str:
    """Text without what XML cannot hold."""
    return NOT_XML.sub("", text)
