"""What looks wrong with a translation, and which of two is better. Pure functions.

A sentence that looks wrong is tried again, by beam search and then with a penalty on repetition;
the best of at most three tries is kept, with what still looks wrong as its warnings. The limits
were chosen on validation text of two domains; docs/serving.md states how often they flag a good
line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from export.runtime.engines import TranslateOptions, Translation

Code = Literal["repetition", "echo", "too_long", "too_short", "truncated", "low_score"]
CODES: tuple[Code, ...] = get_args(Code)

MAX_TOKEN_RATIO, MIN_TOKEN_RATIO = 2.5, 0.4
"""Output tokens to source tokens, `</s>` counted on both sides."""
MIN_TOKENS_TO_MEASURE = 3
"""A source of fewer tokens may become anything."""
MIN_SCORE = -1.4
"""Mean log-probability of a token, nats."""
MIN_ECHO_WORDS = 3
"""Words in lower case of a sentence that should not come back as it was."""
BEAM = 4
REPETITION_PENALTY = 1.3

SEVERITY: dict[Code, int] = {
    "truncated": 4,
    "repetition": 4,
    "echo": 3,
    "too_short": 2,
    "too_long": 2,
    "low_score": 1,
}
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
WORD_OR_MARK = re.compile(WORD.pattern + r"|(?<=[\w'])[^\w\s]")
PHRASE_TIMES = {1: 3, 2: 3}
"""Times that so many words may not follow themselves; of more words, twice is too often."""
LONGEST_PHRASE = 12
STUTTER = re.compile(r"([^\W\d_]{1,4}?)\1{3,}")
"""Letters that repeat themselves within a word, four times or more."""


@dataclass(frozen=True)
class SentenceWarning:
    """Something that looks wrong. `message` is for people and holds none of the text."""

    code: Code
    message: str


def check_output(
    source: str, source_tokens: int, translation: Translation
) -> tuple[SentenceWarning, ...]:
    """What looks wrong with a sentence's translation, worst first."""
    found = [
        _truncated(translation),
        _repetition(source, translation.text),
        _echo(source, translation.text),
        _length(source_tokens, translation.tokens),
        _low_score(translation),
    ]
    return tuple(warning for warning in found if warning is not None)


def pick_better(
    source: str, source_tokens: int, first: Translation, second: Translation
) -> Translation:
    """The one of which less looks wrong; of equals the likelier one, else the first."""
    wrong = [_severity(check_output(source, source_tokens, one)) for one in (first, second)]
    if wrong[0] != wrong[1]:
        return first if wrong[0] < wrong[1] else second
    if first.score is None or second.score is None or second.score <= first.score:
        return first
    return second


def fallback_options(options: TranslateOptions) -> Sequence[TranslateOptions]:
    """How to try again, in order, a sentence whose translation by these options looks wrong; two
    tries at most, and none that was made already."""
    beam = replace(options, beam_size=max(BEAM, options.beam_size))
    penalty = replace(beam, repetition_penalty=max(REPETITION_PENALTY, options.repetition_penalty))
    return [one for one in dict.fromkeys((beam, penalty)) if one != options]


def _severity(warnings: Sequence[SentenceWarning]) -> int:
    return sum(SEVERITY[warning.code] for warning in warnings)


def _truncated(translation: Translation) -> SentenceWarning | None:
    if not translation.truncated:
        return None
    return SentenceWarning("truncated", "The output limit cut the translation off.")


def _repetition(source: str, text: str) -> SentenceWarning | None:
    """A phrase that follows itself, or letters that do, more than in the source."""
    if (stutters := _stutters(text)) and stutters > _stutters(source):
        return SentenceWarning("repetition", "Letters of a word repeat themselves.")
    words = _words(text)
    if len(set(words)) == len(words):
        return None
    marked = _words(text, WORD_OR_MARK)
    for size in range(1, LONGEST_PHRASE + 1):
        # With marks, since "die, die die Stadt besitzen" is German.
        read, pattern = (marked, WORD_OR_MARK) if size == 1 else (words, WORD)
        if len(set(read)) > len(read) - size:
            continue  # a phrase of so many words that follows itself has as many words twice
        times = _most_in_a_row(read, size)
        enough = times >= PHRASE_TIMES.get(size, 2)
        if enough and times > _most_in_a_row(_words(source, pattern), size):
            return SentenceWarning(
                "repetition", f"The translation says something {times} times in a row."
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


def _most_in_a_row(words: Sequence[str], size: int) -> int:
    """Most times that a phrase of so many words follows itself; 1 if none does."""
    most = 1
    for start in range(len(words) - 2 * size + 1):
        phrase, times, place = words[start : start + size], 1, start + size
        while words[place : place + size] == phrase:
            times, place = times + 1, place + size
        most = max(most, times)
    return most


def _echo(source: str, text: str) -> SentenceWarning | None:
    """The source itself, unless it is names, numbers or a word or two."""
    common = [word for word in WORD.findall(source) if word.islower()]
    if len(common) < MIN_ECHO_WORDS or _words(source) != _words(text):
        return None
    return SentenceWarning("echo", "The translation is the source text.")


def _length(source_tokens: int, tokens: int) -> SentenceWarning | None:
    if source_tokens < MIN_TOKENS_TO_MEASURE:
        return None
    ratio = (tokens + 1) / (source_tokens + 1)
    if ratio > MAX_TOKEN_RATIO:
        return SentenceWarning(
            "too_long", f"The translation has {ratio:.1f} times the source's tokens."
        )
    if ratio < MIN_TOKEN_RATIO:
        return SentenceWarning(
            "too_short", f"The translation has {ratio:.1f} times the source's tokens."
        )
    return None


def _low_score(translation: Translation) -> SentenceWarning | None:
    if translation.score is None or translation.score >= MIN_SCORE:
        return None
    return SentenceWarning(
        "low_score", f"The model is unsure: {translation.score:.2f} nats a token on average."
    )


def _words(text: str, pattern: re.Pattern[str] = WORD) -> list[str]:
    return pattern.findall(unicodedata.normalize("NFKC", text).casefold())
