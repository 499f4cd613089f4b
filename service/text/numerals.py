"""Numbers of a sentence and of its translation: whether they agree, and how languages write them.

A number that a translation lacks is sent again as another one that the model copies
(`service/text/segment.py`), and comes back in the form of the target language: `1,250.5` in English
is `1.250,5` in German.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

NUMERAL = re.compile(r"(?:(?<![^\s(\[{\"'„“«$€£¥])[-−](?=\d))?\d+(?:[.,:'’٫٬\u00a0\u202f]\d+)*")
DIGIT = re.compile(r"\d")
MARKS = re.compile(r"\D")
TWELVE_HOURS = re.compile(r"\s?[ap]\.?\s?m\b", re.IGNORECASE)
TIME = re.compile(r"\s?(?:[ap]\.?\s?m\b|o['’]clock|Uhr\b|h\b)", re.IGNORECASE)
NAMED = re.compile(
    r"\b(?:v|ver|version|release|section|sec|chapter|ch|figure|fig|table|step|level|part|item|no|"
    r"abschnitt|kapitel|tabelle|nr|seção|capítulo|versão)\.?[ \u00a0]\Z",
    re.IGNORECASE,
)
"""What makes `3.5` behind it a name (`section 3.5`)."""
CAPITALISED = re.compile(r"\b([^\W\d_]*[A-Z][\w.-]{0,40})[ \u00a0]\Z")
"""So does a word with a capital (`Python 3.5`), except these."""
BEFORE_AMOUNTS = re.compile(
    r"A|About|Add|Almost|Another|Around|At|Between|By|Every|Exactly|For|From|I|In|Just|Less|More|"
    r"Nearly|Now|On|Only|Over|Roughly|Some|Take|The|These|Those|To|Under|Up|Use|We|With|You"
)
UNIT = re.compile(
    r"[ \u00a0]?(?:[kKMGTP]i?(?:[Bb]|bit|Bit|Hz|W|Wh)(?:/s|ps)?|[kcmµn]?m[²³]?|km/h|[kmµ]?g|"
    r"[cm]?[lL]|°[CF]?|[kmM]?[VAWJN]|k?Pa|dpi|ppi|px|ms|mph)(?![\w/])"
)
"""Units that every language writes alike."""
JOINT = re.compile(r"[-‐‑–—/×x]")
LOOKBACK_CHARS = 60
SMALL = 12
"""Numbers up to this one are often written as words."""

COMMA_DOT, DOT_COMMA, NO_BREAK, NARROW = ",.", ".,", ",\u00a0", ",\u202f"
SEPARATORS: Mapping[str, str] = {
    language: marks
    for marks, languages in {
        COMMA_DOT: "az bs ca da de el es eu hr id is it ku lo mk nl ps pt ro sl sr tr vi",
        DOT_COMMA: (
            "am ar bn cy en fa ga gu he hi ja km kn ko la mg ml mn mr ms mt my ne pa si so sw ta "
            "te th tl ur yo zh zu es-CU es-DO es-GT es-HN es-MX es-NI es-PA es-PE es-PR es-SV es-US"
        ),
        NO_BREAK: (
            "af be bg cs et fi gl hu hy ka kk ky lt lv nb nn no pl ru sk sq sv uk uz "
            "de-AT en-ZA es-CR fr-CA pt-AO pt-CH pt-MZ pt-PT"
        ),
        NARROW: "eo fr",
        ".’": "de-CH de-LI en-CH it-CH",
        ",’": "fr-CH",
        ".\u00a0": "xh",
    }.items()
    for language in languages.split()
}
"""Decimal and grouping mark by language: Unicode CLDR 49, `numbers/symbols` (Latin digits)."""


def separators(language: str) -> str:
    """The decimal and the grouping mark of a language's code, those of English if unknown."""
    return SEPARATORS.get(language) or SEPARATORS.get(language.partition("-")[0], DOT_COMMA)


