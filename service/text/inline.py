"""A stretch of text as a reader sees it, with what the model must not touch as single characters.

Everything special (a tag, a placeholder, an entity) is one character of `Rich.text`; what stood in
the source is kept beside it. So any cut of the text is also a cut of its source.

What a format's reader makes of a document: what is kept, and paragraphs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

MARK = "\ufffc"
"""Stands in `Rich.text` for whatever is special and is not a character."""

Kind = Literal["character", "space", "word", "number", "point", "open", "close"]
"""`character`: written otherwise in the source (`&amp;`); the model sees the character. `space`: a
space that must stay (`&nbsp;`). `word`, `number`: something opaque that plays a part in the
sentence (a URL, `%d`). `point`: something that does not (an emoji, a comment). `open`, `close`:
both ends of a stretch."""


@dataclass(frozen=True, slots=True)
class InlineElement:
    """One special thing: how the source has it, how the output will, what a reader sees."""

    raw: str
    kind: Kind
    output: str = ""
    shown: str = ""
    name: str = ""
    """Pairs an `open` with its `close`."""
    term: str = ""
    """What a glossary has for it, as plain text; `output` is that in the document's format."""

    @property
    def stands_for_word(self) -> bool:
        return self.kind in ("word", "number")

    @property
    def has_no_width(self) -> bool:
        return self.kind in ("point", "open", "close")


def kept(raw: str, kind: Kind, shown: str = "", name: str = "") -> InlineElement:
    """Something that comes out as it stood."""
    return InlineElement(raw, kind, raw, shown, name)


@dataclass(frozen=True, slots=True)
class InlineText:
    """Text with specials; `specials[i]` is at `text[places[i]]`, places rising."""

    text: str
    places: Sequence[int] = ()
    specials: Sequence[InlineElement] = ()

    def cut(self, start: int, end: int) -> InlineText:
        if not self.specials:
            if start == 0 and end == len(self.text):
                return self
            return InlineText(self.text[start:end])
        low, high = bisect_left(self.places, start), bisect_left(self.places, end)
        return InlineText(
            self.text[start:end],
            [place - start for place in self.places[low:high]],
            self.specials[low:high],
        )

    def __iter__(self) -> Iterator[str | InlineElement]:
        """Plain text and specials, in order."""
        start = 0
        for place, special in zip(self.places, self.specials, strict=True):
            if start < place:
                yield self.text[start:place]
            yield special
            start = place + 1
        if start < len(self.text):
            yield self.text[start:]

    def raw(self) -> str:
        """The source of it."""
        if not self.specials:
            return self.text
        return "".join(part if isinstance(part, str) else part.raw for part in self)

    def output(self) -> str:
        """The source of it, with terms of a glossary in their target language."""
        if not self.specials:
            return self.text
        return "".join(part if isinstance(part, str) else part.output for part in self)

    def shown(self) -> str:
        """What a reader sees of it."""
        if not self.specials:
            return self.text
        return "".join(part if isinstance(part, str) else part.shown for part in self)

    def has_letter(self) -> bool:
        """Whether there is a letter outside of what is opaque."""
        return any(map(str.isalpha, self.text))

    def has_special(self) -> bool:
        """Whether there is something that is not a character."""
        return any(special.kind not in ("character", "space") for special in self.specials)

    def special_at(self, place: int) -> InlineElement | None:
        index = bisect_left(self.places, place)
        found = index < len(self.places) and self.places[index] == place
        return self.specials[index] if found else None


class InlineTextBuilder:
    """Collects text and specials into a Rich."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._places: list[int] = []
        self._specials: list[InlineElement] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, text: str) -> None:
        """Add plain text."""
        self._parts.append(text)
        self._length += len(text)

    def add_special(self, special: InlineElement, character: str = MARK) -> None:
        self._places.append(self._length)
        self._specials.append(special)
        self.add(character)

    def add_rich(self, rich: InlineText) -> None:
        if rich.specials:
            self._places.extend(self._length + place for place in rich.places)
            self._specials.extend(rich.specials)
        self.add(rich.text)

    def build(self) -> InlineText:
        """What was collected; the builder is empty then."""
        rich = InlineText("".join(self._parts), self._places, self._specials)
        self.__init__()  # type: ignore[misc]
        return rich


Escape = Callable[[str], str]
"""Plain text → the same in a document's format."""


@dataclass(frozen=True)
class Block:
    """A paragraph, and how plain text is written where it stands."""

    rich: InlineText
    escape: Escape
