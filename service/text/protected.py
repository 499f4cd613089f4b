"""Protected spans: what a model must not touch (addresses, placeholders, symbols, glossary terms)
becomes elements of its paragraph.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from service.text.attributes import TakenOut
from service.text.coverage import Coverage
from service.text.currencies import SIGNS
from service.text.glossary import Glossary
from service.text.html import match_tags, tokenize
from service.text.inline import (
    LINE_END,
    MARK,
    Escape,
    InlineElement,
    InlineText,
    InlineTextBuilder,
    Kind,
    kept,
)
from service.text.patterns import (
    ADDRESSES,
    COMPOSED,
    INVENTED,
    PROTECTED,
    may_be_invented,
    may_be_protected,
)
from service.text.ruby import with_annotations
from service.text.sentences import SPACED, is_balanced, pair_up
from service.text.struck import without_struck

KINDS: dict[str, Kind] = {
    "number": "number",
    **dict.fromkeys(("symbol", "rule", "control", "break", "bracket"), "point"),
}
INDICES = ("sub", "sup")
MAKES_PROTECTED = re.compile(r"[^\w\s.,;!?'’-]|_|(?<=\w)\.(?=\w)")
PERCENT = re.compile(r"%(?=[A-Za-z(@%])")
TRAILING = ".,;:!?…"
OPENING, CLOSING = "\"'“„‘«([{", "\"'”’»)]}"
TAG_NAME = re.compile(r"^</?|[\s/>].*", re.DOTALL)
NOTE_MARK = re.compile(rf"{MARK}+[\[(]?(?:\d{{1,3}}|[*†‡§¶]{{1,3}})[\])]?{MARK}+")
"""The mark of a note, between tags."""
MAYBE_NOTE_MARK = re.compile(rf"{MARK}[\[(]?[\d*†‡§¶]")
MAYBE_ADDRESS = re.compile(rf"[@#/:]{MARK}|{MARK}[@#/:.]|\w\.{MARK}|[@#/].{{0,99}}{MARK}")
WITHIN_STRETCH = ("open", "close", "character", "space")
AMOUNT = re.compile(
    rf"(?<![\w.,])[{SIGNS}]?[ \u00a0\u202f]?\d{{1,12}}(?:[.,:]\d{{1,12}}){{0,4}}(?![\w.,:]\d)"
    rf"(?:[ \u00a0\u202f]?[{SIGNS}%‰](?!\d))?"
)
MAYBE_AMOUNT = re.compile(
    rf"\d[.,:]?{MARK}{{1,6}}[.,:]?{MARK}{{0,6}}\d|[{SIGNS}][\s{MARK}]{{1,6}}\d|\d[\s{MARK}]{{1,6}}[%‰{SIGNS}]"
)
PRICE = re.compile(rf"[{SIGNS}].*\d[.,]\d\d\Z|\d[.,]\d\d[ \u00a0\u202f]?[{SIGNS}]\Z")
"""An amount whose cents may be raised (`$19.<sup>99</sup>`), which are no mark of a note then."""
MAX_TOUCHING = 60
"""Characters that a word with tags in it may have."""
WITHIN_FORMULA = "/·⋅.,^−-⁺⁻₊₋"
"""Marks between the letters and digits of a quantity."""
SENTENCE_CHARS = 200
"""How far words of its sentence are looked for around a line to write on."""
BLANK_BEFORE = re.compile(r"(?:\A|\n)[ \t]*\Z")
BLANK_AFTER = re.compile(r"[ \t\r]*(?:\n|\Z)")
FRACTION_OF = re.compile(r"(?<![\w.,])\d{1,9}[ \u00a0]\Z")
ORDINAL_LANGUAGES = frozenset(("ast", "ca", "es", "eu", "gl", "it", "oc", "pt"))
"""Languages whose models know `3.º`."""


def protect(
    inline: InlineText,
    glossary: Glossary,
    escape: Escape,
    taken: TakenOut | None = None,
    *,
    coverage: Coverage | None = None,
    language: str = "",
) -> InlineText:
    """The text with protected spans and glossary terms as elements.

    What looks like a tag to a reader is one of them. With `coverage`, so is what the model cannot
    read. Letters that touch something protected belong to it. `language` is the code of the text's.
    `escape` converts the glossary's terms, which are plain text, to the document's format. What is
    no part of a sentence, but written in it, is `taken` out.
    """
    if MARK in inline.text:
        if MAYBE_ADDRESS.search(inline.text):
            inline = _with_tagged(inline, ADDRESSES, "word")
        if MAYBE_AMOUNT.search(inline.text):
            inline = _with_tagged(inline, AMOUNT, "number")
        if MAYBE_NOTE_MARK.search(inline.text):
            inline = _with_tagged_marks(inline)
    is_composed = unicodedata.is_normalized("NFC", inline.text)
    if glossary.terms and not is_composed:
        inline = inline.composed()
    spans = list(_protected_spans(inline, glossary, PROTECTED, language))
    if spans:
        inline = _with_spans(inline, spans, escape)
    if inline.elements:
        inline = without_struck(inline, escape, taken)
        inline = with_annotations(inline, escape, taken, language)
    if not is_composed:
        inline = inline.composed()
    if coverage is not None:
        inline = coverage.protect(inline)
    return _with_neighbours(inline, coverage is not None) if inline.elements else inline


def _with_tagged_marks(inline: InlineText) -> InlineText:
    """The text with marks of notes, tags and all, as one element each (`dog<sup>1</sup>`)."""
    partners = pair_up(inline)
    stretches: list[tuple[int, int, Kind]] = []
    for place in inline.places:
        end = partners.get(place, -1) + 1
        if end <= place or (stretches and place < stretches[-1][1]):
            continue
        before, after = inline.text[place - 1 : place], inline.text[end : end + 1]
        if not before or before.isspace() or (after.isalnum() and after < SPACED):
            continue
        if end - place < MAX_TOUCHING and NOTE_MARK.fullmatch(inline.text[place:end]):
            stretches.append((place, end, "point"))
    return _joined_stretches(inline, stretches)


def _with_tagged(inline: InlineText, pattern: re.Pattern[str], kind: Kind) -> InlineText:
    """The text with addresses and amounts that have tags inside as one element each
    (`#<span>topic</span>`, `<i>$</i><b>20</b>`)."""
    parting = {
        place
        for place, element in zip(inline.places, inline.elements, strict=True)
        if element.parts_words
    }
    text = inline.text
    at = [place for place, c in enumerate(text) if c != MARK or place in parting]
    reading = "".join("\n" if place in parting else text[place] for place in at)
    stretches: list[tuple[int, int, Kind]] = []
    for match in pattern.finditer(reading):
        first = match.start()
        last = _address_end(reading, *match.span()) - 1
        start, end = at[first], at[last] + 1
        if end - start == last + 1 - first:
            continue
        inside = inline.cut(start, end)
        if any(
            one.kind not in WITHIN_STRETCH or (one.name in INDICES and not PRICE.search(match[0]))
            for one in inside.elements
        ):
            continue
        while not is_balanced(inline.cut(start, end)):
            before, after = inline.element_at(start - 1), inline.element_at(end)
            if before is not None and before.kind == "open":
                start -= 1
            elif after is not None and after.kind == "close":
                end += 1
            else:
                break
        else:
            stretches.append((start, end, kind))
    return _joined_stretches(inline, stretches)


def _joined_stretches(inline: InlineText, stretches: Sequence[tuple[int, int, Kind]]) -> InlineText:
    """The text with stretches of it, in order, as one element each."""
    if not stretches:
        return inline
    builder, done = InlineTextBuilder(), 0
    for start, end, kind in stretches:
        inside = inline.cut(start, end)
        builder.add_inline(inline.cut(done, start))
        builder.add_element(kept(inside.raw(), kind, inside.shown()))
        done = end
    builder.add_inline(inline.cut(done, len(inline.text)))
    return builder.build()


def strip_invented_markup(text: str) -> str:
    """A translation without protected spans of its own: a model cannot be trusted to make them."""
    if not may_be_invented(text):
        return text
    text = PERCENT.sub(" ", text)
    for _ in range(3):
        stripped = INVENTED.sub(" ", text)
        if stripped == text:
            return text
        text = " ".join(stripped.split())
    return " ".join(MAKES_PROTECTED.sub(" ", text).split())


ProtectedSpan = tuple[int, int, Literal["term"] | str, str]
"""Start, end, kind, and the translation of a term."""


def _protected_spans(
    inline: InlineText, glossary: Glossary, pattern: re.Pattern[str], language: str
) -> Iterator[ProtectedSpan]:
    """The spans in order. A term counts if all spans that it overlaps are within it, and takes
    their place; else it is left out."""
    text = inline.text
    terms = list(glossary.find(text)) if glossary.terms else []
    if not terms and not may_be_protected(text):
        return
    spans = list(_matches(inline, pattern, language))
    at = 0
    for start, end, target in terms:
        while at < len(spans) and spans[at][1] <= start:
            yield *spans[at], ""
            at += 1
        last = at
        while last < len(spans) and spans[last][0] < end:
            last += 1
        if all(start <= span[0] and span[1] <= end for span in spans[at:last]):
            yield start, end, "term", target
            at = last
    for span in spans[at:]:
        yield *span, ""


def _matches(
    inline: InlineText, pattern: re.Pattern[str], language: str
) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of what a pattern finds, in order, none overlapping."""
    text, done = inline.text, 0
    knows_ordinals = language.partition("-")[0].lower() in ORDINAL_LANGUAGES
    for match in pattern.finditer(text):
        start, end = match.span()
        kind = match.lastgroup or ""
        if start < done or (kind == "ordinal" and knows_ordinals):
            continue
        if text[start] == MARK and inline.element_at(start) is not None:
            continue
        if kind == "address":
            end = _address_end(text, start, end)
        elif kind == "compatible":
            start, end, kind = _quantity(text, start, end, done)
        elif kind == "field" and not _is_blank(text, start, end):
            kind = "rule"
        yield start, end, kind
        done = end


