"""Numbers of a sentence and of its translation: whether they agree, and how languages write them.

A number that a translation lacks is sent again as another one that the model copies
(`service/text/segment.py`), and comes back in the form of the target language: `1,250.5` in English
is `1.250,5` in German, `5 pm` is `17`, `twenty-three` is `dreiundzwanzig`. Amounts keep the signs
of their currencies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from service.text.clock import TWELVE_HOURS, counts_to_24, in_24_hours, says_part_of_day
from service.text.currencies import SIGN, SIGNS, lost_signs, sign_beside, with_sign
from service.text.number_words import NUMBER_WORDS, NumberWords
from service.text.ordinals import is_ordinal, ordinals_in
from service.text.units import lost_units, unit_of

NUMERAL = re.compile(
    r"(?:(?<![^\s(\[{\"'„“«$€£¥])[-−](?=\d))?\d+(?:[.,:'’٫٬\u00a0\u202f]\d+|h[0-5]\d(?=min\b|\b))*"
)
DIGIT = re.compile(r"\d")
MARKS = re.compile(r"\D")
TIME = re.compile(r"\s?(?:[ap]\.?\s?m\b|o['’]clock|Uhr\b|h\b)", re.IGNORECASE)
NAMED = re.compile(
    r"\b(?:v|ver|version|release|section|sec|chapter|ch|figure|fig|table|step|level|part|item|no|"
    r"abschnitt|kapitel|tabelle|nr|seção|capítulo|versão)\.?[ \u00a0]\Z",
    re.IGNORECASE,
)
"""What makes `3.5` behind it a name (`section 3.5`)."""
CAPITALISED = re.compile(r"\b([^\W\d_]*[A-Z][\w.-]{0,40})[ \u00a0]\Z")
"""So does a word with a capital (`Python 3.5`), except these."""
GLUED = re.compile(r"(?<![^\W\d_])([^\W\d_]{1,20}+)\Z")
"""And letters that touch it (`v2.0`)."""
BEFORE_AMOUNTS = re.compile(
    r"A|About|Add|Almost|Another|Around|At|Between|By|Every|Exactly|For|From|I|In|Just|Less|More|"
    r"Nearly|Now|On|Only|Over|Roughly|Some|Take|The|These|Those|To|Under|Up|Use|We|With|You|"
    r"ARS|AUD|BRL|CAD|CHF|CLP|CNY|CZK|DKK|EUR|GBP|HKD|HUF|ILS|INR|JPY|KRW|MXN|NOK|NZD|PLN|RMB|RUB|"
    r"SEK|SGD|THB|TRY|USD|ZAR"
)
AROUND_AMOUNT = re.compile(rf"[^\s\d.,'’{SIGNS}%‰-]")
"""What is more than an amount of money or a share."""
TAG = r"<[^<>]*>|\]\([^()\s]*\)"
TAGS = rf"(?:{TAG}|[*_~\[])*+"
"""Tags and marks of Markdown, which may be between the digits of a number."""
JOINT = re.compile(r"[-‐‑–—/×x]")
HOURS = re.compile(
    r"o['’]clock|[ap]\.?\s?m\b|evening|afternoon|night|\bUhr\b|abends|nachmittag|tarde|noite",
    re.IGNORECASE,
)
"""Where hours are told."""
LATER = re.compile(r"evening|afternoon|night|abends|nachmittag|tarde|noite", re.IGNORECASE)
"""What says that hours are of the second half of the day."""
CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})")
LOOKBACK_CHARS = 60
NEAR_CHARS = 30
"""How far from an hour it is looked for what half of the day is meant."""
YEARS = range(1100, 2100)
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
    _words: tuple[NumberWords, NumberWords] | None = field(init=False, repr=False, compare=False)
    """Those of both languages, if they are known."""

    def __post_init__(self) -> None:
        decimal, group = map(re.escape, separators(self.source))
        same = self.keeps_form or separators(self.source) == separators(self.target)
        pattern = rf"\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}(?:{decimal}\d+)?|\d+{decimal}\d+"
        object.__setattr__(self, "_grouped", None if same else re.compile(pattern))
        words = [NUMBER_WORDS.get(one.partition("-")[0]) for one in (self.source, self.target)]
        object.__setattr__(self, "_words", tuple(words) if all(words) else None)

    def agree_at_sight(self, source: str, translation: str) -> bool:
        """Whether numbers are surely the same and need no change; quick."""
        if not same_numerals(source, translation):
            return False
        if DIGIT.search(source) and (
            SIGN.search(source) or TWELVE_HOURS.search(source) or lost_units(source, translation)
        ):
            return False
        return self._words is None or not self._words[0].may_be_in(source)

    def differences(self, source: str, translation: str) -> tuple[list[Number], list[Number]]:
        """Numbers of a text that its translation lacks, and those that it has besides. Marks of
        decimals and groups may differ, hours may count from 12, and numbers may be words, ordinals
        too. A number that lost its unit or the sign of its currency is lacking."""
        missing = []
        waiting = self._with_products(translation, 1)
        numbers = self._with_products(source, 0)
        for number in sorted(numbers, key=lambda one: len(one.values)):
            values = self._hours(source, number, translation)
            same = next((one for one in waiting if one.text == number.text), None)
            if same is None or not same.values & values:
                same = next((one for one in waiting if one.values & values), None)
            if same is None:
                missing.append(number)
            else:
                waiting.remove(same)
        if any(is_ordinal(source, one.end) for one in missing):
            said = ordinals_in(translation, self.target)
            missing = [
                one for one in missing if not (one.values & said and is_ordinal(source, one.end))
            ]
        missing = self._compare_words(source, translation, missing, waiting)
        if lost := lost_signs(source, translation):
            missing += [one for one in numbers if lost & set(_with_sign(source, one))]
        if units := lost_units(source, translation):
            missing += [one for one in numbers if unit_of(source, one.end) in units]
        sources = {one.text for one in numbers}
        invented = [
            one for one in waiting if missing or one.text in sources or not _may_be_a_word(one)
        ]
        return missing, invented

    def _compare_words(
        self, source: str, translation: str, missing: list[Number], waiting: list[Number]
    ) -> list[Number]:
        """What is `missing` once numbers in words count: those of the source that the translation
        has in `waiting` numerals or in words too. A small one may go (`the two of them`), unless
        another one has come."""
        if self._words is None:
            return missing
        words = self.words_of(source)
        if not (words or missing):
            return missing
        mentioned = _values_of(self._words[1].mentioned(translation))
        missing = [one for one in missing if not one.values & mentioned]
        hours_later = HOURS.search(source) is not None
        absent, used = [], []
        for number in words:
            values = number.values | (_half_a_day_later(number) if hours_later else set())
            same = next(
                (
                    one
                    for one in waiting
                    if (one not in used or CLOCK.fullmatch(one.text))
                    and values & self._in_words_of(one)
                ),
                None,
            )
            if same is not None:
                used.append(same)
            elif not values & mentioned:
                absent.append(number)
        waiting[:] = [one for one in waiting if one not in used]
        if not absent:
            return missing
        said = {value for one in (*words, *numbers_of(source)) for value in one.values}
        found = _values_of(one.value for one in self._words[1].find(translation))
        others = found - said or waiting
        return missing + [one for one in absent if others or int(min(one.values)) > SMALL]

    def _with_products(self, text: str, side: int) -> list[Number]:
        """The numbers of a text, of the source (0) or its translation (1), each with what it is
        times the word behind it: `2 mil` may be 2,000; `5 pm` of a translation may be 17."""
        found = list(numbers_of(text))
        for at, number in enumerate(found):
            if side and TWELVE_HOURS.match(text, number.end):
                later = in_24_hours(text, number.text, number.end)
                found[at] = replace(number, values=number.values | _values(later))
            if self._words is None:
                continue
            if (factor := self._words[side].multiplier(text, number.end)) > 1:
                products = {_times(value, factor) for value in number.values}
                found[at] = replace(number, values=number.values | products)
        return found

    def _in_words_of(self, number: Number) -> set[str]:
        """What a numeral of a translation may be in words: an hour and its minutes too."""
        values = set(number.values)
        if clock := CLOCK.fullmatch(number.text):
            hour = int(clock[1])
            values |= {str(hour), str(hour % 12), str(int(clock[2]))}
        return values

    def words_of(self, source: str) -> list[Number]:
        """The numbers in words of a source, where those of both languages are known."""
        if self._words is None or not self._words[0].may_be_in(source):
            return []
        return [
            Number(one.start, source[one.start : one.end], frozenset((str(one.value),)))
            for one in self._words[0].find(source)
        ]

    def _hours(self, source: str, number: Number, translation: str) -> frozenset[str]:
        """What a number of a source may be in a translation: a time is that of the right half of
        the day, where the language counts hours to 24 and no word says which is meant."""
        if not TWELVE_HOURS.match(source, number.end):
            near = source[max(0, number.start - NEAR_CHARS) : number.end + NEAR_CHARS]
            is_later = ":" in number.text and CLOCK.fullmatch(number.text) and LATER.search(near)
            return number.values | _half_a_day_later(number) if is_later else number.values
        text = in_24_hours(source, number.text, number.end)
        values = _values(text) | _on_the_hour(text)
        said = not counts_to_24(self.target) or says_part_of_day(translation, self.target)
        return values | number.values | _on_the_hour(number.text) if said else values

    def agree(self, source: str, translation: str) -> bool:
        """Whether a translation has the numbers of its source."""
        return self.agree_at_sight(source, translation) or not any(
            self.differences(source, translation)
        )

    def form_of(self, text: str, number: Number) -> str:
        """A number of a source in the form of the target language, in the place of the source's:
        hours that count to 24 if that language's do, words if it is in words and has one form."""
        if not DIGIT.match(number.text[-1:]):
            return self._in_words(int(min(number.values)))
        form = self.in_target_form(text, number.start, number.end)
        return in_24_hours(text, form, number.end) if counts_to_24(self.target) else form

    def _in_words(self, value: int) -> str:
        spelled = self._words[1].spell(value) if self._words and value not in YEARS else None
        if spelled is not None:
            return spelled
        return f"{value:,}".replace(",", separators(self.target)[1]) if value > 9999 else str(value)

    def in_target_form(self, text: str, start: int, end: int) -> str:
        """The number at a place of a source, in the form of the target language."""
        number = text[start:end]
        if "h" in number:  # `17h30`
            return number if self.target[:2] in ("pt", "fr") else number.replace("h", ":")
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
        """A translation whose numbers that have the digits of the source's get the target's form,
        grouped if the source groups them, and the lost signs of their currencies."""
        numbers = list(numbers_of(source))
        translation = self._in_right_half(source, numbers, translation)
        lost = lost_signs(source, translation)
        keeps_hours = not counts_to_24(self.target) or says_part_of_day(translation, self.target)
        parts, done = [], 0
        for found in numbers_of(translation):
            number = next((one for one in numbers if one.text == found.text), None)
            number = number or next((one for one in numbers if _has_digits_of(one, found)), None)
            if number is None:
                continue
            numbers.remove(number)  # the next one of the kind may be of another currency
            form = self.in_target_form(source, number.start, number.end)
            if not keeps_hours:
                form = in_24_hours(source, form, number.end)
            start, end = sign_beside(translation, found.start, found.end)
            amount = _with_sign(source, number)
            if lost & set(amount) and (start, end) == (found.start, found.end):
                form = with_sign(amount, form, translation[done : found.start])
            parts += [translation[done : found.start], form]
            done = found.end
        return "".join((*parts, translation[done:]))

    def _in_right_half(self, source: str, numbers: Iterable[Number], translation: str) -> str:
        """A translation without times that are half a day later than the source says: 18:45 for
        `6:45` or `6:45 am`. What says in words which half is meant, is left to the model."""
        if not counts_to_24(self.target) or not CLOCK.search(source):
            return translation
        times = [one for one in numbers if CLOCK.fullmatch(one.text)]
        right = {in_24_hours(source, one.text, one.end) for one in times}
        for one in times:
            is_said = TWELVE_HOURS.match(source, one.end) is not None
            if in_24_hours(source, one.text, one.end) != one.text or one.text in translation:
                continue
            hour, minutes = re.split("[:.]", one.text)
            later = f"{int(hour) + 12}:{minutes}"
            if int(hour) <= 12 and later not in right and (is_said or not HOURS.search(source)):
                wrong = rf"(?<![\d.,:]){int(hour) + 12}(?=[:.]{minutes}(?!\d))"
                translation = re.sub(wrong, hour, translation)
        return translation

    def converted_amount(
        self, amount: str, written: str, before: str = "", after: str = ""
    ) -> tuple[str, str]:
        """An amount that never reaches the model, and how it is `written` in its document, with its
        number in the target's form; by what is `before` and `after` it, that may be a name."""
        number = next(numbers_of(amount), None)
        if self._grouped is None or number is None or AROUND_AMOUNT.search(amount):
            return amount, written
        text, start = f"{before}{amount}{after}", len(before) + number.start
        form = self.in_target_form(text, start, start + len(number.text))
        between_tags = TAGS.join(f"({re.escape(sign)})" for sign in number.text)
        found = [one for one in re.finditer(f"{TAG}|{between_tags}", written) if one[1]]
        if form == number.text or len(form) != len(number.text) or len(found) != 1:
            return amount, written
        parts, done = [], 0
        for index, sign in enumerate(form, 1):
            parts += [written[done : found[0].start(index)], sign]
            done = found[0].end(index)
        return amount.replace(number.text, form), "".join((*parts, written[done:]))


