"""Texts of several words in capitals are sent as sentences, and come back in capitals."""

from __future__ import annotations

import pytest

from service.text.capitals import Capitals

VOCABULARY = {"exit", "Open", "open", "NASA", "USA", "Usa", "usa", "HOME", "Home", "home", "PDF"}
CAPITALS = Capitals(frozenset(), lambda word: 1 if word in VOCABULARY else 2)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("DO NOT UNPLUG", "Do not unplug"),
        ("“DO NOT OPEN!”", "“Do not open!”"),
        ("3 DOGS AND 2 CATS", "3 Dogs and 2 cats"),
        ("NASA", "NASA"),
        ("EXIT", "exit"),
        ("“OPEN!”", "“Open!”"),
        ("HOME", "Home"),
        ("USA", "USA"),
        ("PDF", "PDF"),
        ("XYZZY", "XYZZY"),
        ("A B", "A B"),
        ("Read THE MANUAL", "Read THE MANUAL"),
        ("123 456", "123 456"),
        ("", ""),
    ],
)
def test_what_is_sent(text: str, sent: str) -> None:
    assert CAPITALS.lowered(text) == sent


def test_the_translation_gets_its_capitals_back() -> None:
    assert CAPITALS.restore("DO NOT UNPLUG", "Nicht ausstecken") == "NICHT AUSSTECKEN"
    assert CAPITALS.restore("NASA", "Nasa") == "Nasa"
    assert CAPITALS.restore("EXIT", "Ausgang") == "AUSGANG"
    assert CAPITALS.restore("Read it", "Lies es") == "Lies es"