def _quantity(text: str, start: int, end: int, earliest: int) -> tuple[int, int, str]:
    """A raised, lowered or otherwise composed character with the word or number it is part of."""
    earliest = max(earliest, start - MAX_TOUCHING)
    latest = min(len(text), end + MAX_TOUCHING)
    while start > earliest and _is_of_quantity(text, start - 1, earliest, -1):
        start -= 1
    while end < latest and _is_of_quantity(text, end, latest - 1, 1):
        end += 1
    if unicodedata.decomposition(text[start]).startswith("<fraction>") and (
        whole := FRACTION_OF.search(text, earliest, start)
    ):
        start = whole.start()
    is_number = not any(map(str.isalpha, text[start:end]))
    return start, end, "number" if is_number else "compatible"


def _is_of_quantity(text: str, place: int, last: int, step: int) -> bool:
    """Whether a quantity goes on at a place, in the direction of `step`."""
    if text[place] in WITHIN_FORMULA and place != last:
        place += step
    return _in_word(text[place]) or text[place] in COMPOSED


def _is_blank(text: str, start: int, end: int) -> bool:
    """Whether a line to write on stands for a word within a sentence."""
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if text[start] != "_" or before.isalnum() or after.isalnum():
        return False
    earliest = max(0, start - SENTENCE_CHARS)
    around = text[earliest:start], text[end : end + SENTENCE_CHARS]
    return all(any(map(str.isalpha, side)) for side in around)


