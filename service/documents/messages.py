"""Messages of programs: text with inline codes, or ICU MessageFormat with branches.

`{n, plural, one {# dog} other {# dogs}}` is translated branch by branch. Text around a choice goes
into its branches, because a part of a sentence is not translated as the whole is. Syntax:
https://unicode-org.github.io/icu/userguide/format_parse/messages/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from service.documents.base import MAX_UNIT_CHARS, Event, Inline

CHOICE = re.compile(
    r"\{\s{0,20}[\w.-]{1,100}\s{0,20},\s{0,20}(plural|select|selectordinal)\s{0,20},"
    r"\s{0,200}(?:offset:\s{0,20}\d{1,9}\s{0,200})?"
)
SELECTOR = re.compile(r"\s{0,200}(?:=\d{1,9}|[\w-]{1,100})\s{0,200}\{")
END = re.compile(r"\s{0,200}\}")
CODE = "\ufffc"
"""Stands for a code while braces are looked for."""
CHOICE_LEFT = (
    "it has ICU choices that are not translated branch by branch: write one choice, with whole "
    "sentences in its branches"
)
MAX_BRANCHES = 64
MAX_DEPTH = 8

Range = tuple[int, int]


class _NotReadError(Exception):
    """A choice that is not translated."""


@dataclass(frozen=True)
class Message:
    """Parts of a message: events that are kept, and texts to translate."""

    parts: Sequence[Event | Inline]
    is_icu: bool = False
    doubles: bool = False
    """Whether each apostrophe is written twice, as Java's MessageFormat needs."""

    @property
    def inlines(self) -> list[Inline]:
        """The texts to translate."""
        return [part for part in self.parts if isinstance(part, Inline) and part.translatable]

    def events(self, translations: Sequence[str]) -> list[Event]:
        """The message with translations of its texts."""
        remaining = iter(translations)
        events: list[Event] = []
        for part in self.parts:
            if isinstance(part, Event):
                events.append(part)
            else:
                inner = part.events
                if part.translatable:
                    inner = list(part.translated(next(remaining)))
                events += map(self._quoted, inner) if self.is_icu else inner
        return events

    def _quoted(self, event: Event) -> Event:
        """Text whose apostrophes do not begin a quote."""
        if event.kind != "text" or "'" not in event.text:
            return event
        found = r"'" if self.doubles else r"'(?=[{}#|']|\Z)"
        return replace(event, text=re.sub(found, "''", event.text))


def message_of(inline: Inline) -> Message | None:
    """A paragraph as a message; None where it has a choice that is not translated: more than one
    beside each other, quoted braces, or codes around it."""
    text = "".join(event.text if event.kind == "text" else CODE for event in inline.events)
    if len(text) > MAX_UNIT_CHARS or CHOICE.search(text) is None:
        return Message([inline])
    try:
        parts = list(_Choices(text, inline.events).parts())
    except _NotReadError:
        return None
    return Message(parts, is_icu=True, doubles="''" in text)


class _Choices:
    """Finds the branches of a message, from its text with `CODE` for each code."""

    def __init__(self, text: str, events: Sequence[Event]) -> None:
        if re.search(r"'[{}#|]", text):
            raise _NotReadError
        self._text = text
        self._code_at: dict[int, Event] = {}
        place = 0
        for event in events:
            if event.kind == "text":
                place += len(event.text)
            else:
                self._code_at[place] = event
                place += 1
        self._branches = 0

    def parts(self) -> Iterator[Event | Inline]:
        yield from self._message([], (0, len(self._text)), [], False, 0)

    def _message(
        self,
        before: list[Range],
        within: Range,
        after: list[Range],
        is_plural: bool,
        depth: int,
    ) -> Iterator[Event | Inline]:
        """A message with the text of the messages around it. Raises _NotReadError."""
        start, stop = within
        choices = list(self._choices(start, stop))
        if not choices:
            yield self._leaf([*before, within, *after], is_plural)
            return
        if len(choices) > 1 or depth == MAX_DEPTH:
            raise _NotReadError
        (choice,) = choices
        branches, end = self._branches_of(choice.end(), stop)
        before = [*before, (start, choice.start())]
        after = [(end, stop), *after]
        around = "".join(self._text[a:b] for a, b in (*before, *after))
        plural = choice[1] != "select"
        is_alone = not any(map(str.isalnum, around))
        if is_alone:
            yield from self._events(before)
            inner_before, inner_after = [], []
        elif CODE in around or (plural and "#" in around):
            raise _NotReadError
        else:
            inner_before, inner_after = before, after
        place = choice.start()
        for branch in branches:
            yield Event("text", self._text[place : branch[0]])
            yield from self._message(
                inner_before, branch, inner_after, plural or is_plural, depth + 1
            )
            place = branch[1]
        yield Event("text", self._text[place:end])
        if is_alone:
            yield from self._events(after)

    def _branches_of(self, place: int, stop: int) -> tuple[list[Range], int]:
        """What is in the braces of a choice's branches, and where the choice ends."""
        branches: list[Range] = []
        while selector := SELECTOR.match(self._text, place, stop):
            self._branches += 1
            end = self._closing(selector.end(), stop)
            branches.append((selector.end(), end))
            place = end + 1
        closed = END.match(self._text, place, stop)
        if closed is None or not branches or self._branches > MAX_BRANCHES:
            raise _NotReadError
        return branches, closed.end()

    def _choices(self, start: int, stop: int) -> Iterator[re.Match[str]]:
        """The choices that are in no other braces."""
        depth, place = 0, start
        for match in CHOICE.finditer(self._text, start, stop):
            depth += self._text.count("{", place, match.start())
            depth -= self._text.count("}", place, match.start())
            place = match.start()
            if depth == 0:
                yield match

    def _closing(self, start: int, stop: int) -> int:
        depth = 1
        for brace in re.compile("[{}]").finditer(self._text, start, stop):
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                return brace.start()
        raise _NotReadError

    def _events(self, ranges: Sequence[Range]) -> Iterator[Event]:
        """Text and codes as they are."""
        for start, stop in ranges:
            for piece in re.finditer(f"{CODE}|[^{CODE}]+", self._text[start:stop]):
                yield self._code_at.get(start + piece.start()) or Event("text", piece[0])

    def _leaf(self, ranges: Sequence[Range], is_plural: bool) -> Inline:
        inline = Inline()
        depth = 0
        for start, stop in ranges:
            for piece in re.finditer(f"{CODE}|[^{CODE}]+", self._text[start:stop]):
                code = self._code_at.get(start + piece.start())
                if code is None:
                    self._add_text(inline, piece[0], is_plural)
                    continue
                depth += {"open": 1, "close": -1}.get(code.kind, 0)
                if depth < 0:
                    raise _NotReadError
                inline.add(code)
        if depth:
            raise _NotReadError
        return inline

    @staticmethod
    def _add_text(inline: Inline, text: str, is_plural: bool) -> None:
        text = text.replace("''", "'")
        if not is_plural:
            inline.lines(text)
            return
        for number, part in enumerate(re.split("(#)", text)):
            if number % 2:
                inline.word("#", "#")
            else:
                inline.lines(part)