def same_numerals(source: str, translation: str) -> bool:
    """Whether two texts have the same numbers, sign by sign."""
    if DIGIT.search(source) is None and DIGIT.search(translation) is None:
        return True
    numerals, others = NUMERAL.findall(source), NUMERAL.findall(translation)
    return numerals == others or sorted(numerals) == sorted(others)


def _is_name(before: str) -> bool:
    """Whether a number is part of a name, by what is before it."""
    word = CAPITALISED.search(before) or GLUED.search(before)
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


def _times(value: str, factor: int) -> str:
    """A value times a whole number, or itself where it is no number (`1.2.3`)."""
    if value.count(".") > 1:
        return value
    product = f"{Decimal(value) * factor:f}"
    return product.rstrip("0").rstrip(".") if "." in product else product


def _with_sign(text: str, number: Number) -> str:
    """A number with the sign of its currency."""
    start, end = sign_beside(text, number.start, number.end)
    return text[start:end]


def _has_digits_of(number: Number, found: Number) -> bool:
    """Whether a number of a translation has the digits of the source's, whatever is between."""
    return found.text[0] == number.text[0] and MARKS.sub("", found.text) == MARKS.sub(
        "", number.text
    )


def _on_the_hour(text: str) -> frozenset[str]:
    """Other values of a time on the hour: `5` and `5:00`."""
    hour, _, minutes = min(_values(text)).partition(".")
    return frozenset() if minutes.strip("0") else frozenset((hour, f"{hour}.00"))


def _half_a_day_later(number: Number) -> set[str]:
    """Values of an hour, with minutes or not, twelve hours later."""
    hour, point, minutes = min(number.values).partition(".")
    return {f"{int(hour) + 12}{point}{minutes}"} if int(hour) <= 12 else set()


def _values_of(numbers: Iterable[int]) -> set[str]:
    return set(map(str, numbers))


def _may_be_a_word(number: Number) -> bool:
    """Whether a number may stand for a word of the source (`twenty`, `two hundred`)."""
    value = min(number.values)
    return value.isdecimal() and (int(value) <= SMALL or len(value.rstrip("0")) <= 1)