def _address_end(text: str, start: int, end: int) -> int:
    """An address without the punctuation of the sentence around it."""
    while end - 1 > start and (
        text[end - 1] in TRAILING
        or (text[end - 1] == ")" and "(" not in text[start:end])
        or (text[end - 1] == "]" and "[" not in text[start:end])
    ):
        end -= 1
    return end


def _with_spans(inline: InlineText, spans: list[ProtectedSpan], escape: Escape) -> InlineText:
    builder = InlineTextBuilder()
    place = 0
    partners = _tag_partners(inline.text, spans) if any(s[2] == "tag" for s in spans) else {}
    for index, (start, end, kind, term) in enumerate(spans):
        builder.add_inline(inline.cut(place, start))
        inside = inline.cut(start, end)
        if kind == "tag":
            builder.add_element(_visible_tag(inline.text, start, end, inside, index in partners))
        else:
            if kind == "control" and _is_alone_in_line(inline.text, start, end):
                kind = "break"
            builder.add_element(_element(inside, kind, term, escape))
        place = end
    builder.add_inline(inline.cut(place, len(inline.text)))
    return builder.build()


def _is_alone_in_line(text: str, start: int, end: int) -> bool:
    before, after = (
        BLANK_BEFORE.search(text, max(0, start - 20), start),
        BLANK_AFTER.match(text, end),
    )
    return bool(before and after and "\n" in before[0] + after[0])


def _element(inline: InlineText, kind: str, term: str, escape: Escape) -> InlineElement:
    raw, shown = inline.raw(), inline.shown()
    if kind == "term":
        return InlineElement(raw, "word", escape(term), shown, name="term", term=term)
    return kept(raw, KINDS.get(kind, "word"), shown, LINE_END if kind == "break" else "")


def _tag_partners(text: str, spans: Sequence[ProtectedSpan]) -> dict[int, int]:
    """Which of the spans are tags that belong together, each → the other."""
    tags = [index for index, span in enumerate(spans) if span[2] == "tag"]
    tokens = [next(tokenize(text[spans[i][0] : spans[i][1]])) for i in tags]
    return {tags[left]: tags[right] for left, right in match_tags(tokens).items()}


