"""Units of measurement behind numbers that every language writes alike (`0.5 mm`)."""

from __future__ import annotations

import re
from collections import Counter

UNIT = re.compile(
    r"[ \u00a0\u202f]?(km ?/ ?h(?!\w)|"
    r"(?:[kKMGTP]i?(?:[Bb]|bit|Bit|Hz|W|Wh)(?:/s|ps)?|[kcdmµμn]?m[²³]?|"
    r"[kmµμ]?g|[cmdh]?[lL]|°[CF]?|[kmM]?[VAWJNΩ]|[kMGh]?Pa|k?cal|m?Ah|k?Wh|m?bar|dB|Hz|dpi|ppi|fps|px|"
    r"ms|(?<=\s)s|mph)(?![\w/]))"
)
AFTER_DIGIT = re.compile(rf"\d{UNIT.pattern}")
WRITTEN_OUT = re.compile(
    r"\d[ \u00a0-]?(?:kilo|quilo|centi|[cz]entí|zenti|milli|mili|milí|mikro|micro|mega|giga|tera)?"
    r"(?:m[eé]t|gram|lit|watt|volt|amp|byte|bit|hert|pascal|joule|newton|ohm|kalor|calor|grad|grau"
    r"|degree|second|segund|sekund|mile|meile|milha|pixel|bar)",
    re.IGNORECASE,
)
"""Units of a translation that are words."""


def unit_of(text: str, place: int) -> str:
    """The unit behind a number that ends at a place, without the space before it; else empty."""
    unit = UNIT.match(text, place)
    return unit[1].replace(" ", "") if unit else ""


def end_of_unit(text: str, place: int) -> int:
    """Where the unit behind a number ends that ends at a place; the place if there is none."""
    unit = UNIT.match(text, place)
    return unit.end() if unit else place


def lost_units(source: str, translation: str) -> frozenset[str]:
    """Units of a source's numbers that its translation has less often, or as other words."""
    units = _units_of(source)
    if not units:
        return frozenset()
    lost = units - _units_of(translation)
    if lost and lost.total() <= len(WRITTEN_OUT.findall(translation)):
        return frozenset()
    return frozenset(lost)


def _units_of(text: str) -> Counter[str]:
    return Counter(unit.replace(" ", "") for unit in AFTER_DIGIT.findall(text))
