"""Forms that Portuguese has and its models do not write, and ordinals in words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.text.numerals import Numerals
from service.text.target_forms import with_target_forms
from tests.service.text.engines import run


@pytest.mark.parametrize(
    ("source", "translation", "written"),
    [
        ("the 3rd floor", "o 3o andar", "o 3º andar"),
        ("the 1st, 2nd and 21st", "os 1os, 2a e 21.o", "os 1ºs, 2ª e 21º"),
        ("the 3rd floor of 4", "o 3o andar de 4o", "o 3º andar de 4o"),
        ("3 floors", "3o andar", "3o andar"),
        ("the 2nd clause of section 2a", "a 2a cláusula da seção 2a", "a 2a cláusula da seção 2a"),
        ("the 3rd", "x3o, 3os3, 1.3o, 3oh", "x3o, 3os3, 1.3o, 3oh"),
        ("$20", "US $ 20", "US$ 20"),
        ("$20", "US$ 20 e R $ 20", "US$ 20 e R$ 20"),
        ("20", "US $ 20", "US $ 20"),
        ("7:00-10:00", "das 7:00h às 10:00 h", "das 7:00 às 10:00"),
        ("7:00", "7:00hs, 17h, 1:7:00h", "7:00hs, 17h, 1:7:00h"),
    ],
)
def test_portuguese_has_its_own_forms(source: str, translation: str, written: str) -> None:
    assert with_target_forms(source, translation, "pt-BR") == written
    assert with_target_forms(source, translation, "de") == translation


@pytest.mark.parametrize(
    ("target", "source", "translation"),
    [
        ("pt", "my 2nd car", "meu segundo carro"),
        ("pt", "the 10th time", "a décima vez"),
        ("de", "the 3rd floor", "der dritte Stock"),
        ("de", "in the 1st and 7th year", "im ersten und siebten Jahr"),
    ],
)
def test_ordinals_may_become_words(target: str, source: str, translation: str) -> None:
    numerals = Numerals("en", target)
    assert numerals.agree(source, translation)
    assert not numerals.agree(source.replace("1st", "2nd").replace("3rd", "4th"), "zweit")
    assert not numerals.agree("5 cars", "o quinto carro")
    assert not numerals.agree("the 11th car", "o primeiro carro")


def test_they_are_put_into_translations() -> None:
    def translate(texts: Sequence[str]) -> list[str]:
        return [text.replace("3rd floor", "3o andar") for text in texts]

    numerals = Numerals("en", "pt")
    found = run("the <b>3rd</b> floor", "html", translate, numerals=numerals)
    assert found == "the <b>3º</b> andar"
