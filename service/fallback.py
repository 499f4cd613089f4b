"""Checks of translations and the options of fallback decoding. Pure functions.

A sentence whose translation looks wrong is decoded again, by beam search and then with a repetition
penalty (Whisper's temperature fallback does the same for speech). The best of at most three
translations is kept; what still looks wrong becomes its warnings. The limits were chosen on
validation text of two domains; docs/serving.md states how often they flag a good line.

A translation that addresses its reader in the other form than asked for gives way to one of the
next best of a beam search that does not, where there is one; so does one that mixes both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from export.runtime.engines import TranslateOptions, Translation
from export.runtime.manifest import SEARCH_OPTIONS
from quickstudy.form_of_address import Formality

MAX_TOKEN_RATIO, MIN_TOKEN_RATIO = 2.5, 0.4
"""Output tokens to source tokens, `</s>` counted on both sides."""
MIN_TOKENS_TO_MEASURE = 3
"""A source of fewer tokens may become anything."""
MIN_SCORE = -1.4
"""Mean log-probability of a token, nats."""
MIN_ECHO_WORDS = 3
"""Words in lower case, of two letters at least, that a sentence needs to be an echo."""
FALLBACK_BEAM_SIZE = 4
REPETITION_PENALTY = 1.3
FORM_ALTERNATIVES = 3
"""Translations besides the best one among which the asked form of address is looked for."""

SEVERITY = {
    "truncated": 4,
    "repetition": 4,
    "echo": 3,
    "too_short": 2,
    "too_long": 2,
    "low_score": 1,
}
"""The codes of what is checked here, and how much each counts against a translation."""
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
WORD_OR_MARK = re.compile(WORD.pattern + r"|(?<=[\w'])[^\w\s]")
LONGEST_PHRASE = 12
STUTTER = re.compile(r"([^\W\d_]{1,4}?)\1{3,}")
"""Letters that repeat themselves within a word, four times or more."""


@dataclass(frozen=True)
class Phrases:
    """Phrases of so many words, and how many times in a row are too often; `apart`: marks between
    words part them, since "die, die die Stadt besitzen" is German."""

    size: int
    times: int
    apart: bool = False

    def in_a_row(self, words: Sequence[str]) -> int:
        """Most times that a phrase of these words follows itself; 1 if none does."""
        if len(set(words)) > len(words) - self.size:
            return 1  # one that follows itself has as many words twice
        longest = run = 0  # of words that come again so many places on
        for word, later in zip(words, words[self.size :], strict=False):
            run = run + 1 if word == later else 0
            longest = max(longest, run)
        return longest // self.size + 1


PHRASES = (
    Phrases(1, 3, apart=True),
    Phrases(2, 2, apart=True),
    Phrases(2, 3),
    *(Phrases(size, 2) for size in range(3, LONGEST_PHRASE + 1)),
)


@dataclass(frozen=True)
class TranslationWarning:
    """Something that may be wrong with a translation: a fixed code for programs, and a message for
    people that holds none of the text."""

    code: str
    message: str


@dataclass(frozen=True)
class AskedForm:
    """The form of address that translations should have, and what tells those of a text."""

    form: Formality
    forms_of: Callable[[str], frozenset[Formality]]

    def is_missed_by(self, text: str) -> bool:
        """Whether a text has the other form, or both; one that addresses nobody has none."""
        return not self.forms_of(text) <= {self.form}

    def options(
        self, options: TranslateOptions, supported: frozenset[str]
    ) -> TranslateOptions | None:
        """The options to look for it with; None where an engine has no alternatives."""
        if not {"beam_size", "alternatives"} <= supported:
            return None
        return replace(
            options,
            beam_size=max(FALLBACK_BEAM_SIZE, options.beam_size),
            alternatives=max(FORM_ALTERNATIVES, options.alternatives),
        )

    def pick(
        self, source: str, source_tokens: int, first: Translation, found: Translation
    ) -> Translation | None:
        """The best of what a search with `options` found that has this form and no more wrong with
        it than the first translation; without a score unless it is the search's best. In the place
        of one that mixes both forms, one that seems to have none will do."""
        others = [
            Translation(text, found.tokens, truncated=found.truncated)
            for text in found.alternatives
        ]
        limit = _severity(source, source_tokens, first)
        candidates = (replace(found, alternatives=()), *others)
        accepted = [frozenset({self.form})]
        if len(self.forms_of(first.text)) > 1:
            accepted.append(frozenset())
        for wanted in accepted:
            for candidate in candidates:
                has_form = self.forms_of(candidate.text) == wanted
                if has_form and _severity(source, source_tokens, candidate) <= limit:
                    rest = [one.text for one in candidates if one.text != candidate.text]
                    return replace(candidate, alternatives=tuple(rest[: len(first.alternatives)]))
        return None


ECHO = TranslationWarning("echo", "The translation is the source text.")
PARTIAL_ECHO = TranslationWarning("echo", "A part of the translation is the source text.")
STEP_ECHO = TranslationWarning("echo", "On the way through English, a text came back as it was.")


def check_output(
    source: str, source_tokens: int, translation: Translation
) -> tuple[TranslationWarning, ...]:
    """What looks wrong with a sentence's translation, worst first."""
    warnings = [
        _truncated(translation),
        _repetition(source, translation.text),
        _echo(source, translation.text),
        _length(source_tokens, translation.tokens),
        _low_score(translation),
    ]
    return tuple(warning for warning in warnings if warning is not None)


