"""Documents: plain text, HTML or Markdown, cut into sentences and put together again.

document = open_document(text, "html", "en", engine.count_tokens, engine.max_input_tokens)
translated = translate([segment.text for segment in document.segments])
for repair in document.check(translated):
    translated[repair.segment] = repair.join(translate(repair.texts))
document.rebuild(translated)

`read_text` and `read_wrapped` read plain text; the other formats have modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service.text.accelerators import MARKS, Accelerator, take_out
from service.text.accelerators import put_back as put_keys_back
from service.text.attributes import TakenOut, has_numbers, put_back
from service.text.attributes import take_out as take_out_attributes
from service.text.coverage import Coverage
from service.text.glossary import NO_GLOSSARY, Glossary
from service.text.html import read_html
from service.text.inline import MARK, Block, Escape, InlineElement, InlineText, InlineTextBuilder
from service.text.markdown import read_markdown
from service.text.numerals import LOOKBACK_CHARS, Numerals
from service.text.pieces import is_protected_word, split_at
from service.text.placeholders import (
    EN_DE,
    PlaceholderWords,
    SentPlaceholder,
    assign,
    engine_text,
    protected_words,
)
from service.text.protected import protect
from service.text.segment import Repair, RestoredText, Segment
from service.text.sentences import CHARS_PER_TOKEN, LINE_BREAK, STANDS_FOR_WORD, edges, split_inline
from service.text.wrapping import Wrapping, is_break

LIST_MARK = re.compile(
    r"\s*+(?:(?:[-*+•‣◦▪–—>]|\d{1,9}[.)]|[A-Za-z]\)|\((?:\d{1,3}|[A-Za-z])\)|\[[ xX]\])\s++)+"
)


ESCAPED_WITHIN = re.compile(r"(?<=[^\W\d_])\\'(?=[^\W\d_])")
UNESCAPED = re.compile(r"(?<!\\)'")


def read_text(text: str) -> Iterator[str | Block]:
    """Each line is a paragraph; list marks and line breaks are kept."""
    for position, line in enumerate(LINE_BREAK.split(text)):
        if position % 2 or not line or line.isspace():
            yield line
            continue
        mark = LIST_MARK.match(line)
        start = mark.end() if mark else 0
        yield line[:start]
        yield _line(line[start:])


def _line(text: str) -> Block:
    """A line of plain text. Where all of its apostrophes are escaped, as in the strings of programs
    (`It\\'s`), those of the translation are."""
    if "\\'" not in text or not ESCAPED_WITHIN.search(text) or UNESCAPED.search(text):
        return Block(InlineText(text), str)
    builder = InlineTextBuilder()
    for part in re.split(r"(\\')", text):
        if part == "\\'":
            builder.add_element(InlineElement(part, "character", part, "'"), "'")
        else:
            builder.add(part)
    return Block(builder.build(), lambda translation: translation.replace("'", "\\'"))


def read_wrapped(wrapped: str) -> Iterator[str | Block]:
    """Plain text whose sentences go on over single line breaks; blank lines and list marks begin
    a paragraph, and lines of cells (between tabs) are paragraphs of their own."""
    lines = LINE_BREAK.split(wrapped)
    builder = InlineTextBuilder()
    gap, had_cells = "", False
    for line, line_break in zip(lines[::2], [*lines[1::2], ""], strict=True):
        mark = LIST_MARK.match(line)
        has_cells = "\t" in line.strip()
        begins = bool(mark) or has_cells or had_cells
        start = len(line) - len(line.lstrip())
        if begins or not line.strip():
            if builder:
                yield Block(builder.build(), str)
            start = mark.end() if mark else start
            yield gap + line[:start]
        elif builder:
            space = gap + line[:start]
            builder.add_element(InlineElement(space, "character", space, " "), " ")
        else:
            yield gap + line[:start]
        text = line[start:].rstrip()
        builder.add(text)
        gap, had_cells = line[start + len(text) :] + line_break, has_cells
    if builder:
        yield Block(builder.build(), str)
    yield gap


Format = Literal["text", "html", "markdown"]
READERS: dict[Format, Callable[[str], Iterator[str | Block]]] = {
    "text": read_text,
    "html": read_html,
    "markdown": read_markdown,
}


class Document:
    """A text cut into sentences to translate and everything else, which is kept.

    `segments` are the sentences in order; `layout` is the text: what is kept, and the indices of
    segments.
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.layout: list[str | int] = []
        self.in_lines: list[tuple[int, int, Wrapping]] = []
        """Where paragraphs of several lines start and end in `layout`, and how they are wrapped."""
        self.attributes: list[list[str | int]] = []
        """The layouts of attributes and annotations that are translated, in the order of their
        numbers in `layout`."""

    def check(self, translated: Sequence[str]) -> list[Repair]:
        """What must be translated besides, so that nothing protected is lost.

        Raises ValueError if there are not as many translations as segments.
        """
        self._check_length(translated)
        repairs = (
            segment.check(index, translation)
            for index, (segment, translation) in enumerate(
                zip(self.segments, translated, strict=True)
            )
        )
        return [repair for repair in repairs if repair is not None]

    def finish(self, translated: Sequence[str]) -> list[RestoredText]:
        """Each segment's translation in the document's format. Raises ValueError as `check`."""
        self._check_length(translated)
        return [
            translation if isinstance(translation, RestoredText) else segment.finish(translation)
            for segment, translation in zip(self.segments, translated, strict=True)
        ]

    def rebuild(self, translated: Sequence[str]) -> str:
        """The text with the translations in their places. Raises ValueError as `check`."""
        finished = self.finish(translated)

        def written(layout: list[str | int]) -> list[str]:
            return [part if isinstance(part, str) else str(finished[part]) for part in layout]

        def joined(layout: list[str | int]) -> str:
            return "".join(written(layout))

        parts = written(self.layout)
        for start, end, wrapping in self.in_lines:
            sources = (
                None if isinstance(part, str) else self.segments[part].core
                for part in self.layout[start:end]
            )
            lines = wrapping.wrapped(list(zip(parts[start:end], sources, strict=True)))
            parts[start:end] = [lines, *[""] * (end - start - 1)]
        text = "".join(parts)
        return put_back(text, list(map(joined, self.attributes))) if self.attributes else text

    def pairs(self, translated: Sequence[str]) -> list[tuple[str, str]]:
        """Each sentence and its translation as a reader sees them."""
        return [
            (segment.source, one.shown)
            for segment, one in zip(self.segments, self.finish(translated), strict=True)
        ]

    def _check_length(self, translated: Sequence[str]) -> None:
        if len(translated) != len(self.segments):
            raise ValueError(f"{len(translated)} translations for {len(self.segments)} segments")


