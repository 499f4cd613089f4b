"""Text with inline markup: what a reader sees, with each inline element as a single character.

An inline element (a tag, a placeholder, an entity) is one character of `InlineText.text`; its
source is kept beside it. So any cut of the text is also a cut of its source. A format's reader
turns a document into kept text and `Block`s, its paragraphs.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from service.text.wrapping import Wrapping

MARK = "\ufffc"
"""Stands in `InlineText.text` for an element that is not a character."""

STRUCK = ("del", "s", "strike", "~~")
"""Names of tags around what is no longer part of a text."""
BASE, ANCHOR = "rb", "anchor"
"""Names of tags around a word: one that has an annotation, and one, without a source, beside which
something struck out stays."""
LINE_END = "break"
"""Name of an element that ends a line, and the sentence with it."""

Kind = Literal["character", "space", "word", "number", "point", "open", "close"]
"""`character`: written otherwise in the source (`&amp;`); the model sees the character. `space`: a
space that must stay (`&nbsp;`). `word`, `number`: a protected span that is a word of the sentence
(a URL, `%d`). `point`: one that is not (an emoji, a comment). `open`, `close`: both ends of a
tagged span."""


@dataclass(frozen=True, slots=True)
class InlineElement:
    """An inline element: its source, its output, and what a reader sees."""

    raw: str
    kind: Kind
    output: str = ""
    shown: str = ""
    name: str = ""
    """Pairs an `open` with its `close`."""
    term: str = ""
    """What it is in the translation, as plain text, where that is not what it is in the source: the
    glossary's term, an amount in the target's form. `output` is the same in the document's
    format."""

    @property
    def stands_for_word(self) -> bool:
        return self.kind in ("word", "number")

    @property
    def has_no_width(self) -> bool:
        return self.kind in ("point", "open", "close")

    @property
    def parts_words(self) -> bool:
        """Whether what touches a tag on both sides is two words, though no space is there."""
        return self.kind in ("open", "close") and self.name in (*STRUCK, BASE, ANCHOR)


def kept(raw: str, kind: Kind, shown: str = "", name: str = "") -> InlineElement:
    """An element that is output as it stands in the source."""
    return InlineElement(raw, kind, raw, shown, name)


@dataclass(frozen=True, slots=True)
class InlineText:
    """Text with inline elements: `elements[i]` is at `text[places[i]]`, in rising order."""

    text: str
    places: Sequence[int] = ()
    elements: Sequence[InlineElement] = ()

    def cut(self, start: int, end: int) -> InlineText:
        if not self.elements:
            if start == 0 and end == len(self.text):
                return self
            return InlineText(self.text[start:end])
        low, high = bisect_left(self.places, start), bisect_left(self.places, end)
        return InlineText(
            self.text[start:end],
            [place - start for place in self.places[low:high]],
            self.elements[low:high],
        )

    def __iter__(self) -> Iterator[str | InlineElement]:
        """Plain text and elements, in order."""
        start = 0
        for place, element in zip(self.places, self.elements, strict=True):
            if start < place:
                yield self.text[start:place]
            yield element
            start = place + 1
        if start < len(self.text):
            yield self.text[start:]

    def raw(self) -> str:
        """Its source."""
        if not self.elements:
            return self.text
        return "".join(part if isinstance(part, str) else part.raw for part in self)

    def output(self) -> str:
        """Its source, with the glossary's terms translated."""
        if not self.elements:
            return self.text
        return "".join(part if isinstance(part, str) else part.output for part in self)

    def shown(self) -> str:
        """What a reader sees."""
        if not self.elements:
            return self.text
        return "".join(part if isinstance(part, str) else part.shown for part in self)

    def composed(self) -> InlineText:
        """The text in Unicode's NFC, its elements as they are."""
        builder, place = InlineTextBuilder(), 0
        for part in self:
            if isinstance(part, str):
                builder.add(unicodedata.normalize("NFC", part))
                place += len(part)
            else:
                builder.add_element(part, self.text[place])
                place += 1
        return builder.build()

    def has_letter(self) -> bool:
        """Whether there is a letter outside its elements."""
        return any(map(str.isalpha, self.text))

    def has_element(self) -> bool:
        """Whether there is an element that is not a character."""
        return any(element.kind not in ("character", "space") for element in self.elements)

    def element_at(self, place: int) -> InlineElement | None:
        index = bisect_left(self.places, place)
        is_at_place = index < len(self.places) and self.places[index] == place
        return self.elements[index] if is_at_place else None


class InlineTextBuilder:
    """Builds an InlineText from text and elements."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._places: list[int] = []
        self._elements: list[InlineElement] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, text: str) -> None:
        """Add plain text."""
        self._parts.append(text)
        self._length += len(text)

    def add_element(self, element: InlineElement, character: str = MARK) -> None:
        self._places.append(self._length)
        self._elements.append(element)
        self.add(character)

    def add_inline(self, inline: InlineText) -> None:
        if inline.elements:
            self._places.extend(self._length + place for place in inline.places)
            self._elements.extend(inline.elements)
        self.add(inline.text)

    def build(self) -> InlineText:
        """The text so far; empties the builder."""
        inline = InlineText("".join(self._parts), self._places, self._elements)
        self.__init__()  # type: ignore[misc]
        return inline


Escape = Callable[[str], str]
"""Plain text → the same in a document's format."""


@dataclass(frozen=True)
class Block:
    """A paragraph, and how plain text is escaped in its place."""

    inline: InlineText
    escape: Escape
    wrapping: Wrapping | None = field(default=None, compare=False)
    """How its translation is parted into lines; None leaves it in one."""
