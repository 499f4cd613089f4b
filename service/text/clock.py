"""Times of day: hours that are counted from 12 (`5 pm`) in languages that count them to 24."""

from __future__ import annotations

import re
from collections.abc import Mapping

TWELVE_HOURS = re.compile(r"\s?([ap])\.?\s?m\b", re.IGNORECASE)
PARTS_OF_DAY: Mapping[str, str] = {
    "de": r"morgens?|früh|vormittags?|(?:nach)?mittags?|abends?|nachts?",
    "pt": r"d[ae] (?:manhã|tarde|noite|madrugada)|meio-dia|meia-noite",
    "es": r"de la (?:mañana|tarde|noche|madrugada)|mediodía|medianoche",
    "fr": r"du (?:matin|soir)|de l['’]après-midi|midi|minuit",
    "it": r"di (?:mattina|sera|notte)|del (?:mattino|pomeriggio)|mezzogiorno|mezzanotte",
    "nl": r"['’]s (?:ochtends|morgens|middags|avonds|nachts)|middernacht",
}
"""What says in a language which half of the day is meant, besides `am` and `pm`."""
_SAID = {
    language: re.compile(rf"\d\s?[ap]\.?\s?m\b|\b(?:{words})\b", re.IGNORECASE)
    for language, words in PARTS_OF_DAY.items()
}


GIVEN_24_HOURS = frozenset({"pt"})
"""Languages into which hours are sent as `13:00`: models read `1pm` as 14h, `2am` as `2 daam`."""
TIME = re.compile(
    r"(?:(?<![\w.,:$€£+-])|(?<=:\d\d[-‐‑–—]))(?P<time>(?:1[0-2]|0?[1-9])(?::[0-5]\d)?)\s?"
    r"[ap](?:m|\.\s?m\.?)(?!\w|\sI\b|\s(?:radio|stations?|signals?|broadcasts?)\b)",
    re.IGNORECASE,
)
"""A time that counts from 12, with its half of the day."""
NAME = re.compile(r"\s(?:[A-Z][a-z]|(?:is|has|was|released|will|are)\b)")
"""What makes a name of `2PM`."""
ENDS_SENTENCE = re.compile(r"""["'”’]*\s*\Z""")
"""What is behind a full stop that ends the sentence, which is sent by itself."""


def says_part_of_day(text: str, language: str) -> bool:
    """Whether a text says which half of the day is meant; true of a language that is not known."""
    said = _SAID.get(language.partition("-")[0])
    return said is None or said.search(text) is not None


def counts_to_24(language: str) -> bool:
    """Whether a language is known to count hours to 24."""
    return language.partition("-")[0] in PARTS_OF_DAY


def in_24_hours(text: str, numeral: str, end: int) -> str:
    """The numeral of a time that ends at a place, as it is where hours are counted to 24; the same
    if no `pm` (or, of the hour 12, `am`) follows."""
    half = TWELVE_HOURS.match(text, end)
    hour = re.match(r"\d{1,2}(?![\d,])", numeral)
    if half is None or hour is None or not 1 <= int(hour[0]) <= 12:
        return numeral
    later = int(hour[0]) % 12 + (12 if half[1] in "pP" else 0)
    return numeral if later == int(hour[0]) else f"{later}{numeral[hour.end() :]}"


def counted_to_24(text: str, *, is_first: bool = True) -> str:
    """A text whose times with a half of the day count to 24: `at 1 p.m.` is `at 13:00.`. One that
    is nothing else stays, unless it is a part of a sentence that does not begin it, and so does
    what may be a name (`2PM`)."""
    return TIME.sub(lambda match: _counted_to_24(match, is_first), text)


def _counted_to_24(match: re.Match[str], is_first: bool) -> str:
    before, after = match.string[: match.start()], match.string[match.end() :]
    is_alone = not any(map(str.isalnum, before + after))
    is_name = re.fullmatch(r"\d+[AP]M", match[0]) and NAME.match(after) is not None
    if is_name or (is_first and is_alone):
        return match[0]
    time = in_24_hours(match.string, match["time"], match.end("time"))
    ends = match[0].endswith(".") and ENDS_SENTENCE.match(after)
    return f"{time if ':' in time else f'{time}:00'}{'.' if ends else ''}"