def open_document(
    text: str,
    format: Format,
    language: str,
    count_tokens: Callable[[str], int],
    max_tokens: int,
    glossary: Glossary = NO_GLOSSARY,
    placeholder_words: PlaceholderWords = EN_DE,
    *,
    wrapped: bool = False,
    split: bool = True,
    coverage: Coverage | None = None,
    adds_stop: bool = True,
    numerals: Numerals | None = None,
    translate_attributes: bool = False,
) -> Document:
    """Cut a text into sentences, which are composed to NFC; what is not translated stays.

    `language` is the source's code; each segment has at most `max_tokens` tokens. Sentences of
    `wrapped` plain text go on over line breaks; without `split`, a paragraph is only cut where it
    is too long. `coverage` is what the model can read, None if it reads any text. With `adds_stop`,
    the model gets a full stop after what has no mark at its end (a heading, a cell), which its
    translation then loses. With `numerals`, translations are held to the numbers of the text. With
    `translate_attributes`, so are the attributes of HTML that a reader sees, and in Markdown the
    texts of images and the titles of links.
    """
    document = Document()
    taken = None if has_numbers(text) else TakenOut()
    cutter = _Cutter(
        document,
        taken,
        format,
        language,
        count_tokens,
        max_tokens,
        glossary,
        placeholder_words,
        split,
        coverage,
        adds_stop,
        numerals,
    )
    blocks = _read(text, format, wrapped, taken if translate_attributes else None)
    for block in blocks:
        if isinstance(block, str):
            document.layout.append(block)
        else:
            cutter.add(block, document.layout)
    for paragraph in taken.paragraphs if taken else ():
        document.attributes.append([])
        cutter.add(paragraph, document.attributes[-1])
    return document


def _read(
    text: str, format: Format, wrapped: bool, taken: TakenOut | None
) -> Iterator[str | Block]:
    """What is kept of a text, and its paragraphs; attributes are `taken` out."""
    if wrapped and format == "text":
        return read_wrapped(text)
    if taken is not None:
        if format == "html":
            return read_html(take_out_attributes(text, taken))
        if format == "markdown":
            return read_markdown(text, taken)
    return READERS[format](text)