def pick_better(
    source: str, source_tokens: int, first: Translation, second: Translation
) -> Translation:
    """The translation with the less severe warnings; of equals the likelier one, else the first."""
    severities = [_severity(source, source_tokens, candidate) for candidate in (first, second)]
    if severities[0] != severities[1]:
        return first if severities[0] < severities[1] else second
    if first.score is None or second.score is None or second.score <= first.score:
        return first
    return second


def fallback_options(
    options: TranslateOptions, supported: frozenset[str] = SEARCH_OPTIONS
) -> Sequence[TranslateOptions]:
    """The options to decode a sentence with, in this order, when its translation by the given
    options looks wrong: two at most, and none that was used already. An engine whose `supported`
    options have no beam gets the penalty alone."""
    widest = FALLBACK_BEAM_SIZE if "beam_size" in supported else 1
    beam = replace(options, beam_size=max(widest, options.beam_size))
    penalty = replace(beam, repetition_penalty=max(REPETITION_PENALTY, options.repetition_penalty))
    return [fallback for fallback in dict.fromkeys((beam, penalty)) if fallback != options]


def _severity(source: str, source_tokens: int, translation: Translation) -> int:
    warnings = check_output(source, source_tokens, translation)
    return sum(SEVERITY[warning.code] for warning in warnings)


def _truncated(translation: Translation) -> TranslationWarning | None:
    if not translation.truncated:
        return None
    return TranslationWarning("truncated", "The output limit cut the translation off.")


def _repetition(source: str, text: str) -> TranslationWarning | None:
    """A phrase that follows itself, or letters that do, more than in the source."""
    if (stutters := _stutters(text)) and stutters > _stutters(source):
        return TranslationWarning("repetition", "Letters of a word repeat themselves.")
    words = _words(text)
    if len(set(words)) == len(words):
        return None
    apart = _words_apart(text)
    for phrases in PHRASES:
        found = phrases.in_a_row(apart if phrases.apart else words)
        if found < phrases.times:
            continue
        if found > phrases.in_a_row(_words_apart(source) if phrases.apart else _words(source)):
            return TranslationWarning(
                "repetition", f"The translation says something {found} times in a row."
            )
    return None


def _stutters(text: str) -> int:
    return max(
        (
            len(match[0])
            for word in text.casefold().split()
            if len(set(word)) <= len(word) - 3  # four times k letters hold k different ones at most
            for match in STUTTER.finditer(word)
        ),
        default=0,
    )


def _echo(source: str, text: str) -> TranslationWarning | None:
    """The source itself, unless it is names, numbers, letters (`9 a.m.`) or a word or two; it also
    takes the place of nothing."""
    if not text.strip():
        return ECHO if any(map(str.isalpha, source)) else None
    common = [word for word in WORD.findall(source) if word.islower() and len(word) > 1]
    if len(common) < MIN_ECHO_WORDS or _words(source) != _words(text):
        return None
    return ECHO


def _length(source_tokens: int, tokens: int) -> TranslationWarning | None:
    if source_tokens < MIN_TOKENS_TO_MEASURE:
        return None
    ratio = (tokens + 1) / (source_tokens + 1)
    if ratio > MAX_TOKEN_RATIO:
        return TranslationWarning(
            "too_long", f"The translation has {ratio:.1f} times the source's tokens."
        )
    if ratio < MIN_TOKEN_RATIO:
        return TranslationWarning(
            "too_short", f"The translation has {ratio:.1f} times the source's tokens."
        )
    return None


def _low_score(translation: Translation) -> TranslationWarning | None:
    if translation.score is None or translation.score >= MIN_SCORE:
        return None
    return TranslationWarning(
        "low_score", f"The model is unsure: {translation.score:.2f} nats a token on average."
    )


def _words(text: str, pattern: re.Pattern[str] = WORD) -> list[str]:
    return pattern.findall(unicodedata.normalize("NFKC", text).casefold())


def _words_apart(text: str) -> list[str]:
    """Words and the marks behind them, no mark like another."""
    found = enumerate(_words(text, WORD_OR_MARK))
    return [word if word[0].isalpha() else f"{word}{place}" for place, word in found]
