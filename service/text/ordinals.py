"""Ordinals: numerals that are ones (`2nd`, `2.º`), and the first ten in words (`segunda`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

SUFFIX = re.compile(r"(?:st|nd|rd|th)\b|\.?[ºª]|\.(?=\s\w)")
"""What makes an ordinal of the numeral before it."""
ENDED: Mapping[str, str] = {"en": r"\b", "de": r"e[mnrs]?\b", "pt": r"[oa]s?\b"}
STEMS: Mapping[str, str] = {
    "en": "first second third fourth fifth sixth seventh eighth ninth tenth",
    "de": "erst zweit dritt viert fünft sechst siebt acht neunt zehnt",
    "pt": "primeir segund terceir quart quint sext sétim oitav non décim",
}
_WORDS = {
    language: re.compile(rf"\b(?:({')|('.join(stems.split())})){ENDED[language]}", re.IGNORECASE)
    for language, stems in STEMS.items()
}


def is_ordinal(text: str, end: int) -> bool:
    """Whether the numeral that ends at a place of a text is an ordinal."""
    return SUFFIX.match(text, end) is not None


def ordinals_in(text: str, language: str) -> set[str]:
    """The ordinals in words of a text, as numerals; none of a language that is not known."""
    words = _WORDS.get(language.partition("-")[0])
    return {str(match.lastindex) for match in words.finditer(text)} if words else set()
