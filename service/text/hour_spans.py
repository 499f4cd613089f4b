"""Spans and lists of hours in English (`9-5pm`, `at 5, 6 and 7 pm`), each hour with its half of the
day: models read the last one alone with it."""

from __future__ import annotations

import re

_HOUR = r"(?P<{0}>1[0-2]|0?[1-9])(?P<{0}_minutes>[:.][0-5]\d)?"
SPAN = re.compile(
    rf"(?<![\w.,:$€£+/-]){_HOUR.format('first')}(?P<first_half>\s?[ap]\.?m\b\.?)?"
    rf"(?P<between>\s?[-‐‑–—]\s?|\s(?:and|to|or|until|till)\s){_HOUR.format('last')}"
    r"(?P<last_half>\s?[ap]\.?m)\b",
    re.IGNORECASE,
)
"""Two hours of which the last has its half of the day: `9am-5pm`, `9-5pm`, `between 5 and 6pm`."""
BEFORE_HOURS = re.compile(r"\b(?:between|at|around|either|from)\s\Z", re.IGNORECASE)
"""What says that two numbers with `and` or `or` are hours."""
MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
LABEL = re.compile(
    rf"(?<![\w'’-])(?:{MONTH}|(?i:act|area|building|bus|chapter|class|day|door|episode|exit|flight|floor"
    r"|game|gate|grade|group|hall|heat|lane|lesson|level|line|match|no|number|page|part|platform|race"
    r"|room|round|scene|season|session|stage|step|suite|table|team|track|unit|vol|volume|week|zone))"
    r"\.?\s\Z"
)
"""What makes a date or a number of the one behind it: `June 3 - 5:30 pm`, `Day 1 - 9 am`."""
MOVED = re.compile(
    r"\b(?:mov|chang|postpon|reschedul|push|brought|delay|shift)\w*\b", re.IGNORECASE
)
"""What says that `from 4 to 3 pm` is no span: both are of one half of the day."""
LIST = re.compile(
    r"(?<=\b[Aa]t\s)(?P<hours>\d{1,2}(?::\d\d)?(?:,\s\d{1,2}(?::\d\d)?){1,9}),?\s(?P<word>and|or)\s"
    r"(?P<last>\d{1,2}(?::\d\d)?)(?P<half>\s?[ap]\.?m)\b",
    re.IGNORECASE,
)
POINT_HOUR = re.compile(r"(?<![\w.,:-])(1[0-2]|0?[1-9])\.([0-5]\d)(?=\s?[ap]\.?m\b)", re.IGNORECASE)
"""An hour with a point before its minutes: `9.30 am`."""
LOOKBACK_CHARS, LONG_LOOKBACK_CHARS = 12, 60
OTHER_HALF = str.maketrans("apAP", "paPA")


def with_both_halves(text: str) -> str:
    """An English text with `9am to 5pm` for `9-5pm`."""
    text = SPAN.sub(_span, LIST.sub(_list, text))
    return POINT_HOUR.sub(r"\1:\2", text)


def _list(match: re.Match[str]) -> str:
    hours = "".join(f"{hour}{match['half']}, " for hour in re.split(r",\s", match["hours"]))
    return f"{hours[:-2]} {match['word']} {match['last']}{match['half']}"


def _span(match: re.Match[str]) -> str:
    """A span of hours, each with its half of the day: the first has that of the last if it is
    before it on the dial, else the other."""
    word, start = match["between"].strip(), match.start()
    before = match.string[max(0, start - LONG_LOOKBACK_CHARS) : start]
    near = before[-LOOKBACK_CHARS:]
    if word.lower() in ("and", "or") and not BEFORE_HOURS.search(near):
        return match[0]
    half = match["first_half"]
    if half is None:
        if not word.isalpha() and LABEL.search(before):
            return match[0]
        first, last = (int(match[group]) % 12 for group in ("first", "last"))
        is_other = (first, _minutes(match, "first")) >= (last, _minutes(match, "last"))
        half = match["last_half"]
        if is_other and not (word.lower() == "to" and MOVED.search(before)):
            half = half.translate(OTHER_HALF)
    between = f" {word} " if word.isalpha() else " to "
    hours = (
        f"{match[group]}{(match[f'{group}_minutes'] or '').replace('.', ':')}"
        for group in ("first", "last")
    )
    return f"{next(hours)}{half}{between}{next(hours)}{match['last_half']}"


def _minutes(match: re.Match[str], group: str) -> str:
    return (match[f"{group}_minutes"] or ":00")[1:]
