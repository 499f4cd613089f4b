"""What a model's vocabulary lacks, and how sentences reach the model without it.

A vocabulary without byte fallback reads a character that it lacks as `<unk>`; what stands there is
lost, and words beside it go wrong. `Coverage.protect` makes such text elements of the paragraph
before it is sent: a word (`Müller`, `中国`, `x^2`) or an amount (`€3`) gets a placeholder, a mark
(`•`, `¿`) is taken out and put back. Typographic marks are sent as plain ones, some capitals as
small letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.text.capitals import Capitals, are_capitals
from service.text.inline import MARK, InlineText, InlineTextBuilder, Kind, kept
from service.text.loanwords import Loanwords
from service.text.typography import Typography

BREAKS = re.compile(rf"[\s{MARK}\"“”„‟«»—―]")
"""What ends a word besides letters of a script without spaces."""
NO_SPACES = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese,
Japanese."""
EDGE = frozenset("\"'“”„‟«»‘’‚‛‹›.,;:!?…()[]{}<>|`*¿¡-‐‑‒–")
"""Punctuation at the edge of a word that is none of it."""
PART_OF_WORD = frozenset("#@\\%‰&§°º^~")
"""Marks that mean something only with the word or number that they touch."""
GENITIVE = re.compile(r"['’ʼ]s?$")
AMOUNT_BEFORE = re.compile(r"\d[\d.,]{0,25}\s?$")
AMOUNT_AFTER = re.compile(r"\s?\d(?:[\d.,]{0,25}\d)?")
AMOUNT_CHARS = 30

NEXT_NAME = re.compile(r"[ \u00a0]([^\W\d_]+(?:-[^\W\d_]+)?)(?![\w'’])")
"""A word behind a name, which may be the name's second half."""
NO_NAMES = frozenset({
    "airlines", "airport", "and", "april", "are", "as", "association", "at", "august",
    "avenue", "bank", "bay", "bridge", "by", "called", "can", "center", "centre", "church",
    "city", "club", "college", "company", "corporation", "council", "county", "december",
    "did", "does", "february", "for", "foundation", "friday", "from", "gallery", "government",
    "group", "had", "hall", "has", "hospital", "hotel", "in", "institute", "international",
    "is", "island", "islands", "january", "july", "june", "lake", "library", "march", "market",
    "may", "monday", "mountains", "museum", "national", "november", "october", "of", "office",
    "on", "or", "palace", "park", "prize", "province", "republic", "river", "road", "said",
    "saturday", "school", "sea", "september", "square", "state", "station", "street", "sunday",
    "team", "the", "theater", "theatre", "thursday", "to", "told", "tower", "tuesday",
    "university", "valley", "was", "wednesday", "were", "will", "with",
})  # fmt: skip
"""English words that are no part of the name before them, or are translated in it."""
UnknownSpans = Callable[[str], Sequence[tuple[int, int]]]
CAPITALISED = "capitalised"
"""Name of a protected word that the model could read if its first letter were a small one."""
Stretch = tuple[int, int, Kind, str]
"""Start and end of a stretch to protect, and the kind and the name of its element."""


class Reader(Protocol):
    """What coverage asks of an engine."""

    @property
    def reads_all_text(self) -> bool: ...

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]: ...

    def count_tokens(self, sentence: str) -> int: ...


