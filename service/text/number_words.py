"""Numbers in words (`twenty-three`, `dreiundzwanzig`, `vinte e três`): found, and written.

Cardinals from 2 up to a thousand million, in the languages of `NUMBER_WORDS`. What may be no number
is left out: `one` and `ein`, ordinals, fractions, hours that are named by their halves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

HUNDRED, THOUSAND, MILLION = 100, 1000, 1_000_000
TOO_MANY = MILLION * THOUSAND
LOOKBACK_CHARS = 20
SPACE = re.compile(r"\s")
AFTER_DIGITS = re.compile(r"\d\s?\Z")
CENTURIES = range(11, 21)
"""What the first half of a year may be (`nineteen eighty-four`)."""


@dataclass(frozen=True)
class SpelledNumber:
    """A number in words: where it is in a text, and its value."""

    start: int
    end: int
    value: int


@dataclass(frozen=True)
class NumberWords:
    """The number words of a language, in small letters."""

    added: Mapping[str, int]
    """Words that are added up."""
    multipliers: Mapping[str, int]
    """Words that multiply what is before them."""
    joints: str
    """Pattern of what is between the words of a number."""
    spell: Callable[[int], str | None]
    """A number from 2 in words; None where it has several forms, or is too large."""
    not_before: str
    """Pattern of what makes something else of the number before it."""
    not_after: str = r"(?!)"
    """… and of the number after it."""
    alone: tuple[str, ...] = ()
    """Multipliers that are numbers by themselves."""
    parts_of_hours: tuple[str, str] = (r"(?!)", r"(?!)")
    """Patterns of what means 15 and 30 minutes."""
    begins_words: bool = False
    """Whether longer words begin with numbers (`zweijährig`)."""
    _stems: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Words that every number has in it."""
    _first: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _certain: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _possible: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _word: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _before: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        word = _any_of((*self.added, *self.multipliers))
        counts = [name for name, value in self.added.items() if value > 1]
        first = _any_of((*counts, *self.multipliers))
        stems = [one for one in counts if not any(o in one and o != one for o in counts)]
        object.__setattr__(self, "_stems", (*stems, *self.multipliers))
        begins = rf"(?:{_any_of((*self.added, *self.alone))}|(?<=\ba\s){_any_of(self.multipliers)})"
        others = rf"(?:{self.joints}{word}){{0,12}}"
        for name, pattern in (
            ("_first", rf"\b{first}" if self.begins_words else rf"\b{first}\b"),
            ("_certain", rf"(?<![\w-]){begins}{others}(?!\w)(?!{self.not_before})"),
            ("_possible", rf"\b{word}{others}" + ("" if self.begins_words else r"(?!\w)")),
            ("_word", word),
            ("_before", rf"(?:{self.not_after})\Z"),
        ):
            object.__setattr__(self, name, re.compile(pattern, re.IGNORECASE))

    def may_be_in(self, text: str) -> bool:
        """Whether a text may have such a number; quick."""
        small = text.lower()
        for stem in self._stems:  # a search for all at once takes six times as long
            if stem in small:
                return self._first.search(text) is not None
        return False

    def find(self, text: str) -> list[SpelledNumber]:
        """The numbers of a text that are surely numbers, in order."""
        found: list[SpelledNumber] = []
        for match in self._certain.finditer(text):
            before = max(0, match.start() - LOOKBACK_CHARS), match.start()
            if self._multiplies(match[0]) and AFTER_DIGITS.search(text, *before):
                continue  # `3 mil` is one number, in digits
            if not self._before.search(text, *before):
                found += [one for one in self._parse(text, *match.span()) if one.value > 1]
        return found

    def mentioned(self, text: str) -> frozenset[int]:
        """Every number that a text may mean, those that longer words begin with too."""
        values = set()
        for match in self._possible.finditer(text):
            start, end = match.span()
            spaces = (space.start() for space in SPACE.finditer(text, start, end))
            for stop in (*spaces, end):  # of `zweihundert Ein(wohner)`, 200 too
                values |= {one.value for one in self._parse(text, start, stop)}
        for minutes, pattern in zip((15, 30), self.parts_of_hours, strict=True):
            if re.search(pattern, text, re.IGNORECASE):
                values.add(minutes)
        return frozenset(values)

    def _multiplies(self, words: str) -> bool:
        """Whether number words begin with a multiplier."""
        first = self._word.match(words)
        return first is not None and first[0].lower() in self.multipliers

    def multiplier(self, text: str, end: int) -> int:
        """What a number in digits that ends there is multiplied by (`2 million`), mostly 1."""
        word = self._word.match(text, end + (text[end : end + 1].isspace()))
        return self.multipliers.get(word[0].lower(), 1) if word else 1

    def _parse(self, text: str, start: int, end: int) -> list[SpelledNumber]:
        """The numbers of a stretch of number words."""
        numbers = []
        begins = after = start
        total, group, ceiling = 0, 0, TOO_MANY
        for match in self._word.finditer(text, start, end):
            word = match[0].lower()
            factor, value = self.multipliers.get(word, 0), self.added.get(word, 0)
            if factor and text[after : match.start()].strip(" -"):
                factor, value = 0, factor  # `eighteen and a hundred`
            if factor == HUNDRED and group < HUNDRED:
                group = (group or 1) * HUNDRED
            elif HUNDRED < factor < ceiling:
                total, group, ceiling = total + (group or 1) * factor, 0, factor
            elif value and value < ceiling and _may_follow(group, value):
                group += value
            else:
                numbers.append(SpelledNumber(begins, after, total + group))
                begins, total, group, ceiling = match.start(), 0, factor or value, TOO_MANY
                if factor > HUNDRED:
                    total, group, ceiling = factor, 0, factor
            after = match.end()
        return _with_years([*numbers, SpelledNumber(begins, after, total + group)])


