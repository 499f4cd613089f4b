"""A sentence and its translation: what is sent to the model, and how markup is projected back.

In the translation, protected words replace their placeholder words, and tags and symbols are
inserted at the places that `service/text/alignment.py` finds. If the model dropped something, the
segment asks for a `Repair`: other placeholder words, or parts of the sentence by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from service.text.alignment import (
    CLAUSE_ENDS,
    AlignmentPoint,
    Span,
    Words,
    boundary,
    find_spans,
    locate,
    source_words,
)
from service.text.coverage import Coverage
from service.text.inline import Escape, InlineElement, InlineText
from service.text.placeholders import (
    TERMINAL,
    PlaceholderWords,
    SentPlaceholder,
    assign,
    engine_text,
    occurrences,
    protected_words,
    strip_added_stop,
    strip_invented_markup,
    with_lost_mark,
)
from service.text.sentences import edges, pair_up, reads
from service.text.typography import NOTHING_REPLACED, with_final_marks

GENITIVE = re.compile("['’]s")
OPENING_MARKS = "\"'“„‘‚«‹([{¿¡"
CLOSING_QUOTES = "\"'“”‘’»›"
CLOSING_MARKS = f".,;:!?…)]}}{CLOSING_QUOTES}"


@dataclass(frozen=True)
class Edit:
    """A replacement of `text[start:end]`; `order` decides among edits with the same start."""

    start: int
    end: int
    order: tuple[int, int]
    output: str
    shown: str


def clean(translation: str) -> str:
    return strip_invented_markup(translation).strip()


def replacements_of(
    text: str, core: InlineText, words: Sequence[SentPlaceholder]
) -> list[Edit] | None:
    """Replacements of placeholder words by protected words, if each occurs exactly once."""
    edits: list[Edit] = []
    for element, after, word in zip(protected_words(core), _after_words(core), words, strict=True):
        matches = occurrences(word.expected, text)
        if len(matches) != 1:
            return None
        start, end = matches[0].span()
        output, shown = element.output, element.shown
        genitive = text[end : end + 1] == "s"
        if element.name == "term":
            shown = element.term
            if start == 0:
                output, shown = _as_first(output, core), _as_first(shown, core)
            end += genitive
        elif genitive and not GENITIVE.match(after):
            return None
        edits.append(Edit(start, end, (3, len(edits)), output, shown))
    return edits


def _after_words(core: InlineText) -> list[str]:
    """What follows each protected word directly."""
    return [
        core.text[place + 1 : place + 3]
        for place, element in zip(core.places, core.elements, strict=True)
        if element.stands_for_word
    ]


def _as_first(term: str, core: InlineText) -> str:
    first = next(
        part for part in core if not (isinstance(part, InlineElement) and part.has_no_width)
    )
    begins = first if isinstance(first, str) else first.shown
    return term[:1].upper() + term[1:] if begins[:1].isupper() else term


def tag_edits(core: InlineText, root: Span, output: Words) -> list[Edit]:
    """Opening tags before their first word, closing tags after their last, well nested."""
    edits: list[Edit] = []

    def place(span: Span, depth: int) -> tuple[int, int]:
        start = output.spans[span.first][0] if span.first < len(output) else len(output.text)
        end = output.spans[span.end - 1][1] if span.end else 0
        for child in span.children:
            child_start, child_end = place(child, depth + 1)
            start, end = min(start, child_start), max(end, child_end)
        inside = "".join(
            part if isinstance(part, str) else reads(part) for part in core.cut(*span.stretch)
        )
        if span.opening:
            start = _before_opening_marks(inside, output.text, start)
            edits.append(Edit(start, start, (2, depth), span.opening.output, ""))
        if span.closing:
            end = _after_closing_marks(inside, output.text, end)
            edits.append(Edit(end, end, (0, -depth), span.closing.output, ""))
        return start, end

    place(root, 0)
    return edits


def _before_opening_marks(inside: str, text: str, start: int) -> int:
    """Where a span begins whose first word is at `start`: before as many opening marks as it has in
    the source, if nothing but a space or a bracket is before them."""
    count = len(inside) - len(inside.lstrip(OPENING_MARKS))
    place = start
    while count and place and text[place - 1] in OPENING_MARKS:
        place, count = place - 1, count - 1
    before = text[place - 1 : place]
    return place if not before or before.isspace() or before in "([{“„«" else start


def _after_closing_marks(inside: str, text: str, end: int) -> int:
    """Where a span ends whose last word ends at `end`: after the marks that end it in the
    source."""
    marks = inside[len(inside.rstrip(CLOSING_MARKS)) :].replace("…", "...…")
    allowed = set(marks) | (set(CLOSING_QUOTES) if set(marks) & set(CLOSING_QUOTES) else set())
    count = len(marks)
    while count and text[end : end + 1] and text[end] in allowed:
        end, count = end + 1, count - 1
    return end


def point_edit(point: AlignmentPoint, word: int, order: int, output: Words) -> Edit:
    """A symbol at a boundary between words, with the spaces that it has in the source."""
    element, text = point.element, output.text
    before = output.spans[word - 1][1] if word else 0
    after = output.spans[word][0] if word < len(output) else len(text)
    if point.marks and (place := text.find(point.marks, before, after)) >= 0:
        return Edit(place + 1, place + 1, (1, order), element.output, element.shown)
    if element.kind == "space":
        start = before if text[before:after].isspace() else after
        return Edit(start, after, (1, order), element.output, element.shown)
    if point.is_before_mark:
        gap = text[before : before + 1].isspace() and text[before + 1 : before + 2] in CLAUSE_ENDS
        start = before + gap
        space = " " if point.spaces[0] and not gap else ""
        return Edit(start, start, (1, order), space + element.output, space + element.shown)
    match point.spaces:
        case (True, True):
            ends = (" ", "") if word == len(output) else ("", " ")
            return Edit(after, after, (1, order), element.output.join(ends), element.shown)
        case (False, True):
            return Edit(before, before, (1, order), element.output, element.shown)
    return Edit(after, after, (1, order), element.output, element.shown)


RETRIES = (1, 2)
"""Further attempts at a sentence from which the model dropped something, with other words."""

ProjectionMethod = Literal["whole", "other words", "in proportion", "in parts", "source positions"]
"""How markup was projected. `whole`: everything was found in the sentence's translation; `other
words`: in one with other placeholder words; `in proportion`: tags were not found, and placed in
proportion to the source; `in parts`: spans were translated by themselves; `source positions`:
everything was placed in proportion to the source."""


class RestoredText(str):
    """A finished translation: in the document's format, with all protected spans and tags."""

    shown: str
    """The same as a reader sees it."""
    method: ProjectionMethod
    """How its markup was projected."""

    @classmethod
    def of(cls, output: str, shown: str, method: ProjectionMethod = "whole") -> RestoredText:
        restored = cls(output)
        restored.shown, restored.method = shown, method
        return restored

    def with_method(self, method: ProjectionMethod) -> RestoredText:
        return RestoredText.of(str(self), self.shown, method)


@dataclass(frozen=True)
class Repair:
    """More to translate for a segment, and how to put it together.

    `texts` are plain texts that the engine takes; `join` gets their translations in order.
    """

    segment: int
    texts: tuple[str, ...]
    reason: str
    """`dropped`: the model lost something; `tags`: tagged spans must be found."""
    join: Callable[[Sequence[str]], RestoredText]


@dataclass(frozen=True)
class Segment:
    """One sentence of a document. `text` is what the engine gets, at most its limit of tokens."""

    text: str
    core: InlineText
    words: Sequence[SentPlaceholder]
    """What is sent for each of the protected words, in order."""
    placeholder_words: PlaceholderWords
    fits: Callable[[str], bool]
    """Whether the engine takes a text."""
    escape: Escape
    """Plain text → the document's format."""
    coverage: Coverage | None = None
    """What the model can read; None if it reads any text."""
    adds_stop: bool = True
    """Whether a sentence without a mark at its end gets a full stop for the model."""

    @property
    def is_unread(self) -> bool:
        """Whether the model cannot read all of what it gets."""
        return self.coverage is not None and not self.coverage.reads(self.text)

    @property
    def source(self) -> str:
        """The sentence as a reader sees it."""
        return self.core.shown()

    def restore(self, translation: str) -> RestoredText | None:
        """The finished translation; None if something was dropped or cannot be placed.

        Where the model gives nothing for a sentence, the sentence stays as it is.
        """
        if isinstance(translation, RestoredText):
            return translation
        return self._compose(translation, self.words, {}, False)

    def check(self, index: int, translation: str) -> Repair | None:
        """What must be translated in addition; None if this translation is complete."""
        if not self.core.elements or self.restore(translation) is not None:
            return None
        complete = replacements_of(clean(translation), self.core, self.words) is not None
        others = [] if complete else self._other_words()
        spans = find_spans(self.core)
        texts = [self._engine_text(self.core, words) for words in others]
        if spans is not None:
            for words in (self.words, *others):
                texts += [text for _, text in self._span_texts(spans[0], words)]
        if not complete or spans is None:
            texts += self._stretch_texts()
        texts = [text for text in dict.fromkeys(texts) if self._translatable(text)]

        def join(translations: Sequence[str]) -> RestoredText:
            known = dict(zip(texts, translations, strict=True))
            attempts = [(translation, self.words)]
            attempts += [
                (known.get(self._engine_text(self.core, words), ""), words) for words in others
            ]
            for final in (False, True):
                for whole, words in attempts:
                    restored = self._compose(whole, words, known, final)
                    if restored is not None:
                        method: ProjectionMethod = "whole" if words == self.words else "other words"
                        return restored.with_method("in proportion" if final else method)
            return self._from_stretches(translation, known) or self._in_proportion(translation)

        return Repair(index, tuple(texts), "tags" if complete else "dropped", join)

    def finish(self, translation: str) -> RestoredText:
        """The finished translation without a repair: what was dropped is placed in proportion."""
        return self.restore(translation) or self._in_proportion(translation)

    def _other_words(self) -> list[list[SentPlaceholder]]:
        """Other placeholder words for the protected words, for when the model dropped one."""
        retries = (assign(self.core, self.placeholder_words, attempt) for attempt in RETRIES)
        return [words for words in retries if words and words != list(self.words)]

    def _translatable(self, text: str) -> bool:
        return any(map(str.isalpha, text)) and self.fits(text)

    def _engine_text(self, core: InlineText, words: Sequence[SentPlaceholder]) -> str:
        return engine_text(core, words, self.coverage, adds_stop=self.adds_stop)

    def _translated(self, core: InlineText, translation: str) -> str:
        """A translation without invented markup and the added full stop, with what plain characters
        stood for."""
        text = clean(translation)
        if self.adds_stop:
            text = strip_added_stop(text, core)
        text = with_final_marks(core.text, text)
        if text[-1:] not in TERMINAL:
            text = with_lost_mark(text, core)
        if self.coverage is None:
            return NOTHING_REPLACED.restore(core.text, text)
        return self.coverage.restore(core.text, text)

    def _compose(
        self, whole: str, words: Sequence[SentPlaceholder], known: Mapping[str, str], final: bool
    ) -> RestoredText | None:
        """The whole sentence's translation with everything in its place, if there is one."""
        text = self._translated(self.core, whole)
        if not self.core.elements:
            text = text or self.source
            return RestoredText.of(self.escape(text), text)
        replacements = replacements_of(text, self.core, words)
        if replacements is None or not text:
            return None
        found = find_spans(self.core)
        if found is None:
            return None
        root, points = found
        source, output = source_words(self.core, words), Words.of(text)
        own = {
            span.stretch: known.get(stretch_text, stretch_text)
            for span, stretch_text in self._span_texts(root, words)
        }
        if not locate(root, len(source), output, own, final):
            return None
        insertions = tag_edits(self.core, root, output)
        insertions += self._points(points, self.core, words, output)
        return self._assembled(text, [*replacements, *insertions])

    def _span_texts(self, root: Span, words: Sequence[SentPlaceholder]) -> list[tuple[Span, str]]:
        spans, waiting = [], list(root.children)
        while waiting:
            span = waiting.pop()
            waiting += span.children
            spans.append(span)
        return [(span, self._text_of(span.stretch, words)) for span in spans]

    def _text_of(self, stretch: tuple[int, int], words: Sequence[SentPlaceholder]) -> str:
        before = len(protected_words(self.core.cut(0, stretch[0])))
        return self._engine_text(self.core.cut(*stretch), words[before:])

    def _assembled(self, text: str, edits: list[Edit]) -> RestoredText:
        output, shown = [], []
        place = 0
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.order)):
            literal = text[place : max(place, edit.start)]
            output += [self.escape(literal), edit.output]
            shown += [literal, edit.shown]
            place = max(place, edit.end)
        output.append(self.escape(text[place:]))
        shown.append(text[place:])
        return RestoredText.of("".join(output), "".join(shown))

    def _stretch_texts(self) -> list[str]:
        """The texts to translate the sentence in parts, or without placeholder words."""
        texts = []
        for inline, words in self._split_at_tags():
            texts.append(self._engine_text(*_trimmed(inline, words)[1:3]))
            texts += [
                self._engine_text(*_trimmed(part, ())[1:3])
                for part in split_at(inline, is_protected_word)
                if words and not protected_words(part)
            ]
        return texts

    def _split_at_tags(self) -> list[tuple[InlineText, Sequence[SentPlaceholder]]]:
        """The sentence split before and after tags and symbols; each part with what is sent for its
        protected words."""
        stretches, used = [], 0
        for inline in split_at(self.core, is_mark):
            count = len(protected_words(inline))
            stretches.append((inline, self.words[used : used + count]))
            used += count
        return stretches

    def _from_stretches(self, whole: str, known: Mapping[str, str]) -> RestoredText | None:
        """The sentence split at tags, and at protected words where the model dropped them; None if
        the model makes nothing of such a part."""
        parts: list[RestoredText] = []
        for inline, words in self._split_at_tags():
            if (translated := self._stretch(inline, words, whole, known)) is not None:
                parts.append(translated)
                continue
            for part in split_at(inline, is_protected_word):
                alone = self._stretch(part, (), whole, known) if part.has_letter() else None
                if alone is None and part.has_letter():
                    return None
                parts.append(alone or RestoredText.of(part.output(), part.shown()))
        return RestoredText.of("".join(parts), "".join(part.shown for part in parts), "in parts")

    def _stretch(
        self,
        inline: InlineText,
        words: Sequence[SentPlaceholder],
        whole: str,
        known: Mapping[str, str],
    ) -> RestoredText | None:
        """A part's own translation, with the spaces around it; None if it is unusable."""
        before, core, inside, after = _trimmed(inline, words)
        if not core.has_letter():
            return RestoredText.of(inline.output(), inline.shown())
        alone = self._translated(core, known.get(self._engine_text(core, inside), ""))
        text = _like(core.text, alone, whole)
        replacements = replacements_of(text, core, inside)
        if replacements is None or not text or _runs_on(source=core.text, translation=text):
            return None
        spans = find_spans(core)
        edits = self._points(spans[1], core, inside, Words.of(text)) if spans else []
        middle = self._assembled(text, [*replacements, *edits])
        return RestoredText.of(
            before.output() + middle + after.output(),
            before.shown() + middle.shown + after.shown(),
        )

    def _points(
        self,
        points: Sequence[AlignmentPoint],
        core: InlineText,
        words: Sequence[SentPlaceholder],
        output: Words,
    ) -> list[Edit]:
        source = source_words(core, words)
        return [
            point_edit(point, boundary(point, source, output), order, output)
            for order, point in enumerate(points)
        ]

    def _in_proportion(self, translation: str) -> RestoredText:
        text = self._translated(self.core, translation)
        for word in self.words:
            text = re.sub(rf"(?<!\w){re.escape(word.expected)}s?(?!\w)", "", text)
        text = " ".join(text.split())
        output = Words.of(text)
        partners = pair_up(self.core)
        edits: list[Edit] = []
        for place, element in zip(self.core.places, self.core.elements, strict=True):
            if element.kind == "character":
                continue
            index = round(place / len(self.core.text) * len(output))
            at = output.spans[index][0] if index < len(output) else len(text)
            written = f"{element.output} " if element.stands_for_word else element.output
            opening = partners.get(place)
            if element.kind == "close" and opening is not None and edits[-1].start == at:
                inside = self.core.cut(opening + 1, place)
                if not inside.has_element():
                    written = self.escape(inside.shown()) + written
            shown = element.term or element.shown
            edits.append(Edit(at, at, (1, len(edits)), written, shown))
        return self._assembled(text, edits).with_method("source positions")


def _trimmed(
    inline: InlineText, words: Sequence[SentPlaceholder]
) -> tuple[InlineText, InlineText, Sequence[SentPlaceholder], InlineText]:
    """What is before a part's sentence, the sentence, its protected words, what is after it."""
    start, end = edges(inline)
    before, core = inline.cut(0, start), inline.cut(start, end)
    first = len(protected_words(before))
    inside = words[first : first + len(protected_words(core))]
    return before, core, inside, inline.cut(end, len(inline.text))


def is_mark(element: InlineElement) -> bool:
    return element.has_no_width


def is_protected_word(element: InlineElement) -> bool:
    return element.stands_for_word


def split_at(inline: InlineText, at: Callable[[InlineElement], bool]) -> list[InlineText]:
    """Cut before and after some elements; the parts add up."""
    places = [
        place for place, element in zip(inline.places, inline.elements, strict=True) if at(element)
    ]
    cuts = sorted({0, len(inline.text), *places, *(place + 1 for place in places)})
    return [inline.cut(start, end) for start, end in pairwise(cuts)]


def _runs_on(source: str, translation: str) -> bool:
    """Whether the translation of a part repeats itself or is far too long."""
    words = translation.casefold().split()
    repeats = any(left == right for left, right in pairwise(words))
    return repeats or len(words) > 2 * len(source.split()) + 2


def _like(source: str, translation: str, whole: str) -> str:
    """The translation of a part without the capital letter that a sentence would have."""
    first = re.match(r"\w+", translation)
    if first and source[:1].islower() and re.search(rf"\b{first[0].lower()}\b", whole):
        return first[0].lower() + translation[first.end() :]
    return translation