@dataclass(frozen=True)
class Coverage:
    """The text that a model can read. Models that can read any text have none."""

    unknown_spans: UnknownSpans
    typography: Typography
    capitals: Capitals
    loanwords: Loanwords
    _harmless: dict[int, str]
    """Characters that never reach the model as they are, each with one that stands for it where
    unknown text is looked for."""

    @classmethod
    def of(cls, engine: Reader) -> Coverage | None:
        """That of an engine; None if it reads every text as well as plain text.

        A vocabulary that spells in bytes what it has no piece for reads it, but the model has
        hardly seen such characters: plain ones are sent for them, too.
        """

        def reads(text: str) -> bool:
            if engine.reads_all_text:
                return not _is_spelt(engine, text)
            return not engine.unknown_spans(text)

        typography = Typography.readable_by(reads)
        filler = next(filter(reads, "-,.ao0"), " ")
        harmless = {ord(MARK): " "}
        harmless |= {code: " " for code in range(0x3001) if chr(code).isspace()}
        harmless |= {ord(c): form.strip()[:1] or filler for c, form in typography.plain.items()}
        capitals = Capitals.readable_by(reads, engine.count_tokens)
        loanwords = Loanwords.readable_by(reads, engine.count_tokens)
        if engine.reads_all_text:
            known = cls(_all_known, typography, capitals, loanwords, {})
            return known if typography.plain else None
        return cls(engine.unknown_spans, typography, capitals, loanwords, harmless)

    def reads(self, text: str) -> bool:
        """Whether the model can read all of a text that is sent."""
        return not self.unknown_spans(text)

    def simplify(self, text: str) -> str:
        """The text with plain characters for those that the model lacks."""
        text = self.loanwords.without_accents(self.typography.simplify(text))
        return self.capitals.lowered(text)

    def restore(self, source: str, translation: str) -> str:
        """The translation with the typography and the capitals of its source, where those were
        replaced and it is clear what belongs where."""
        translation = self.capitals.restore(source, translation)
        translation = self.loanwords.restore(source, translation)
        return self.typography.restore(source, translation)

    def with_first_word(self, sentence: InlineText) -> InlineText:
        """The sentence without the protection of its first word, if a small first letter makes that
        readable; else the sentence itself."""
        words = (
            (place, element)
            for place, element in zip(sentence.places, sentence.elements, strict=True)
            if element.stands_for_word
        )
        place, element = next(words, (0, None))
        if element is None or element.name != CAPITALISED:
            return sentence
        if any(map(str.isalnum, sentence.text[:place])):
            return sentence
        builder = InlineTextBuilder()
        builder.add_inline(sentence.cut(0, place))
        builder.add(element.shown)
        builder.add_inline(sentence.cut(place + 1, len(sentence.text)))
        return builder.build()

    def protect(self, inline: InlineText) -> InlineText:
        """The paragraph with everything that the model cannot read as elements. Linear time."""
        if not self._harmless:
            return inline
        text = inline.text
        plain = self.loanwords.without_accents(text)
        spans = self.unknown_spans(plain.translate(self._harmless))
        if not spans:
            return inline
        builder = InlineTextBuilder()
        place = 0
        stretches = _stretches(text, spans, self.capitals.letters)
        for start, end, kind, name in _whole_names(text, _joined(text, stretches)):
            builder.add_inline(inline.cut(place, start))
            inside = inline.cut(start, end)
            builder.add_element(kept(inside.raw(), kind, inside.shown(), name))
            place = end
        builder.add_inline(inline.cut(place, len(text)))
        return builder.build()


def _is_spelt(engine: Reader, text: str) -> bool:
    """Whether a text that is not ASCII takes a token for each byte, and is no plain text for the
    vocabulary's normalisation."""
    tokens = engine.count_tokens(text)
    plain = unicodedata.normalize("NFKC", text)
    is_plain = plain.isascii() and engine.count_tokens(plain) == tokens
    return not text.isascii() and tokens >= len(text.encode()) and not is_plain


def _all_known(text: str) -> list[tuple[int, int]]:
    """The unknown spans of a vocabulary that has none."""
    return []


def _stretches(
    text: str, spans: Sequence[tuple[int, int]], capitals: Container[str]
) -> Iterator[Stretch]:
    """What to protect so that each unknown character is in it (whole words, amounts, marks), but
    for words in capitals that the model can read in small letters."""
    unknown = bytearray(len(text))
    for start, end in spans:
        unknown[start:end] = bytes([1]) * (end - start)
    place = unknown.find(1)
    done = end = 0
    while place >= 0:
        if NO_SPACES.match(text[place]):
            stretches = [_without_spaces(text, place, done, unknown)]
        else:
            start, end = _run(text, place, done)
            stretches = list(_of_run(text, start, end, done, unknown, capitals))
        yield from stretches
        done = stretches[-1][1] if stretches else end
        place = unknown.find(1, done)


def _without_spaces(text: str, place: int, earliest: int, unknown: bytearray) -> Stretch:
    """Unknown letters of a script without spaces, with the marks that combine with them."""
    start, end = place, place + 1
    while start > earliest and unicodedata.combining(text[start]):
        start -= 1
    while end < len(text) and (
        (unknown[end] and NO_SPACES.match(text[end])) or unicodedata.combining(text[end])
    ):
        end += 1
    return start, end, "word", ""