def _any_of(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


def _may_follow(group: int, value: int) -> bool:
    """Whether a value is said behind what is said of a number (`forty` + `two`)."""
    if not group:
        return True
    if value >= HUNDRED:
        return False
    return group % HUNDRED == 0 or (group % 10 == 0 and group % HUNDRED > 10 and value < 10)


def _with_years(numbers: list[SpelledNumber]) -> list[SpelledNumber]:
    """Numbers side by side; two that are a year as one."""
    for left, right in pairwise(numbers):
        if left.value in CENTURIES and 10 <= right.value < HUNDRED:
            year = SpelledNumber(left.start, right.end, left.value * HUNDRED + right.value)
            at = numbers.index(left)
            return [*numbers[:at], year, *_with_years(numbers[at + 2 :])]
    return numbers


def _numbered(words: str, first: int = 1, step: int = 1) -> dict[str, int]:
    return {word: first + at * step for at, word in enumerate(words.split())}


ENGLISH_SMALL = _numbered(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
ENGLISH_TENS = _numbered("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10)
GERMAN_SMALL = _numbered(
    "ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn "
    "sechzehn siebzehn achtzehn neunzehn"
)
GERMAN_TENS = _numbered("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig", 20, 10)
GERMAN_COMPOUNDS = {
    f"{unit}und{ten}": tens + value
    for ten, tens in GERMAN_TENS.items()
    for unit, value in list(GERMAN_SMALL.items())[:9]
}
PORTUGUESE_SMALL = _numbered(
    "um dois três quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis "
    "dezessete dezoito dezenove"
)
PORTUGUESE_TENS = _numbered(
    "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa", 20, 10
)
PORTUGUESE_HUNDREDS = _numbered(
    "cento duzentos trezentos quatrocentos quinhentos seiscentos setecentos oitocentos novecentos",
    100,
    100,
)


def _in_english(value: int) -> str | None:
    small = {number: word for word, number in (ENGLISH_SMALL | ENGLISH_TENS).items()}
    if value in small:
        return small[value]
    if value < HUNDRED:
        return f"{small[value // 10 * 10]}-{small[value % 10]}"
    for factor, name in ((MILLION, "million"), (THOUSAND, "thousand"), (HUNDRED, "hundred")):
        if factor <= value < TOO_MANY:
            count, rest = divmod(value, factor)
            between = " and " if rest < HUNDRED else " "
            end = f"{between}{_in_english(rest)}" if rest else ""
            return f"{_in_english(count)} {name}{end}"
    return None


def _in_german(value: int) -> str | None:
    small = {number: word for word, number in (GERMAN_SMALL | GERMAN_TENS).items()}
    small |= {number: word for word, number in GERMAN_COMPOUNDS.items()}
    if value >= MILLION:
        return None
    if value in small:
        return small[value]
    factor, name = (THOUSAND, "tausend") if value >= THOUSAND else (HUNDRED, "hundert")
    count, rest = divmod(value, factor)
    end = "eins" if rest == 1 else (_in_german(rest) if rest else "")
    return f"{_in_german(count)}{name}{end}"


def _in_portuguese(value: int) -> str | None:
    """Of both forms of Brazil and Portugal, and of both genders, none is chosen."""
    if value >= HUNDRED or (value % 10 in (1, 2) and value not in (11, 12)):
        return "cem" if value == HUNDRED else None
    if value in (14, 16, 17, 19):
        return None
    small = {number: word for word, number in (PORTUGUESE_SMALL | PORTUGUESE_TENS).items()}
    return small.get(value) or f"{small[value // 10 * 10]} e {small[value % 10]}"


ORDINALS = (
    "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|half|halves|thirds|quarters?|"
    "fourths|fifths|sixths|eighths|tenths|hundredths?|thousandths?"
)
NUMBER_WORDS: Mapping[str, NumberWords] = {
    "en": NumberWords(
        ENGLISH_SMALL | ENGLISH_TENS,
        {"hundred": HUNDRED, "thousand": THOUSAND, "million": MILLION},
        r"(?:\s?-\s?|\s(?:and\s)?)",
        _in_english,
        not_before=rf"[\s-](?:{ORDINALS}|billion|trillion|dozen|of\s(?:them|us|you)|and\sa\s)",
        parts_of_hours=(r"\bquarter", r"\bhalf"),
        not_after=r"half[\s-]past\s|\bno\s|point\s",
    ),
    "de": NumberWords(
        GERMAN_SMALL
        | GERMAN_TENS
        | GERMAN_COMPOUNDS
        | {"eins": 1, "eine": 1, "dreissig": 30, "zwo": 2, "einhundert": HUNDRED},
        {"hundert": HUNDRED, "tausend": THOUSAND, "million": MILLION, "millionen": MILLION},
        r"(?:\s?und\s?|\s)?",
        _in_german,
        not_before=r"[\s-](?:halb|drittel|viertel|fünftel|zehntel|milliarde|billion)",
        parts_of_hours=("viertel", r"\bhalb"),
        not_after=r"\bhalb\s|komma\s",
        alone=("hundert", "tausend"),
        begins_words=True,
    ),
    "pt": NumberWords(
        PORTUGUESE_SMALL
        | PORTUGUESE_TENS
        | PORTUGUESE_HUNDREDS
        | {word.replace("os", "as"): value for word, value in PORTUGUESE_HUNDREDS.items()}
        | {"uma": 1, "duas": 2, "quatorze": 14, "dezasseis": 16, "dezassete": 17}
        | {"dezanove": 19, "cinqüenta": 50, "cem": 100},
        {"mil": THOUSAND, "milhão": MILLION, "milhões": MILLION},
        r"(?:\s(?:e\s)?)",
        _in_portuguese,
        not_before=r"\s(?:terços?|quartos|quintos|décimos|avos|e\smei[ao]|bilh|vírgula)",
        parts_of_hours=(r"\bquarto", r"\bmei[ao]"),
        not_after=r"vírgula\s",
        alone=("mil",),
    ),
}
"""By the code of the language."""
