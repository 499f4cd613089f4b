"""Units behind numbers, and what is sent for numbers that lost theirs."""

from __future__ import annotations

import pytest

from service.text.numerals import Numerals
from service.text.units import end_of_unit, lost_units, unit_of
from tests.service.text.engines import run

EN_DE = Numerals("en", "de")


@pytest.mark.parametrize(
    ("text", "unit", "end"),
    [
        ("2 mm", "mm", 4),
        ("2mm²", "mm²", 4),
        ("2 °C.", "°C", 4),
        ("2 mW/s", "", 1),
        ("2 mice", "", 1),
        ("2 mbar", "mbar", 6),
        ("2 kWh", "kWh", 5),
        ("2 µm", "µm", 4),
        ("2.", "", 1),
        ("2 s", "s", 3),
        ("2s", "", 1),
    ],
)
def test_a_unit_stands_behind_a_number(text: str, unit: str, end: int) -> None:
    assert unit_of(text, 1) == unit
    assert end_of_unit(text, 1) == end


@pytest.mark.parametrize(
    ("source", "translation", "lost"),
    [
        ("0.4 mm wide", "0,4 mm breit", set()),
        ("0.4 mm wide", "0,4 mmisch", {"mm"}),
        ("0.4 mm wide", "0,4 m breit", {"mm"}),
        ("0.4 mm wide", "0,4 Millimeter breit", set()),
        ("7 km, 7 km", "7 km, 7", {"km"}),
        ("3 l of milk", "3 Liter Milch", set()),
        ("mm", "m", set()),
        ("in the 80s", "in den 80ern", set()),
        ("at 80km/h", "bei 80 km / h", set()),
    ],
)
def test_units_of_a_translation_are_those_of_its_source(
    source: str, translation: str, lost: set[str]
) -> None:
    assert lost_units(source, translation) == lost
    assert EN_DE.agree(source, translation) == (not lost)


def test_a_number_that_lost_its_unit_is_sent_again() -> None:
    def careless(texts: list[str]) -> list[str]:
        return [text.replace(" mm", " m") for text in texts]

    assert run("a 0.4 mm wire", translate=careless, numerals=EN_DE) == "a 0,4 mm wire"