@dataclass(frozen=True)
class _Cutter:
    """Cuts paragraphs into a document's segments, what is `taken` out of them last; its other
    fields are those of `open_document`."""

    document: Document
    taken: TakenOut | None
    format: Format
    language: str
    count_tokens: Callable[[str], int]
    max_tokens: int
    glossary: Glossary
    placeholder_words: PlaceholderWords
    split: bool
    coverage: Coverage | None
    adds_stop: bool
    numerals: Numerals | None

    def fits(self, sentence: str) -> bool:
        """Whether the model takes a sentence."""
        if len(sentence) < self.max_tokens and sentence.isascii():
            return True  # a token has a character at least, but for the space before the first word
        return (
            len(sentence) <= CHARS_PER_TOKEN * self.max_tokens
            and self.count_tokens(sentence) <= self.max_tokens
        )

    def _engine_text(self, core: InlineText, words: Sequence[SentPlaceholder]) -> str:
        return engine_text(
            core,
            words,
            self.coverage,
            adds_stop=self.adds_stop,
            language=self.language,
            numerals=self.numerals,
        )

    def _too_long(self, core: InlineText) -> bool:
        if not core.elements and len(core.text) + 1 < self.max_tokens and core.text.isascii():
            return False
        words = assign(core, self.placeholder_words, coverage=self.coverage) or [
            SentPlaceholder(STANDS_FOR_WORD, STANDS_FOR_WORD)
        ] * len(protected_words(core))
        return len(core.text) > CHARS_PER_TOKEN * self.max_tokens or not self.fits(
            self._engine_text(core, words)
        )

    def add(self, block: Block, layout: list[str | int]) -> None:
        """Add a paragraph to the document, and to one of its layouts."""
        start = len(layout)
        for label, accelerators in _labels(block.inline, self.format):
            first = len(layout)
            inline = protect(
                label,
                self.glossary,
                block.escape,
                self.taken,
                coverage=self.coverage,
                language=self.language,
            )
            if inline.elements and self.numerals is not None:
                inline = _with_amounts(inline, self.numerals)
            for part, translate in split_inline(
                inline,
                self.language,
                self._too_long,
                split=self.split,
                tabs=self.format == "text",
            ):
                self._add_part(part, translate, block.escape, layout)
            if accelerators:
                _give_keys(self.document.segments, layout, first, accelerators)
        if block.wrapping is not None and any(map(self._is_in_lines, layout[start:])):
            self.document.in_lines.append((start, len(layout), block.wrapping))

    def _is_in_lines(self, part: str | int) -> bool:
        """Whether a part of a layout is a sentence that goes on over a line break."""
        return not isinstance(part, str) and any(
            is_break(element.raw) for element in self.document.segments[part].core.elements
        )

    def _add_part(
        self, part: InlineText, translate: bool, escape: Escape, layout: list[str | int]
    ) -> None:
        """Add a sentence, or something that is kept."""
        if self.coverage is not None:
            readable = self.coverage.with_first_word(part)
            if readable is not part and not self._too_long(readable):
                part, translate = readable, True
        for core, known in _assignable(part, translate, self.placeholder_words, self.coverage):
            if known is None:
                layout.append(core.output())
                continue
            layout.append(len(self.document.segments))
            self.document.segments.append(
                Segment(
                    self._engine_text(core, known),
                    core,
                    known,
                    self.placeholder_words,
                    self.fits,
                    escape,
                    self.coverage,
                    self.adds_stop,
                    self.numerals,
                    language=self.language,
                )
            )


def _labels(
    inline: InlineText, format: Format
) -> Iterator[tuple[InlineText, Sequence[Accelerator]]]:
    """A paragraph with the keys that were taken out of it: of plain text, what tabs part may have
    keys of its own."""
    if format != "text" or inline.elements or not any(mark in inline.text for mark in MARKS):
        yield inline, ()
        return
    for cell in re.split(r"(\t)", inline.text):
        text, accelerators = take_out(cell)
        if text:
            yield InlineText(text), accelerators


def _give_keys(
    segments: list[Segment],
    layout: list[str | int],
    first: int,
    accelerators: Sequence[Accelerator],
) -> None:
    """Give the keys of a label to its sentences, or to what is kept of it; it begins at `first` in
    the layout."""
    for accelerator in reversed(accelerators):
        start = 0
        for at in range(first, len(layout)):
            part = layout[at]
            source = part if isinstance(part, str) else segments[part].core.raw()
            key = replace(accelerator, place=accelerator.place - start)
            start += len(source)
            if key.place >= len(source):
                continue
            if isinstance(part, str):
                layout[at] = put_keys_back(part, [key])
            else:
                keys = (key, *segments[part].accelerators)
                segments[part] = replace(segments[part], accelerators=keys)
            break


def _with_amounts(inline: InlineText, numerals: Numerals) -> InlineText:
    """A paragraph whose protected amounts will be written as the target language does."""
    if not any(element.kind == "number" for element in inline.elements):
        return inline
    elements = []
    for place, element in zip(inline.places, inline.elements, strict=True):
        if element.kind == "number":
            before, after = (
                inline.text[max(0, place - LOOKBACK_CHARS) : place].replace(MARK, ""),
                inline.text[place + 1 : place + 1 + LOOKBACK_CHARS].replace(MARK, ""),
            )
            amount, output = numerals.converted_amount(element.shown, element.output, before, after)
            if amount != element.shown:
                element = replace(element, output=output, term=amount)
        elements.append(element)
    return replace(inline, elements=elements)


def _assignable(
    part: InlineText,
    translate: bool,
    placeholder_words: PlaceholderWords,
    coverage: Coverage | None,
) -> Iterator[tuple[InlineText, list[SentPlaceholder] | None]]:
    """Sentences with placeholder words for their protected words, and kept text with None.

    A sentence with too many protected words is split at them.
    """
    if not part.text:
        return
    words = assign(part, placeholder_words, coverage=coverage) if translate else None
    if words is not None or not translate:
        yield part, words
        return
    for piece in split_at(part, is_protected_word):
        start, end = edges(piece)
        yield piece.cut(0, start), None
        core = piece.cut(start, end)
        yield core, [] if core.has_letter() else None
        yield piece.cut(end, len(piece.text)), None