def _run(text: str, place: int, earliest: int) -> tuple[int, int]:
    """The stretch without spaces around an unknown character."""
    start, end = place, place + 1
    while start > earliest and not _is_break(text[start - 1]):
        start -= 1
    while end < len(text) and not _is_break(text[end]):
        end += 1
    return start, end


def _is_break(character: str) -> bool:
    return bool(BREAKS.match(character) or NO_SPACES.match(character))


def _of_run(
    text: str,
    start: int,
    end: int,
    earliest: int,
    unknown: bytearray,
    capitals: Container[str],
) -> Iterator[Stretch]:
    """The word of a run without spaces, and the unknown marks around it."""
    first, last = _word_of_run(text, start, end, unknown)
    if unknown.find(1, first, last) < 0:
        first = last = start
    else:
        first, last = _amount(text, first, last, earliest)
        if not any(map(str.isalnum, text[first:last])):
            first = last = start
    yield from _marks(text, start, first, unknown)
    lacking = [text[place] for place in range(first, last) if unknown[place]]
    are_small_readable = all(letter in capitals for letter in lacking)
    if first < last and not (are_small_readable and are_capitals(text[first:last])):
        is_first_only = are_small_readable and len(lacking) == 1 and bool(unknown[first])
        yield first, last, _kind(text[first:last]), CAPITALISED if is_first_only else ""
    yield from _marks(text, last, end, unknown)


def _word_of_run(text: str, start: int, end: int, unknown: bytearray) -> tuple[int, int]:
    """A run without the punctuation around it and without a genitive's `'s`."""

    def is_edge(place: int) -> bool:
        character = text[place]
        if character in EDGE:
            return True
        category = unicodedata.category(character)
        is_mark = category[0] in "PS" and category != "Sc" and character not in PART_OF_WORD
        return is_mark and bool(unknown[place])

    while start < end and is_edge(start):
        start += 1
    while start < end and is_edge(end - 1):
        end -= 1
    if (genitive := GENITIVE.search(text, start, end)) and start < genitive.start():
        end = genitive.start()
    return start, end


def _amount(text: str, start: int, end: int, earliest: int) -> tuple[int, int]:
    """A word that begins with a currency sign, with the number that spaces part from the sign."""
    is_amount = any(map(str.isnumeric, text[start:end]))
    if is_amount or unicodedata.category(text[start]) != "Sc":
        return start, end
    if before := AMOUNT_BEFORE.search(text, max(earliest, start - AMOUNT_CHARS), start):
        return before.start(), end
    after = AMOUNT_AFTER.match(text, end)
    return start, after.end() if after else end


def _kind(stretch: str) -> Kind:
    is_number = any(map(str.isnumeric, stretch)) and not any(map(str.isalpha, stretch))
    return "number" if is_number else "word"


def _marks(text: str, start: int, end: int, unknown: bytearray) -> Iterator[Stretch]:
    """Unknown marks from `start` up to `end`, those side by side as one, with brackets around
    them."""
    place = unknown.find(1, start, end)
    while place >= 0:
        first = place
        while place < end and unknown[place]:
            place += 1
        if start < first and place < end and text[first - 1] + text[place] in ("()", "[]"):
            first, place = first - 1, place + 1
        yield first, place, "point", ""
        place = unknown.find(1, place, end)


def _joined(text: str, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """The same, with words that only spaces part as one: a name, a phrase in another script."""
    last: Stretch | None = None
    for stretch in stretches:
        is_word = last and last[2:] == stretch[2:] == ("word", "")
        if last and is_word and text[last[1] : stretch[0]].isspace():
            last = (last[0], *stretch[1:])
            continue
        if last:
            yield last
        last = stretch
    if last:
        yield last


def _whole_names(text: str, stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """The same, with the word behind a name that goes on with it: of `François Hollande`, of which
    a model cannot read the first half, it may well forget the other."""
    before: Stretch | None = None
    for stretch in stretches:
        if before:
            yield _whole_name(text, before, stretch[0])
        before = stretch
    if before:
        yield _whole_name(text, before, len(text))


def _whole_name(text: str, stretch: Stretch, limit: int) -> Stretch:
    start, end, kind, name = stretch
    word = NEXT_NAME.match(text, end, limit)
    if kind != "word" or name or word is None or not text[start:end].istitle():
        return stretch
    is_name = word[1].istitle() and len(word[1]) > 1 and word[1].lower() not in NO_NAMES
    return (start, word.end(), kind, name) if is_name else stretch
