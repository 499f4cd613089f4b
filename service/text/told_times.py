"""Times that English tells in words (`half past three`, `ten to six`), in digits for the model:
students read another hour (*halb drei*) or another word (*pela metade dos três*)."""

from __future__ import annotations

import re

HOURS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12,
}  # fmt: skip
MINUTES = {"five": 5, "ten": 10, "twenty": 20, "twenty-five": 25, "twenty five": 25}
_HOUR = (
    rf"(?P<hour>{'|'.join(HOURS)}|1[0-2]|[1-9])\b(?:\s?o['’]clock\b)?"
    r"(?![.,:]?\d|[-‐‑–%]|\s(?:hundred|thousand|million|percent|per|years?|months?|weeks?|days?|hours?)\b)"
)
_MINUTES = (
    rf"(?P<minutes>{'|'.join(sorted(MINUTES, key=len, reverse=True))}|[12]?\d)(?:\sminutes?)?"
)
_NO_QUARTER_OF_A_YEAR = "".join(
    rf"(?<!\b{word}\s)"
    for word in ("first", "second", "third", "fourth", "last", "next", "this", "each", "every")
)
_AFTER_TIME = (
    r"(?=[.,;!?)\"”'’]*(?:\Z|\s*[;!?)]|[.,]\s|\s(?:in\sthe|on|and|but|today|tonight|tomorrow|sharp"
    r"|[ap]\.?m)\b))"
)
PAST = re.compile(
    rf"(?:\bhalf|(?:\ba\s)?{_NO_QUARTER_OF_A_YEAR}\b(?P<quarter>quarter)|(?<![\w.,:-]){_MINUTES})"
    rf"[\s-]past\s{_HOUR}",
    re.IGNORECASE,
)
QUARTER_TO = re.compile(
    rf"(?:\ba\s)?{_NO_QUARTER_OF_A_YEAR}\b(?P<quarter>quarter)\s(?:to|till)\s{_HOUR}{_AFTER_TIME}",
    re.IGNORECASE,
)
MINUTES_TO = re.compile(
    r"(?:(?<=\bat\s)|(?<=\buntil\s)|(?<=\bit\sis\s)|(?<=\bit\swas\s)|(?<=\bit['’]s\s))"
    rf"{_MINUTES}\sto\s{_HOUR}{_AFTER_TIME}",
    re.IGNORECASE,
)
"""`ten to six` may be numbers of another kind: so only where a time is told."""


def with_times_in_digits(text: str) -> str:
    """An English text with `3:30` for `half past three`."""
    if " past " in (folded := text.lower()) or "-past " in folded:
        text = PAST.sub(lambda match: _time(match, 0), text)
    if " to " in folded or " till " in folded:
        text = QUARTER_TO.sub(lambda match: _time(match, -1), text)
        text = MINUTES_TO.sub(lambda match: _time(match, -1), text)
    return text


def _time(match: re.Match[str], hours: int) -> str:
    """The time, `hours` (0 or -1) after the one that is named."""
    named = match.groupdict()
    hour = named["hour"].lower()
    if named.get("quarter"):
        minutes = 15
    elif given := (named.get("minutes") or "").lower():
        minutes = MINUTES.get(given) or int(given)
    else:
        minutes = 30
    if not 0 < minutes < 30 + (hours == 0):
        return match[0]
    after = (HOURS.get(hour) or int(hour)) + hours - 1
    return f"{after % 12 + 1}:{minutes if hours == 0 else 60 - minutes:02}"
