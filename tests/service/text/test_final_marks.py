"""What a translation ends with and its source does not."""

from __future__ import annotations

import pytest

from service.text.final_marks import without_added_end
from service.text.inline import InlineText
from tests.service.text.engines import run


@pytest.mark.parametrize(
    ("source", "translation", "shown"),
    [
        ("John Smith", "John Smith (em inglês)", "John Smith"),
        ("They met.", "Eles se encontraram (em inglês).", "Eles se encontraram."),
        ("Hello", "Olá,", "Olá"),
        ("Hello,", "Olá,", "Olá,"),
        ("John Smith, 1990", "John Smith (1990)", "John Smith (1990)"),
        ("John (Jack) Smith", "John Smith (Jack)", "John Smith (Jack)"),
        ("Smith", "(em inglês)", "(em inglês)"),
        ("Smith", ",", ","),
        ("Wait!", "Espere (um pouco)!", "Espere!"),
    ],
)
def test_notes_and_commas_that_were_added_go(source: str, translation: str, shown: str) -> None:
    assert without_added_end(translation, InlineText(source)) == shown


def test_names_and_greetings_are_shown_without_them() -> None:
    assert (
        run("Hello", translate=lambda texts: [f"{text.rstrip('.')}," for text in texts]) == "Hello"
    )
