"""Words that a model copies, which stand in a sentence for what it must not see.

Students trained on plain sentences have never met `{name}` or a URL: the shipped one copied none of
them in ten sentences, and "Boston" and "Tom" in all of twelve. So each opaque stretch is sent as
such a word, and looked for in the translation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from service.text.rich import InlineElement, InlineText

CANDIDATES = (
    "Boston", "Tom", "Japan", "London", "Washington", "England", "China", "Maria", "Hawaii",
    "Paris", "Berlin", "Madrid", "Peter", "Anna", "Martin", "David", "Robert", "Texas", "Chicago",
)  # fmt: skip
NUMBER_CANDIDATES = ("5", "20", "30", "10", "3")
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
ENOUGH = 0.75
"""Share of the probes that a word must survive to be used."""
TERMINAL = frozenset(".!?:;…。！？：；")
WESTERN = "\u0590"
"""Scripts before this code point end sentences with a full stop."""
NOT_AFTER = r"(?<![\w/@#$%{<&=+~])(?<!\w[-.:_])"
NOT_BEFORE = r"(?=s?(?![\w/@#$%}<&=+~(]|[-.:_]\w))"
"""What would make another address or placeholder of something opaque if it touched it."""
SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class PlaceholderWords:
    """Words in the order they are used: for something opaque, and for something that counts."""

    words: tuple[str, ...]
    numbers: tuple[str, ...] = ()


EN_DE = PlaceholderWords(
    ("Boston", "Tom", "Japan", "London", "Washington", "England"), ("20", "5", "30")
)
"""What the shipped model copied in at least 10 of 12 sentences (names), 7 of 12 (numbers)."""


def choose_placeholder_words(translate: Callable[[list[str]], Sequence[str]]) -> PlaceholderWords:
    """Find what a model copies: some 200 short sentences in one call of `translate`.

    Probes are English; a model of another source language gets few stand-ins or none, and opaque
    stretches then part its sentences.
    """
    candidates = (*CANDIDATES, *NUMBER_CANDIDATES)
    sentences = [probe.format(word) for word in candidates for probe in PROBES]
    outputs = list(translate(sentences))
    shares = {
        word: _share_copied(word, outputs[at * len(PROBES) : (at + 1) * len(PROBES)])
        for at, word in enumerate(candidates)
    }
    best = sorted((word for word in candidates if shares[word] >= ENOUGH), key=shares.get)[::-1]  # type: ignore[arg-type]
    return PlaceholderWords(
        tuple(word for word in best if not word.isdigit())[:6],
        tuple(word for word in best if word.isdigit())[:3],
    )


def _share_copied(word: str, outputs: Sequence[str]) -> float:
    return sum(len(occurrences(word, output)) == 1 for output in outputs) / len(outputs)


def occurrences(word: str, text: str) -> list[re.Match[str]]:
    """Where a stand-in is in a text, as a word of its own or with the `s` of a genitive."""
    return list(re.finditer(rf"{NOT_AFTER}{re.escape(word)}{NOT_BEFORE}", text))


@dataclass(frozen=True)
class SentPlaceholder:
    """What is sent for an opaque word, and what to look for in the translation."""

    text: str
    expected: str


def assign(
    core: InlineText, stand_ins: PlaceholderWords, turn: int = 0
) -> list[SentPlaceholder] | None:
    """What to send for each opaque word of a sentence; stand-ins are none of its own words.

    At turn 0, terms of a glossary are sent as they are: often the model translates them as wanted.
    Later turns have stand-ins for all, each turn others. None if there are too few.
    """
    if not core.specials:
        return []
    plain = " ".join(part if isinstance(part, str) else " " for part in core)
    words = [word for word in stand_ins.words if word not in plain]
    numbers = [word for word in stand_ins.numbers if word not in plain] if not turn else []
    words = words[turn:] + words[:turn]
    if len(opaque_words(core)) > len(words):
        return None
    chosen = []
    for special in opaque_words(core):
        if special.name == "term" and not turn:
            chosen.append(SentPlaceholder(special.shown, special.term))
            continue
        names = numbers if special.kind == "number" and numbers else words
        word = names.pop(0)
        chosen.append(SentPlaceholder(word, word))
    return chosen


def opaque_words(core: InlineText) -> list[InlineElement]:
    return [special for special in core.specials if special.stands_for_word]


def engine_text(core: InlineText, words: Iterable[SentPlaceholder]) -> str:
    """What the engine gets of a sentence: stand-ins for what is opaque, no tags.

    A full stop ends it if nothing does: what has none, a heading or a stretch between tags, makes
    a student of whole sentences repeat itself ("my brother" → "mein Bruder hat mein Bruder").
    """
    text = SPACES.sub(" ", _with_words(core, words) if core.specials else core.text).strip()
    return f"{text}." if text and text[-1].isalnum() and text[-1] < WESTERN else text


def _with_words(core: InlineText, words: Iterable[SentPlaceholder]) -> str:
    remaining = iter(words)
    parts = []
    for part in core:
        if isinstance(part, str):
            parts.append(part)
        elif part.stands_for_word:
            parts.append(next(remaining).text)
        elif part.kind in ("character", "space"):
            parts.append(part.shown)
    return "".join(parts)


def strip_added_stop(translation: str, core: InlineText) -> str:
    """A translation without the full stop that its source has not."""
    text = translation.strip()
    source = core.text.rstrip()
    if source[-1:] in TERMINAL or text.endswith(("...", "…")):
        return text
    return text[:-1].rstrip() if text.endswith(".") else text
