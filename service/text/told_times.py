"""Times that are told in words (`half past three`, `ten to six`, `às três e meia`), in digits for
the model: students read another hour (*halb drei*) or other words (*pela metade dos três*)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Telling:
    """How a language tells times in words."""

    hours: Mapping[str, int]
    minutes: Mapping[str, int]
    past: re.Pattern[str]
    """A time behind an hour; groups `hour` and `minutes`."""
    to: tuple[re.Pattern[str], ...]
    """Times before one."""
    signs: tuple[re.Pattern[str], re.Pattern[str]]
    """What a text has where there are times behind an hour, and before one; quick to find."""

    def in_digits(self, text: str) -> str:
        if self.signs[0].search(text):
            text = self.past.sub(lambda match: self._time(match, 0), text)
        if self.signs[1].search(text):
            for pattern in self.to:
                text = pattern.sub(lambda match: self._time(match, -1), text)
        return text

    def _time(self, match: re.Match[str], hours: int) -> str:
        """The time, `hours` (0 or -1) after the one that is named."""
        hour, words = match["hour"].lower(), match["minutes"].lower()
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
        rf"(?P<hour>{_any_of(hours)}|1[0-2]|[1-9])\b(?:\s?o['’]clock\b)?(?![.,:]?\d|[-‐‑–%]|\s"
        r"(?:hundred|thousand|million|percent|per|years?|months?|weeks?|days?|hours?)\b)"
    )
    # A quarter of a year is none of an hour.
    ordinals = ("first", "second", "third", "fourth", "last", "next", "this", "each", "every")
    before = r"(?:\ba\s)?(?<![\w.,:-])" + "".join(rf"(?<!\b{word}\s)" for word in ordinals)
    some = rf"{_any_of(minutes)}|[12]?\d"
    ends = (
        r"(?=[.,;!?)\"”'’]*(?:\Z|\s*[;!?)]|[.,]\s"
        r"|\s(?:in\sthe|on|and|but|today|tonight|tomorrow|sharp|[ap]\.?m)\b))"
    )
    # `ten to six` may be numbers of another kind: it counts only where a time is told.
    told = r"(?:(?<=\bat\s)|(?<=\buntil\s)|(?<=\bit\sis\s)|(?<=\bit\swas\s)|(?<=\bit['’]s\s))"
    return Telling(
        hours,
        minutes | {"quarter": 15, "half": 30},
        re.compile(
            rf"{before}(?P<minutes>quarter|half|{some})(?:\sminutes?)?[\s-]past\s{hour}",
            re.IGNORECASE,
        ),
        (
            re.compile(rf"{before}(?P<minutes>quarter)\s(?:to|till)\s{hour}{ends}", re.IGNORECASE),
            re.compile(
                rf"{told}(?P<minutes>{some})(?:\sminutes?)?\sto\s{hour}{ends}", re.IGNORECASE
            ),
        ),
        (re.compile(r"[Pp]ast "), re.compile(r"(?:uarter|ive|en|enty|inutes?|\d) (?:to|till) ")),
    )


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
    some = rf"(?P<minutes>{_any_of(minutes)})(?:\sminutos)?\b(?!\s(?:mil|cento|milh\w+|por|e)\b)"
    told = r"(?:(?<=\b[àé]\s)|(?<=\b[aà]o\s)|(?<=\bàs\s)|(?<=\bsão\s))"
    return Telling(
        hours,
        minutes,
        re.compile(rf"{told}{hour}\s(?:horas?\s)?e\s{some}", re.IGNORECASE),
        (re.compile(rf"{told}{some}\spara\s(?:[àa]s?|o)\s{hour}\b", re.IGNORECASE),),
        (
            re.compile(r" e (?:meia|cinco|dez|quinze|vinte|um quarto)\b"),
            re.compile(r"(?:cinco|dez|inze|inte|quarto|minutos) para "),
        ),
    )


_TELLINGS = {"en": _english(), "pt": _portuguese()}


def with_times_in_digits(text: str, language: str) -> str:
    """A text of a language with `3:30` for `half past three`; as it is in one that is not known."""
    telling = _TELLINGS.get(language.partition("-")[0])
    return text if telling is None else telling.in_digits(text)
