"""How German addresses its reader, and sources tagged with it, so that one model writes both forms.

A tag in front of the source says which form the target has (Sennrich, Haddow & Birch 2016,
Controlling Politeness in Neural Machine Translation via Side Constraints). Sources whose target
addresses nobody get tags too, at random, so that a tag changes nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Literal

from training.config.recipe import FORMALITY_TAGS

Formality = Literal["formal", "informal"]
Row = tuple[str, str | None]

TAGS: dict[Formality, str] = dict(zip(("formal", "informal"), FORMALITY_TAGS, strict=True))
"""Pieces in front of the source; the tokenizer must have them (`tokenizer.add`)."""
UNTAGGED = 0.1
"""Share of the pairs with an address whose source gets no tag."""
NEUTRAL: dict[Formality, float] = {"formal": 0.35, "informal": 0.15}
"""Share of the pairs without an address whose source gets a tag all the same."""

_INFORMAL = re.compile(
    r"\b(?:du|dir|dich|dein(?:e[mnrs]?)?|euch|euer|eure[mnrs]?"
    r"|ihr(?= (?:habt|seid|könnt|müsst|wollt)))\b",
    re.IGNORECASE,
)
_FORMAL = re.compile(r"(?<=[a-zäöüß0-9,;:%)\"”“‘’'–-] )(?:Sie|Ihnen|Ihr(?:e[mnrs]?)?)\b")
_BEGINS_FORMAL = re.compile(
    r"^[\W\d]*[A-ZÄÖÜ][a-zäöüß]+(?:en|ern|eln) Sie\b"
    r"|\bSie (?:bitte|können|müssen|haben|sollten|möchten|werden|dürfen)\b"
)
_SHORT_IMPERATIVES = (
    "gib|nimm|lies|sieh|hilf|sprich|vergiss|wirf|iss|triff|brich|tritt|lass|komm|geh|sag|mach|hör|ruf|"
    "schau|zeig|bleib|schreib|hol|bring|halt|fahr|lauf|trink|schick|leg|stell|setz|probier|versuch|sei"
)
_NO_IMPERATIVES = (
    "eine|keine|alle|diese|jene|jede|meine|seine|ihre|unsere|welche|solche|manche|viele|beide|einige|"
    "mehrere|heute|morgen|ohne|gerne|lange|bitte|danke|seite|ende|siehe"
)
_IMPERATIVE = re.compile(
    rf"(?:^|[.!?:–] )[\W\d]*(?:"
    rf"Bitte (?:{_SHORT_IMPERATIVES}|(?!(?:{_NO_IMPERATIVES})\b)[a-zäöüß]{{2,}}e)"
    rf"|(?i:{_SHORT_IMPERATIVES})(?= (?:mir|mich|uns|ihm|ihn|ihnen|es|den|die|das|dem"
    rf"|der|ein|eine|einen|nicht|nie|mal|bitte|doch|keine?n?|zu|nach|auf|in|her|hier|jetzt)\b)"
    rf"|(?!(?i:{_NO_IMPERATIVES})\b)[A-ZÄÖÜ][a-zäöüß]+e(?= (?:mir|mich|uns|ihn|den|einen|bitte)\b)"
    rf")(?![\w-])(?! (?:Sie|er|es sich|ich|wir|man)\b)"
)
"""A request to one person without a pronoun: `Bitte gib …`, `Starte den Computer`, `Komm her`."""


def formality_of_german(text: str) -> Formality | None:
    """Which form of address a German text uses; None where it uses none, or both.

    A `Sie` that begins the text may mean "she" or "they", and counts only before a verb's form that
    leaves little doubt.
    """
    formal = bool(_FORMAL.search(text) or _BEGINS_FORMAL.search(text))
    informal = bool(_INFORMAL.search(text) or (not formal and _IMPERATIVE.search(text)))
    if formal == informal:
        return None
    return "formal" if formal else "informal"


FORMALITY_OF: dict[str, Callable[[str], Formality | None]] = {"de": formality_of_german}
"""By target language."""


class FormalityTagger:
    """Tags the sources of a corpus, in its order, by seed; `counts` says how many of each form."""

    def __init__(self, trg_lang: str, seed: int) -> None:
        """Raises KeyError for a language whose address is not known."""
        self._formality_of = FORMALITY_OF[trg_lang.split("-")[0]]
        self._random = Random(seed)
        self.counts = {"formal": 0, "informal": 0, "none": 0}

    def batches(self, batches: Iterable[Sequence[Row]]) -> Iterator[list[Row]]:
        """The rows with tagged sources; those without a target stay as they are."""
        for batch in batches:
            yield [(src if trg is None else self._tagged(src, trg), trg) for src, trg in batch]

    def _tagged(self, src: str, trg: str) -> str:
        formality = self._formality_of(trg)
        self.counts[formality or "none"] += 1
        draw = self._random.random()
        if formality is None:
            if draw < NEUTRAL["formal"]:
                formality = "formal"
            elif draw < NEUTRAL["formal"] + NEUTRAL["informal"]:
                formality = "informal"
        elif draw < UNTAGGED:
            formality = None
        return src if formality is None else f"{TAGS[formality]} {src}"
