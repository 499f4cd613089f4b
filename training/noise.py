"""Noise on source text: the same corpus made harder, for studies of text complexity."""

from __future__ import annotations

import random

KINDS = ("drop", "swap", "typo")


def noisy(text: str, strength: float, generator: random.Random) -> str:
    """The text with about `strength` (a share of 1) of its words disturbed.

    Each disturbed word is left out, changes places with the next one, or has two neighbouring
    letters exchanged, with equal chances. Never empty where the text is not.
    """
    found: list[str] = []
    held: str | None = None
    for word in text.split(" "):
        kind = generator.choice(KINDS) if generator.random() < strength else None
        if kind == "swap" and held is None:
            held = word
            continue
        if kind != "drop":
            found.append(typo(word, generator) if kind == "typo" else word)
        if held is not None:
            found.append(held)
            held = None
    if held is not None:
        found.append(held)
    return " ".join(found) or text


def typo(word: str, generator: random.Random) -> str:
    """The word with two neighbouring characters exchanged; one of a single character stays."""
    if len(word) < 2:
        return word
    at = generator.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
