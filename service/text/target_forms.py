"""Forms of the target language that models write otherwise: `3º` for Portuguese *3o*, `US$ 20` for
*US $ 20*, `7:00` for *7:00h*. Their vocabularies lack the signs, or their text was in tokens."""

from __future__ import annotations

import re

ORDINAL = re.compile(r"(?<![\w.,])(\d+)(?:st|nd|rd|th)\b")
"""A numeral that English makes an ordinal."""
NO_ORDINAL = re.compile(r"(?<!\w)(\d+)[oa](?!\w)")
"""A numeral with a letter: `section 2a`."""
PORTUGUESE_ORDINAL = re.compile(r"(?<![\w.,])(\d+)\.?([oa])(s?)(?!\w)")
PORTUGUESE_DOLLARS = re.compile(r"(?<!\w)(US|CA|AU|NZ|HK|R) ?\$ (?=\d)")
PORTUGUESE_TIME = re.compile(r"(?<![\d:.,])(\d{1,2}:[0-5]\d)\s?h\b")
SIGNS = {"o": "º", "a": "ª"}


def with_target_forms(source: str, translation: str, target: str) -> str:
    """A translation to a language (`pt`, `pt-BR`) with that language's forms of what its source
    has."""
    if target.partition("-")[0] != "pt":
        return translation
    translation = PORTUGUESE_TIME.sub(r"\1", translation)
    if "$" in source:
        translation = PORTUGUESE_DOLLARS.sub(r"\1$ ", translation)
    letters = set(NO_ORDINAL.findall(source))
    numbers = {number for number in ORDINAL.findall(source) if number not in letters}
    if not numbers:
        return translation

    def own(match: re.Match[str]) -> str:
        return f"{match[1]}{SIGNS[match[2]]}{match[3]}" if match[1] in numbers else match[0]

    return PORTUGUESE_ORDINAL.sub(own, translation)
