"""Texts of several words in capitals are sent as sentences, and come back in capitals."""

from __future__ import annotations

import pytest

from service.text.capitals import Capitals

CAPITALS = Capitals(frozenset())


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("DO NOT UNPLUG", "Do not unplug"),
        ("“DO NOT OPEN!”", "“Do not open!”"),
        ("3 DOGS AND 2 CATS", "3 Dogs and 2 cats"),
        ("NASA", "NASA"),
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
    assert CAPITALS.restore("Read it", "Lies es") == "Lies es"
