"""How German addresses its reader: by Sie or by du.

Training tags sources by it, and the service sees by it whether a translation has the form that was
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

Formality = Literal["formal", "informal"]
"""How a text addresses its reader: in German by Sie or by du."""

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
    "schau|zeig|bleib|schreib|hol|bring|halt|fahr|lauf|trink|schick|leg|stell|setz|probier|versuch|sei|"
    "schließ|fass|rühr|berühr|tu|nenn|drück|dreh|lern|denk|lösch|zieh|such|frag|wart|wähl|bestell|steig"
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
_REQUEST = re.compile(
    rf"(?:^|[.!?:–] )[\W\d]*(?:Bitte )?(?!(?i:sei)\b)(?i:{_SHORT_IMPERATIVES})"
    r"(?= (?:mir|mich|uns|ihm|ihn|ihnen|bitte|doch)\b)(?! (?:Sie|er|es sich|ich|wir|man)\b)"
)
"""One that can be nothing else."""

_MIXED = re.compile(
    rf"^\W*(?:Bitte )?(?:(?i:{_SHORT_IMPERATIVES}) Ihr(?:e[mnrs]?)?"
    rf"|(?!(?i:{_NO_IMPERATIVES})\b)[A-ZÄÖÜa-zäöü][a-zäöüß]+e Ihre?n?)\b"
)
"""A request in du with the possessive of Sie, which models that mix the forms write."""


def formality_of_german(text: str) -> Formality | None:
    """Which form of address a German text uses; None where it uses none, or both.

    A `Sie` that begins the text may mean "she" or "they", and counts only before a verb's form that
    leaves little doubt. `Gib Ihre Adresse ein` is no request in Sie.
    """
    if _MIXED.search(text):
        return "informal"
    formal = bool(_FORMAL.search(text) or _BEGINS_FORMAL.search(text))
    informal = bool(_INFORMAL.search(text) or (not formal and _IMPERATIVE.search(text)))
    if formal == informal:
        return None
    return "formal" if formal else "informal"


def forms_of_german(text: str) -> frozenset[Formality]:
    """The forms of address that a German text uses: none, one, or both, as where a model mixes them
    (`Gib Ihre Adresse ein`, `Melde dich bei Ihrem Konto an`)."""
    if _MIXED.search(text):
        return frozenset({"formal", "informal"})
    forms: set[Formality] = set()
    if _INFORMAL.search(text):
        forms.add("informal")
    # Beside a du, a `Sie` that begins may well mean "they".
    if _FORMAL.search(text) or (not forms and _BEGINS_FORMAL.search(text)):
        forms.add("formal")
    # Beside a Sie, `Sollte uns …` is no request, and `Sei f eine Funktion` is none to anybody.
    if (_REQUEST if "formal" in forms else _IMPERATIVE).search(text):
        forms.add("informal")
    return frozenset(forms)


FORMALITY_OF: dict[str, Callable[[str], Formality | None]] = {"de": formality_of_german}
"""By target language."""
FORMS_OF: dict[str, Callable[[str], frozenset[Formality]]] = {"de": forms_of_german}
"""By target language."""
