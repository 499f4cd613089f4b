"""Small letters for capitals that a vocabulary lacks, and back."""

from __future__ import annotations

import pytest

from service.text.capitals import Capitals

CAPITALS = Capitals.readable_by(lambda text: text.isascii() or set(text) <= set("éúüÜ"))


def test_they_are_those_with_a_small_letter_that_is_there() -> None:
    assert CAPITALS.letters == {"É", "Ú"}


@pytest.mark.parametrize(
    ("text", "lowered"),
    [
        ("no CAPITALS here", "no CAPITALS here"),
        ("Úa Bc", "úa Bc"),
        ("the CAFÉ Bar", "the café Bar"),
        ("CAFÉ BAR 5", "café bar 5"),
        ("É", "é"),
        ("É A", "é a"),
        ("Übung Ñandú", "Übung Ñandú"),
        ("ÉÚTom", "éúTom"),
    ],
)
def test_lowered(text: str, lowered: str) -> None:
    assert CAPITALS.lowered(text) == lowered


@pytest.mark.parametrize(
    ("source", "translation", "restored"),
    [
        ("Úa b", "x y", "X y"),
        ("“Úa” b", "“x” y", "“X” y"),
        ("a Úb", "x y", "x y"),
        ("CAFÉ BAR", "x y", "X Y"),
        ("CAFÉ \ufffc", "x Boston", "x Boston"),
        ("É", "it is", "It is"),
        ("the CAFÉ Bar", "o café Bar, cafés", "o CAFÉ Bar, cafés"),
        ("Ab", "x", "x"),
        ("Úa", "", ""),
    ],
)
def test_restored(source: str, translation: str, restored: str) -> None:
    assert CAPITALS.restore(source, translation) == restored


def test_a_complete_vocabulary_changes_nothing() -> None:
    complete = Capitals.readable_by(lambda _: True)
    assert complete.lowered("CAFÉ") == "CAFÉ"
    assert complete.restore("CAFÉ", "x") == "x"
