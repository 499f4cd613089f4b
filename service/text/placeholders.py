"""Placeholder words: what is sent to the model for protected spans.

Students trained on plain sentences have never met `{name}` or a URL: the shipped one copied none of
them in ten sentences, but "Boston" and "Tom" in all of twelve. So each protected span is sent as a
placeholder word, which is looked for in the translation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from service.text.coverage import Coverage
from service.text.inline import InlineElement, InlineText
from service.text.numerals import Numerals
from service.text.sentences import SPACED
from service.text.spelled_out import spell_out

NUMERAL = "numeral"
"""Name of a protected number that a reader sees, and that counts something."""
CANDIDATES = (
    "Boston", "Tom", "Japan", "London", "Washington", "England", "China", "Maria", "Hawaii",
    "Paris", "Berlin", "Madrid", "Peter", "Anna", "Martin", "David", "Robert", "Texas", "Chicago",
)  # fmt: skip
NUMBER_CANDIDATES = ("5", "20", "30", "10", "3")
LONG_NUMBERS = ("748", "592", "361", "827", "946", "173")
"""What is tried in place of names for a vocabulary without Latin letters."""
PROBES = (
    "Please send {} to my brother.",
    "The file {} was not found.",
    "You can find it at {}.",
    "Hello {}, how are you?",
    "Click on {} to open the page.",
    "Write to {} if you have questions.",
    "The price of {} is too high.",
    "{} and the others were deleted.",
)
BARE_PROBES = ("{}.", "{}!", "({}).", "{}?")
ENOUGH = 0.75
"""Share of the probes that a word must survive to be used."""
WESTERN = "\u0590"
"""Scripts before this code point end sentences with a full stop."""
NOT_AFTER = r"(?<![\w/@#$%{<&=+~])(?<!\w[-.:_])"
NOT_BEFORE = r"(?=s?(?![\w/@#$%}<&=+~(]|[-.:_]\w))"
"""What would turn a protected span into another address or placeholder if it touched it."""
BEFORE_MARK = frozenset(".,;:!?…)]")
"""What has no space before it once a symbol is taken out there."""
JOINTS = frozenset("-‐‑/'’")
"""What joins the words on both sides of a tag."""
BEHIND_WORD = BEFORE_MARK | frozenset('"”»}%‰ ')
"""What belongs to the word before a tag, if no space is between them."""
SPACES = re.compile(r"\s+")
SYMBOL_SHOWN = re.compile(r"^[^\w\s\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff*_~`\\<]")
"""Not what only marks up, nor what has no width."""


@dataclass(frozen=True)
class PlaceholderWords:
    """The words sent for protected spans and for those that are numbers, in the order of use."""

    words: tuple[str, ...]
    numbers: tuple[str, ...] = ()


EN_DE = PlaceholderWords(
    ("Boston", "Tom", "Japan", "London", "Washington", "England"), ("20", "5", "30")
)
"""What the shipped model copied in at least 10 of 12 sentences (names), 7 of 12 (numbers)."""


def choose_placeholder_words(
    translate: Callable[[list[str]], Sequence[str]], coverage: Coverage | None = None
) -> PlaceholderWords:
    """Find words that a model copies, by about 200 short sentences in one call of `translate`.

    What the model cannot read is not tried; one whose vocabulary has none of the names gets numbers
    in their place. With gaps in its vocabulary it gets up to 12 words and 5 numbers, since more is
    protected, else 6 and 3. Probes are English; a model with another source language gets few
    placeholder words or none, and its sentences are then split at protected spans.
    """
    names = [word for word in CANDIDATES if _is_readable(word, coverage)]
    probes = [probe for probe in PROBES if _is_readable(probe.format("5"), coverage)]
    words, probes = names or list(LONG_NUMBERS), probes or list(BARE_PROBES)
    candidates = (*words, *NUMBER_CANDIDATES)
    sentences = [probe.format(word) for word in candidates for probe in probes]
    outputs = list(translate(sentences))
    shares = {
        word: _share_copied(word, outputs[at * len(probes) : (at + 1) * len(probes)])
        for at, word in enumerate(candidates)
    }
    best = sorted((word for word in candidates if shares[word] >= ENOUGH), key=shares.get)[::-1]  # type: ignore[arg-type]
    return PlaceholderWords(
        tuple(word for word in best if word in words)[: 6 if coverage is None else 12],
        tuple(word for word in best if word not in words)[: 3 if coverage is None else 5],
    )


def _share_copied(word: str, outputs: Sequence[str]) -> float:
    return sum(len(occurrences(word, output)) == 1 for output in outputs) / len(outputs)


def occurrences(word: str, text: str) -> list[re.Match[str]]:
    """Where a placeholder word occurs in a text, by itself or with the `s` of a genitive."""
    return list(re.finditer(rf"{NOT_AFTER}{re.escape(word)}{NOT_BEFORE}", text))


def numeral_occurrences(word: str, text: str) -> list[re.Match[str]]:
    """Where a number sent for another one occurs in a text: currencies and units may touch it."""
    return list(re.finditer(rf"(?<!\d)(?<!\d[.,:]){re.escape(word)}(?!\d|[.,:]\d)", text))


@dataclass(frozen=True)
class SentPlaceholder:
    """What is sent for a protected word, and what to look for in the translation."""

    text: str
    expected: str


def assign(
    core: InlineText,
    placeholder_words: PlaceholderWords,
    attempt: int = 0,
    coverage: Coverage | None = None,
) -> list[SentPlaceholder] | None:
    """What to send for each protected word of a sentence; no placeholder word is one of its words.

    At attempt 0, glossary terms that the model can read are sent as they are: often it translates
    them as wanted.
    Each retry sends other placeholder words for all. None if there are too few.
    """
    if not core.elements:
        return []
    plain = " ".join(part if isinstance(part, str) else " " for part in core)
    words = [word for word in placeholder_words.words if word not in plain]
    numbers = (
        [word for word in placeholder_words.numbers if word not in plain] if not attempt else []
    )
    words = words[attempt:] + words[:attempt]
    numerals = [
        word for word in (*placeholder_words.numbers, *NUMBER_CANDIDATES) if word not in plain
    ]
    numerals = [*dict.fromkeys(numerals[attempt:] + numerals[:attempt])]
    if len(protected_words(core)) > len(words):
        return None
    chosen = []
    for element in protected_words(core):
        if element.name == "term" and not attempt and _is_readable(element.shown, coverage):
            chosen.append(SentPlaceholder(element.shown, element.term))
            continue
        if element.name == NUMERAL:
            if not numerals:
                return None
            word = numerals.pop(0)
            chosen.append(SentPlaceholder(word, word))
            numbers = [number for number in numbers if number != word]
            continue
        names = numbers if element.kind == "number" and numbers else words
        word = names.pop(0)
        chosen.append(SentPlaceholder(word, word))
    return chosen


def _is_readable(text: str, coverage: Coverage | None) -> bool:
    return coverage is None or coverage.reads(coverage.simplify(text))


def protected_words(core: InlineText) -> list[InlineElement]:
    return [element for element in core.elements if element.stands_for_word]


def engine_text(
    core: InlineText,
    words: Iterable[SentPlaceholder],
    coverage: Coverage | None = None,
    *,
    adds_stop: bool = True,
    language: str = "",
    numerals: Numerals | None = None,
    is_first: bool = True,
) -> str:
    """What the engine gets for a sentence: placeholder words for protected ones, no tags, words for
    abbreviations of its `language` before numbers, hours as the model into the target language of
    `numerals` reads them, and plain characters for typographic ones.

    With `adds_stop`, it gets a full stop if no mark ends it: a heading or a span between tags makes
    a student of whole sentences repeat itself ("my brother" → "mein Bruder hat mein Bruder").
    Without `is_first`, the text is a part of a sentence that does not begin it.
    """
    text = _with_words(core, words) if core.elements else core.text
    target = numerals.target if numerals else ""
    text = spell_out(text, language, target, is_first=is_first)
    if coverage is not None:
        text = coverage.simplify(text)
    text = SPACES.sub(" ", text).strip()
    needs_stop = adds_stop and text and text[-1].isalnum() and text[-1] < WESTERN
    return f"{text}." if needs_stop and (coverage is None or coverage.reads(".")) else text


def _with_words(core: InlineText, words: Iterable[SentPlaceholder]) -> str:
    remaining = iter(words)
    parts: list[str] = []
    parted_by: InlineElement | None = None
    for part in core:
        if isinstance(part, str):
            text = part
        elif not part.has_no_width:
            text = next(remaining).text if part.stands_for_word else part.shown
        else:
            if (is_symbol(part) or part.parts_words) and _ends_word(parts):
                parts.append(" ")  # `Hi👋you` is two words, `<del>a</del>b` too
                parted_by = part
            continue
        if parted_by is not None and _goes_on(text, parted_by):
            parts.pop()
        elif parts and parts[-1].endswith(" ") and text[:1] in BEFORE_MARK:
            parts[-1] = parts[-1].rstrip()
        parts.append(text)
        parted_by = None
    return "".join(parts)


def _goes_on(text: str, parted_by: InlineElement) -> bool:
    """Whether a text belongs to the word before a symbol or a tag."""
    return text[:1] in JOINTS or (parted_by.parts_words and text[:1] in BEHIND_WORD)


def _ends_word(parts: Sequence[str]) -> bool:
    """Whether a text ends with a letter of a script that parts words by spaces, or a digit."""
    last = parts[-1][-1:] if parts else ""
    return last.isalnum() and last < SPACED


def is_symbol(element: InlineElement) -> bool:
    """Whether an element is a sign that a reader sees between words (an emoji)."""
    return element.kind == "point" and bool(SYMBOL_SHOWN.search(element.shown))