@dataclass(frozen=True)
class Number:
    """A number in a text: where it is, and every value that it may have."""

    start: int
    text: str
    values: frozenset[str]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Numerals:
    """The numbers of a language pair. `keeps_form` leaves them as the source writes them."""

    source: str
    target: str
    keeps_form: bool = False
    _grouped: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        decimal, group = map(re.escape, separators(self.source))
        same = self.keeps_form or separators(self.source) == separators(self.target)
        pattern = rf"\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}(?:{decimal}\d+)?|\d+{decimal}\d+"
        object.__setattr__(self, "_grouped", None if same else re.compile(pattern))

    @property
    def changes_form(self) -> bool:
        """Whether the target language writes numbers otherwise."""
        return self._grouped is not None

    def differences(self, source: str, translation: str) -> tuple[list[Number], list[Number]]:
        """Numbers of a text that its translation lacks, and those that it has besides. Marks of
        decimals and groups may differ, hours may count from 12, and small numbers may be words of
        the source."""
        missing = []
        waiting = list(numbers_of(translation))
        for number in sorted(numbers_of(source), key=lambda one: len(one.values)):
            values = number.values | _later_hours(source, number)
            same = next((one for one in waiting if one.text == number.text), None)
            same = same or next((one for one in waiting if one.values & values), None)
            if same is None:
                missing.append(number)
            else:
                waiting.remove(same)
        sources = {one.text for one in numbers_of(source)}
        invented = [
            one for one in waiting if missing or one.text in sources or not _may_be_a_word(one)
        ]
        return missing, invented

    def agree(self, source: str, translation: str) -> bool:
        """Whether a translation has the numbers of its source."""
        if same_numerals(source, translation):
            return True
        return not any(self.differences(source, translation))

    def in_target_form(self, text: str, start: int, end: int) -> str:
        """The number at a place of a source, in the form of the target language."""
        number = text[start:end]
        if self._grouped is None or not self._grouped.fullmatch(number.lstrip("-−")):
            return number
        is_decimal = not re.search(r"\D\d{3}(?!\d)", number)
        before = text[max(0, start - LOOKBACK_CHARS) : start]
        if is_decimal and (TIME.match(text, end) or _is_name(before)):
            return number
        return number.translate(
            str.maketrans(*map("".join, (separators(self.source), separators(self.target))))
        )

    def converted(self, source: str, translation: str) -> str:
        """A translation whose numbers that are written as in the source get the target's form."""
        if self._grouped is None or not self._grouped.search(source):
            return translation
        forms = {
            number.text: form
            for number in numbers_of(source)
            if (form := self.in_target_form(source, number.start, number.end)) != number.text
        }
        if not forms:
            return translation
        return NUMERAL.sub(lambda match: forms.get(match[0], match[0]), translation)


def same_numerals(source: str, translation: str) -> bool:
    """Whether two texts have the same numbers, sign by sign."""
    if DIGIT.search(source) is None and DIGIT.search(translation) is None:
        return True
    numerals, others = NUMERAL.findall(source), NUMERAL.findall(translation)
    return numerals == others or sorted(numerals) == sorted(others)


def _is_name(before: str) -> bool:
    """Whether a number is part of a name, by what is before it."""
    word = CAPITALISED.search(before)
    return bool(NAMED.search(before)) or (
        word is not None and not BEFORE_AMOUNTS.fullmatch(word[1])
    )


def runs_of(text: str, numbers: Iterable[Number]) -> list[list[Number]]:
    """Numbers in order, those that a mark joins together (`3-2`, `16/9`)."""
    runs: list[list[Number]] = []
    for number in numbers:
        if runs and JOINT.fullmatch(text[runs[-1][-1].end : number.start]):
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def with_unit(text: str, number: Number) -> int:
    """Where a number ends with the unit behind it."""
    unit = UNIT.match(text, number.end)
    return unit.end() if unit else number.end


def numbers_of(text: str) -> Iterator[Number]:
    """The numbers of a text, in order."""
    for match in NUMERAL.finditer(text):
        yield Number(match.start(), match[0], _values(match[0]))


def _values(numeral: str) -> frozenset[str]:
    """What a numeral may mean, whatever the language: `1,250` is 1250 or 1.250."""
    if not numeral[0].isdecimal():
        return frozenset(f"-{value}" for value in _values(numeral[1:]))
    marks = MARKS.findall(numeral)
    groups = ["".join(str(int(digit)) for digit in group) for group in MARKS.split(numeral)]
    whole = groups[0].lstrip("0") or "0"
    if not marks:
        return frozenset((whole,))
    are_thousands = all(len(group) == 3 for group in groups[1:]) and len(groups[0]) <= 3
    joined = (groups[0] + "".join(groups[1:])).lstrip("0") or "0"
    plain = ".".join((whole, *groups[1:]))
    if len(marks) == 1:
        found = {plain}
        if are_thousands and whole != "0":
            found.add(joined)
        return frozenset(found)
    if len(set(marks)) == 1:
        return frozenset((joined,) if are_thousands else (plain,))
    integer = ("".join(groups[:-1])).lstrip("0") or "0"
    return frozenset((f"{integer}.{groups[-1]}", plain))


def _later_hours(text: str, number: Number) -> frozenset[str]:
    """What a time becomes where hours are counted to 24."""
    if not TWELVE_HOURS.match(text, number.end):
        return frozenset()
    hours, _, minutes = min(number.values).partition(".")
    if not hours.isdecimal() or int(hours) > 12:
        return frozenset()
    later = {str(int(hours) % 12), str(int(hours) % 12 + 12), hours}
    return frozenset(f"{hour}.{minutes or '00'}" for hour in later) | (
        frozenset() if minutes.strip("0") else later
    )


def _may_be_a_word(number: Number) -> bool:
    """Whether a number may stand for a word of the source (`twenty`, `two hundred`)."""
    value = min(number.values)
    return value.isdecimal() and (int(value) <= SMALL or len(value.rstrip("0")) <= 1)
