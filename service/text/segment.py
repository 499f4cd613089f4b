"""A sentence and its translation: what is sent to the model, and how markup is projected back.

In the translation, protected words replace their placeholder words, and tags and symbols are
inserted at the places that `service/text/alignment.py` finds. If the model dropped something, the
segment asks for a `Repair`: other placeholder words, or parts of the sentence by themselves.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service.text.accelerators import Accelerator, put_in
from service.text.alignment import (
    AlignmentPoint,
    Span,
    Words,
    boundary,
    find_spans,
    locate,
    source_words,
    translation_of,
    words_of,
)
from service.text.coverage import Coverage
from service.text.currencies import sign_beside
from service.text.dashes import lost_dashes, split_at_dashes
from service.text.edits import Edit, clean, point_edit, replacements_of, tag_edits
from service.text.final_marks import (
    TERMINAL,
    strip_added_stop,
    with_ellipses,
    with_lost_mark,
    without_added_end,
)
from service.text.inline import Escape, InlineElement, InlineText, InlineTextBuilder, Kind
from service.text.numerals import (
    DIGIT,
    Number,
    Numerals,
    numbers_of,
    runs_of,
)
from service.text.pieces import (
    count_words,
    is_mark,
    is_protected_word,
    like,
    repeats,
    runs_on,
    split_at,
    trimmed,
    without_spaces,
)
from service.text.placeholders import (
    NUMERAL,
    PlaceholderWords,
    SentPlaceholder,
    assign,
    engine_text,
    protected_words,
)
from service.text.sentences import pair_up
from service.text.spelled_out import spell_out, with_number_signs, with_plain_times
from service.text.target_forms import with_target_forms
from service.text.typography import NOTHING_REPLACED, with_final_marks
from service.text.units import end_of_unit

MOST_INSIDE_TAGS = 4
"""Characters inside tags, counted once for each tag, that are translated by themselves: so many
times those of the sentence."""
RETRIES = (1, 2)
"""Further attempts at a sentence from which the model dropped something, with other words."""

ProjectionMethod = Literal[
    "whole", "other words", "in proportion", "in parts", "source positions", "numbers"
]
"""How markup was projected. `whole`: everything was found in the sentence's translation; `other
words`: in one with other placeholder words; `in proportion`: tags were not found, and placed in
proportion to the source; `in parts`: spans were translated by themselves; `source positions`:
everything was placed in proportion to the source; `numbers`: other numbers were sent."""


class RestoredText(str):
    """A finished translation: in the document's format, with all protected spans and tags."""

    shown: str
    """The same as a reader sees it."""
    method: ProjectionMethod
    """How its markup was projected."""
    numbers_differ: bool
    """Whether its numbers are not those of the source."""

    @classmethod
    def of(
        cls,
        output: str,
        shown: str,
        method: ProjectionMethod = "whole",
        *,
        numbers_differ: bool = False,
    ) -> RestoredText:
        restored = cls(output)
        restored.shown, restored.method, restored.numbers_differ = shown, method, numbers_differ
        return restored

    def with_method(self, method: ProjectionMethod) -> RestoredText:
        return RestoredText.of(str(self), self.shown, method, numbers_differ=self.numbers_differ)


@dataclass(frozen=True)
class Repair:
    """More to translate for a segment, and how to put it together.

    `texts` are plain texts that the engine takes; `join` gets their translations in order.
    """

    segment: int
    texts: tuple[str, ...]
    reason: str
    """`dropped`: the model lost something; `tags`: tagged spans must be found; `numbers`: numbers
    differ; `dashes`: dashes between clauses were lost."""
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
    numerals: Numerals | None = None
    """How both languages write numbers; None leaves them to the model."""
    accelerators: Sequence[Accelerator] = ()
    """Keys that were taken out of the sentence, which is a label."""
    language: str = ""
    """The source's code."""

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
        repair = self._repair(index, translation)
        if repair is None or not self.accelerators:
            return repair
        join = repair.join
        return replace(repair, join=lambda translations: self._with_keys(join(translations)))

    def _with_keys(self, restored: RestoredText) -> RestoredText:
        """A finished translation with the keys of a label."""
        output, shown = (put_in(one, self.accelerators) for one in (restored, restored.shown))
        return RestoredText.of(
            output, shown, restored.method, numbers_differ=restored.numbers_differ
        )

    def _repair(self, index: int, translation: str) -> Repair | None:
        """The same without the keys of a label."""
        if isinstance(translation, RestoredText):
            return None
        if (
            not self.core.elements
            and (self.numerals is None or self.numerals.agree_at_sight(self.core.text, translation))
            and not self._lost_dashes(translation)
        ):
            return None
        if (restored := self.restore(translation)) is not None:
            return self._check_numbers(index, restored) or self._check_dashes(index, restored)
        complete = replacements_of(clean(translation), self.core, self.words) is not None
        others = [] if complete else self._other_words()
        spans = find_spans(self.core)
        texts = [self._engine_text(self.core, words) for words in others]
        if spans is not None:
            for words in (self.words, *others):
                texts += [text for _, text in self._span_texts(spans[0], words)]
        if not complete or spans is None:
            texts += self._stretch_texts()
        read_as = with_plain_times(self.core.text, self.language)
        lacks = self.numerals and self.numerals.differences(read_as, translation)[0]
        attempts = self._with_other_numbers(translation) if lacks else []
        clauses = self._clauses() if self._lost_dashes(translation) else []
        texts += self._texts_of([*attempts, *clauses])
        texts = [text for text in dict.fromkeys(texts) if self._translatable(text)]

        def join(translations: Sequence[str]) -> RestoredText:
            known = dict(zip(texts, translations, strict=True))
            restored = self._with_verdict(joined(translations))
            restored = self._in_clauses(clauses, known, restored) or restored
            return (
                restored.numbers_differ and _best_of(attempts, known, restored.shown)
            ) or restored

        def joined(translations: Sequence[str]) -> RestoredText:
            known = dict(zip(texts, translations, strict=True))
            wholes = [(translation, self.words)]
            wholes += [
                (known.get(self._engine_text(self.core, words), ""), words) for words in others
            ]
            for final in (False, True):
                for whole, words in wholes:
                    restored = self._compose(whole, words, known, final)
                    if restored is not None:
                        method: ProjectionMethod = "whole" if words == self.words else "other words"
                        return restored.with_method("in proportion" if final else method)
            return self._from_stretches(translation, known) or self._in_proportion(translation)

        return Repair(index, tuple(texts), "tags" if complete else "dropped", join)

    def _with_verdict(self, restored: RestoredText) -> RestoredText:
        """A finished translation that says whether its numbers are those of the source."""
        if self.numerals is None or self.numerals.agree(self._read_as, restored.shown):
            return restored
        return RestoredText.of(str(restored), restored.shown, restored.method, numbers_differ=True)

    @property
    def _read_as(self) -> str:
        """The sentence as a reader sees it, with the glossary's terms translated."""
        parts = (part if isinstance(part, str) else part.term or part.shown for part in self.core)
        return with_plain_times("".join(parts), self.language)

    def _check_numbers(self, index: int, restored: RestoredText) -> Repair | None:
        """More to translate where the numbers of a finished translation are not the source's."""
        if self.numerals is None or self.numerals.agree(self._read_as, restored.shown):
            return None
        attempts = self._with_other_numbers(restored.shown)
        texts = self._texts_of(attempts)

        def join(translations: Sequence[str]) -> RestoredText:
            known = dict(zip(texts, translations, strict=True))
            return _best_of(attempts, known, restored.shown) or self._with_verdict(restored)

        return Repair(index, texts, "numbers", join)

    def _lost_dashes(self, translation: str) -> bool:
        """Whether a translation has fewer dashes between clauses than what was sent."""
        return lost_dashes(self.core.text, translation) and lost_dashes(
            spell_out(self.core.text, self.language), translation
        )

    def _check_dashes(self, index: int, restored: RestoredText) -> Repair | None:
        """The clauses by themselves where a finished translation lost a dash between them."""
        if not self._lost_dashes(restored.shown):
            return None
        clauses = self._clauses()
        texts = self._texts_of(clauses)

        def join(translations: Sequence[str]) -> RestoredText:
            known = dict(zip(texts, translations, strict=True))
            return self._in_clauses(clauses, known, restored) or self._with_verdict(restored)

        return Repair(index, texts, "dashes", join)

    def _in_clauses(
        self, clauses: Sequence[Segment], known: Mapping[str, str], whole: RestoredText
    ) -> RestoredText | None:
        """The translations of its clauses, if the whole one's lost a dash between them and they
        are usable."""
        if not clauses or not self._lost_dashes(whole.shown):
            return None
        parts = [clause._as_clause(known, whole.shown) for clause in clauses]
        translated = [part for part in parts if part is not None]
        if len(translated) < len(parts):
            return None
        shown = "".join(part.shown for part in translated)
        return self._with_verdict(RestoredText.of("".join(translated), shown, "in parts"))

    def _clauses(self) -> list[Segment]:
        """What is between dashes, and these."""
        clauses, used = [], 0
        for core in split_at_dashes(self.core):
            count = len(protected_words(core))
            words = self.words[used : used + count]
            text = self._engine_text(core, words)
            clauses.append(replace(self, text=text, core=core, words=words, accelerators=()))
            used += count
        return clauses

    def _as_clause(self, known: Mapping[str, str], whole: str) -> RestoredText | None:
        """Its translation as a part of a sentence; None if it is unusable."""
        if not self.core.has_letter():
            return RestoredText.of(self.core.output(), self.core.shown())
        translation = like(self.core.text, known.get(self.text, ""), whole)
        if not translation or runs_on(self.text, translation):
            return None
        return self._compose(translation, self.words, known, False) or self._compose(
            translation, self.words, known, True
        )

    def _with_other_numbers(self, translation: str) -> list[Segment]:
        """The sentence with numbers that the model copies: first in the place of those that the
        translation lacks, then of all; then with names."""
        if self.numerals is None:
            return []
        missing, _ = self.numerals.differences(self._read_as, translation)
        lost = {number.text for number in missing}
        words = (one for one in self.numerals.words_of(self.core.text) if one.text in lost)
        numbers = sorted((*numbers_of(self.core.text), *words), key=lambda one: one.start)
        own = [number for number in numbers if not self._is_protected(number)]
        runs = runs_of(self.core.text, own)
        first = [run for run in runs if any(number.text in lost for number in run)] or runs
        tries = [(first, 0, NUMERAL), (first, 1, NUMERAL), (first, 0, ""), (first, 1, "")]
        tries += [(runs, 0, NUMERAL), (runs, 0, "")] if first != runs else []
        return [
            segment
            for chosen, attempt, name in tries
            if chosen and (segment := self._with_numbers(chosen, attempt, name)) is not None
        ]

    def _texts_of(self, attempts: Sequence[Segment]) -> tuple[str, ...]:
        texts = [segment.text for segment in attempts]
        for segment in attempts:
            if (found := find_spans(segment.core)) is not None:
                texts += [text for _, text in segment._span_texts(found[0], segment.words)]
        return tuple(text for text in dict.fromkeys(texts) if self._translatable(text))

    def _is_protected(self, number: Number) -> bool:
        """Whether a part of a number is written otherwise in the source, or protected."""
        low = bisect_left(self.core.places, number.start)
        return low < len(self.core.places) and self.core.places[low] < number.end

    def _with_numbers(
        self, runs: Sequence[Sequence[Number]], attempt: int, name: str
    ) -> Segment | None:
        """The sentence with some of its numbers and their units sent as other numbers, or as names
        without a `name`; None if there are too few of those."""
        assert self.numerals is not None
        text, builder, place = self.core.text, InlineTextBuilder(), 0
        for run in runs:
            start, end = sign_beside(text, run[0].start, end_of_unit(text, run[-1].end))
            start = max(start, place)
            form = text[start:end]
            for number in reversed(run):
                own = self.numerals.form_of(text, number)
                form = form[: number.start - start] + own + form[number.end - start :]
            builder.add_inline(self.core.cut(place, start))
            kind: Kind = "number" if name else "word"
            element = InlineElement(text[start:end], kind, self.escape(form), form, name)
            builder.add_element(element)
            place = end
        builder.add_inline(self.core.cut(place, len(text)))
        core = builder.build()
        words = assign(core, self.placeholder_words, attempt, self.coverage)
        if words is None:
            return None
        return replace(self, core=core, words=words, text=self._engine_text(core, words))

    def finish(self, translation: str) -> RestoredText:
        """The finished translation without a repair: what was dropped is placed in proportion."""
        if isinstance(translation, RestoredText):
            return translation
        restored = self.restore(translation) or self._in_proportion(translation)
        return self._with_keys(restored) if self.accelerators else restored

    def _other_words(self) -> list[list[SentPlaceholder]]:
        """Other placeholder words for the protected words, for when the model dropped one."""
        retries = (assign(self.core, self.placeholder_words, attempt) for attempt in RETRIES)
        return [words for words in retries if words and words != list(self.words)]

    def _translatable(self, text: str) -> bool:
        return any(map(str.isalpha, text)) and self.fits(text)

    def _engine_text(self, core: InlineText, words: Sequence[SentPlaceholder]) -> str:
        return engine_text(
            core,
            words,
            self.coverage,
            adds_stop=self.adds_stop,
            language=self.language,
            numerals=self.numerals,
        )

    def _translated(self, core: InlineText, translation: str) -> str:
        """A translation without invented markup and the added full stop, with what plain characters
        stood for."""
        text = clean(translation)
        if self.adds_stop:
            text = strip_added_stop(text, core)
        text = without_added_end(text, core)
        text = with_final_marks(core.text, with_ellipses(text, core.text))
        if text[-1:] not in TERMINAL:
            text = with_lost_mark(text, core)
        text = self._in_target_forms(core, text)
        if self.numerals is not None and DIGIT.search(text):
            text = self.numerals.converted(with_plain_times(core.text, self.language), text)
        source = spell_out(without_spaces(core), self.language)
        if self.coverage is None:
            return NOTHING_REPLACED.restore(source, text)
        return self.coverage.restore(source, text)

    def _in_target_forms(self, core: InlineText, translation: str) -> str:
        if self.numerals is None or not DIGIT.search(core.text):
            return translation
        translation = with_number_signs(core.text, translation, self.numerals.target)
        return with_target_forms(core.text, translation, self.numerals.target)

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
        written = words_of(text) if root.children else ""
        own = {
            span.stretch: self._in_target_forms(
                self.core.cut(*span.stretch), translation_of(stretch_text, known, written)
            )
            for span, stretch_text in self._span_texts(root, words)
        }
        if not locate(root, len(source), output, own, final):
            return None
        insertions = tag_edits(self.core, root, output)
        insertions += self._points(points, self.core, words, output)
        return self._assembled(text, [*replacements, *insertions])

    def _span_texts(self, root: Span, words: Sequence[SentPlaceholder]) -> list[tuple[Span, str]]:
        """What is inside each tag; of deep nests that of the outer ones, since all of them are many
        times the sentence."""
        spans, waiting = [], list(root.children)
        left = MOST_INSIDE_TAGS * len(self.core.text)
        for span in waiting:  # which grows
            left -= span.stretch[1] - span.stretch[0]
            if left < 0:
                break
            waiting += span.children
            spans.append(span)
        return [(span, self._text_of(span.stretch, words)) for span in spans]

    def _text_of(self, stretch: tuple[int, int], words: Sequence[SentPlaceholder]) -> str:
        before = self.core.cut(0, stretch[0])
        return engine_text(
            self.core.cut(*stretch),
            words[len(protected_words(before)) :],
            self.coverage,
            adds_stop=self.adds_stop,
            language=self.language,
            numerals=self.numerals,
            is_first=not before.has_letter(),
        )

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
            texts.append(self._engine_text(*trimmed(inline, words)[1:3]))
            texts += [
                self._engine_text(*trimmed(part, ())[1:3])
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
        before, core, inside, after = trimmed(inline, words)
        if not core.has_letter():
            return RestoredText.of(inline.output(), inline.shown())
        alone = self._translated(core, known.get(self._engine_text(core, inside), ""))
        text = like(core.text, alone, whole)
        replacements = replacements_of(text, core, inside)
        if replacements is None or not text or runs_on(source=core.text, translation=text):
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


def _best_of(
    attempts: Sequence[Segment], known: Mapping[str, str], first: str
) -> RestoredText | None:
    """The translation with the source's numbers that does not repeat itself and has as many words
    as the source or the `first` translation, whichever has more, or nearly; None if none has the
    numbers."""
    restored = []
    for segment in attempts:
        translation = known.get(segment.text, "")
        for final in (False, True):
            again = segment._compose(translation, segment.words, known, final)
            if again is not None and not segment._with_verdict(again).numbers_differ:
                restored.append(again.with_method("numbers"))
                break
    texts = [first, *(segment.source for segment in attempts[:1])]
    count = max(map(count_words, texts))
    return min(
        restored,
        key=lambda one: (repeats(one.shown), abs(count_words(one.shown) - count)),
        default=None,
    )
