"""Times that are told in words (`half past three`, `ten to six`, `às três e meia`), in digits for
the model: students read another hour (*halb drei*) or other words (*pela metade dos três*)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Telling:
    """How a language tells times in words."""

    hours: Mapping[str, int]
    minutes: Mapping[str, int]
    past: tuple[re.Pattern[str], ...]
    """Times behind an hour; groups `hour` and `minutes`."""
    to: tuple[re.Pattern[str], ...]
    """Times before one."""
    signs: tuple[re.Pattern[str], re.Pattern[str]]
    """What a text has where there are times behind an hour, and before one; quick to find."""

    def in_digits(self, text: str) -> str:
        for hours, sign, patterns in zip((0, -1), self.signs, (self.past, self.to), strict=True):
            if sign.search(text):
                for pattern in patterns:
                    text = pattern.sub(partial(self._time, hours), text)
        return text

    def _time(self, hours: int, match: re.Match[str]) -> str:
        """The time, in the hour that is named or the one before it (`hours` 0 or -1)."""
        hour = match["hour"].lower()
        words = re.sub(r"\s+", " ", match["minutes"].lower())
        words = re.sub(r"\sminut\w+$", "", words)
        minutes = self.minutes.get(words) or int(words)
        if not 0 < minutes < 30 + (hours == 0):
            return match[0]
        after = (self.hours.get(hour) or int(hour)) + hours - 1
        return f"{after % 12 + 1}:{minutes if hours == 0 else 60 - minutes:02}"


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


def _english() -> Telling:
    hours = {
        "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
        "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
    }  # fmt: skip
    minutes = {"five": 5, "ten": 10, "twenty": 20, "twenty-five": 25, "twenty five": 25}
    hour = (
        rf"(?P<hour>{_any_of(hours)}|1[0-2]|[1-9])(?:\b|(?=[ap]m\b))(?:\so['’]clock\b)?(?![.,:]?\d|[-‐‑–%]|\s"
        r"(?:hundred|thousand|million|percent|per|years?|months?|weeks?|days?|hours?)\b)"
    )
    # A quarter of a year is none of an hour.
    ordinals = ("first", "second", "third", "fourth", "last", "next", "this", "each", "every")
    free = r"(?:\ba\s)?(?<![\w.,:-])" + "".join(rf"(?<!\b{word}\s)" for word in ordinals)
    ends = (
        r"(?=[.,;!?)\"”'’]*(?:\Z|\s*[;!?)]|[.,]\s"
        r"|\s(?:in\sthe|on|and|but|or|when|is|was|today|tonight|tomorrow|sharp|[ap]\.?m)\b))"
    )
    # `ten to six` and `a quarter to five` may be numbers of another kind: they count only where a
    # time is told, and of digits only minutes that are called so: scores and odds have them too.
    told = _after("at", "until", "till", "nearly", "almost")
    others = _after("is", "was", "before", "after", "around", "about")
    asked = rf"(?:{told}|{others}|(?<=['’]s\s)|\A)"
    some = rf"(?:{_any_of(minutes)})(?:\sminutes)?|[12]?\d\sminutes?"
    return Telling(
        hours,
        minutes | {"quarter": 15, "half": 30},
        (
            re.compile(rf"{free}(?P<minutes>quarter|half)[\s-]past\s{hour}", re.IGNORECASE),
            re.compile(rf"{free}(?P<minutes>{some})\spast\s{hour}{ends}", re.IGNORECASE),
        ),
        (
            re.compile(
                rf"{asked}(?:a\s)?(?P<minutes>quarter)\s(?:to|till)\s{hour}{ends}", re.IGNORECASE
            ),
            re.compile(rf"{told}(?P<minutes>{some})\sto\s(?!one\b|1\b){hour}{ends}", re.IGNORECASE),
        ),
        (
            re.compile(r"[Pp]ast\s"),
            re.compile(r"(?:uarter|ive|en|enty|inutes?)\s(?:to|till)\s"),
        ),
    )


def _after(*words: str) -> str:
    """Pattern of the place behind one of some words."""
    places = "|".join(rf"(?<=\b{word}\s)" for word in words)
    return f"(?:{places})"


def _portuguese() -> Telling:
    hours = {
        "uma": 1, "duas": 2, "três": 3, "quatro": 4, "cinco": 5, "seis": 6, "sete": 7, "oito": 8,
        "nove": 9, "dez": 10, "onze": 11, "doze": 12, "meio-dia": 12,
    }  # fmt: skip
    minutes = {
        "cinco": 5, "dez": 10, "quinze": 15, "um quarto": 15, "vinte": 20, "vinte e cinco": 25,
        "meia": 30,
    }  # fmt: skip
    hour = rf"(?P<hour>{_any_of(hours)}|1[0-2]|[1-9])"
    some = rf"(?P<minutes>{_any_of(minutes)})(?:\sminutos(?!\s(?:depois|mais)\b))?\b"
    amount = r"(?!\s(?:mil|cento|milh\w+|por|e|minutos|horas?|vezes)\b)"
    # Without `às` they may be any numbers: they count where nothing is counted.
    ends = (
        r"(?=[.,;!?)\"”]*(?:\Z|\s*[;!?)]|[.,]\s"
        r"|\s(?:da\s(?:manhã|tarde|noite|madrugada)|em\sponto|agora|já|quando)\b))"
    )
    told, is_it = _after("à", "ao", "às"), _after("é", "são")
    half = r"(?P<minutes>meia|um\squarto|quinze)\b"
    return Telling(
        hours,
        minutes,
        (
            re.compile(rf"{told}{hour}\s(?:horas?\s)?e\s{half}{amount}", re.IGNORECASE),
            re.compile(rf"{told}{hour}\s(?:horas?\s)?e\s{some}{ends}", re.IGNORECASE),
            re.compile(rf"{is_it}{hour}\s(?:horas?\s)?e\s{half}{ends}", re.IGNORECASE),
        ),
        (
            re.compile(rf"{told}{some}\spara\s(?:[àa]s?|o)\s{hour}\b{amount}", re.IGNORECASE),
            re.compile(rf"{is_it}{some}\spara\s(?:[àa]s?|o)\s{hour}\b{ends}", re.IGNORECASE),
        ),
        (
            re.compile(r"\se\s(?:meia|cinco|dez|quinze|vinte|um\squarto)\b"),
            re.compile(r"(?:cinco|dez|inze|inte|quarto|minutos)\spara\s"),
        ),
    )


_TELLINGS = {"en": _english(), "pt": _portuguese()}


def with_times_in_digits(text: str, language: str) -> str:
    """A text of a language with `3:30` for `half past three`; as it is in one that is not known."""
    telling = _TELLINGS.get(language.partition("-")[0])
    return text if telling is None else telling.in_digits(text)