def _visible_tag(
    text: str, start: int, end: int, inline: InlineText, has_partner: bool
) -> InlineElement:
    """A tag that a reader sees: the end of a stretch if it has a partner, a word where it stands
    like one, the end of a line if it is a `<br>`."""
    raw, shown = inline.raw(), inline.shown()
    name = TAG_NAME.sub("", shown).lower()
    if has_partner:
        return kept(raw, "close" if shown.startswith("</") else "open", shown, name)
    before, after = text[start - 1 : start], text[end : end + 1]
    stands_alone = (not before or before.isspace() or before in OPENING) and (
        not after or after.isspace() or after in TRAILING or after in CLOSING
    )
    if name == "br" and not (stands_alone and _within_sentence(text, start, end)):
        return kept(raw, "point", shown, LINE_END)
    return kept(raw, "word" if stands_alone else "point", shown)


def _within_sentence(text: str, start: int, end: int) -> bool:
    """Whether letters of a sentence are on both sides, small ones behind."""
    before, after = text[:start].rstrip(), text[end:].lstrip()
    return before[-1:].isalnum() and (after[:1].islower() or after[:1] in CLOSING)


def _with_neighbours(inline: InlineText, keep_numbers: bool) -> InlineText:
    """Join protected words with the letters that touch them, and put tags within a word around it.

    With `keep_numbers`, a number that only tags touch stays one.
    """
    text = inline.text
    builder = InlineTextBuilder()
    place = index = 0
    while index < len(inline.places):
        start, end = _touching(inline, index, place)
        if end - start == 1:
            index += 1
            continue
        builder.add_inline(inline.cut(place, start))
        inside = inline.cut(start, end)
        if (word := _tagged_as_a_whole(inside)) is not None:
            builder.add_inline(word)
        else:
            builder.add_element(_joined(inside, keep_numbers))
        place = end
        while index < len(inline.places) and inline.places[index] < end:
            index += 1
    if place == 0:
        return inline
    builder.add_inline(inline.cut(place, len(text)))
    return builder.build()


def _touching(inline: InlineText, index: int, earliest: int) -> tuple[int, int]:
    """The span around an element that belongs to it."""
    text, place, element = inline.text, inline.places[index], inline.elements[index]
    start, end = place, place + 1
    if element.kind in ("character", "space", "point") or element.name == "term":
        return start, end
    if element.parts_words:
        return start, end
    if not element.stands_for_word and not (
        0 < place < len(text) - 1 and _in_word(text[place - 1]) and _in_word(text[place + 1])
    ):
        return start, end
    stops = 0
    while start > earliest and stops < MAX_TOUCHING and _sticks(inline, start - 1):
        start, stops = start - 1, stops + 1
    while end < len(text) and stops < MAX_TOUCHING and _sticks(inline, end):
        end, stops = end + 1, stops + 1
    inside = inline.cut(start, end)
    return (start, end) if is_balanced(inside) else (place, place + 1)


def _tagged_as_a_whole(inline: InlineText) -> InlineText | None:
    """A word with the tags within it around it (`<b>T</b>he`), since the translation has no such
    part; None for what is more than letters and tags, and for indices (`n<sup>th</sup>`)."""
    letters = inline.text.replace(MARK, "")
    tags = inline.elements
    if not letters.isalpha() or any(
        tag.kind not in ("open", "close") or tag.name in INDICES for tag in tags
    ):
        return None
    waiting: list[int] = []
    openings: list[InlineElement] = []
    closings: list[tuple[int, InlineElement]] = []
    for tag in tags:
        if tag.kind == "open":
            waiting.append(len(openings))
            openings.append(tag)
        else:
            closings.append((waiting.pop(), tag))
    builder = InlineTextBuilder()
    for tag in openings:
        builder.add_element(tag, MARK)
    builder.add(letters)
    for _, tag in sorted(closings, key=lambda one: -one[0]):
        builder.add_element(tag, MARK)
    return builder.build()


def _in_word(character: str) -> bool:
    return character.isalnum() and character < SPACED


def _sticks(inline: InlineText, place: int) -> bool:
    if _in_word(inline.text[place]) or inline.text[place] == "_":
        return True
    element = inline.element_at(place)
    if element is None or element.parts_words:
        return False
    return element.kind not in ("character", "space", "point")


def _joined(inline: InlineText, keep_numbers: bool) -> InlineElement:
    kinds = {element.kind for element in inline.elements if not element.has_no_width}
    is_number = keep_numbers and kinds == {"number"} and len(inline.elements) == len(inline.text)
    kind: Kind = "number" if is_number else "word"
    return InlineElement(inline.raw(), kind, inline.output(), inline.shown())
