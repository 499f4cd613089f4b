"""English words that are shortened in writing (`max.`, `2 hrs`, `w/o`), in full for the model:
students leave them as they are, drop them, or read others (*the U.K.* as the United States)."""

from __future__ import annotations

import re

from service.text.clock import ENDS_SENTENCE

WORDS = {
    "approx": "approximately", "avg": "average", "dept": "department", "excl": "excluding",
    "govt": "government", "incl": "including", "max": "maximum", "min": "minimum",
    "misc": "miscellaneous",
}  # fmt: skip
"""With a full stop, or before a number (`max 5`)."""
MAY_END = frozenset({"dept", "govt", "max", "min"})
"""Those that may end a sentence behind which another one stands."""
TIMES = {
    "hr": "hour", "hrs": "hours", "mins": "minutes", "secs": "seconds", "wk": "week",
    "wks": "weeks", "yr": "year", "yrs": "years",
}  # fmt: skip
"""Behind a number."""
SIGNS = {"w/": "with", "w/o": "without"}
WORD = re.compile(
    rf"(?<![\w.,/'’-])(?!(?<=\d\s)min\b)(?P<word>{'|'.join(WORDS)})(?:(?P<stop>\.)(?![\w./-])|(?=\s?\d))",
    re.IGNORECASE,
)
TIME = re.compile(
    rf"(?<=\d)\s?(?P<word>{'|'.join(sorted(TIMES, key=len, reverse=True))})(?P<stop>\.)?(?![\w./-])"
)
SIGN = re.compile(r"(?<![\w/])(?P<word>w/o?)(?=\s+\w)", re.IGNORECASE)
SOON = re.compile(r"\b(?:ASAP|asap)\b")
THAT_IS = re.compile(r"(?<![\w.])i\.\s?e\.(?:,(?=\s))?(?=\s)")
_GOES_ON = "and|as|at|before|but|by|for|from|has|have|in|is|on|only|or|since|to|was|were|will|with"
KINGDOM = re.compile(
    r"\b(?P<word>[Tt]he\sU(?:K\b|\.\s?K\b(?P<stop>\.)?+))(?!['’./-]?\w)"
    rf"(?!\s(?!(?:{_GOES_ON})\b)[^\W\d_])"
)
"""The country, not what belongs to it (`the UK economy`)."""
LETTERS = re.compile(
    r"\bU\.\s?([KN])\.(?=\s[a-z]|['’]s\b|[,;:!?)])|\bU\.\s?([KN])\b(?=\.?\Z|[,;:!?)])"
)
"""Abbreviations that students take for the U.S."""


def in_full(text: str) -> str:
    """An English text with `maximum` for `max.`."""
    folded = text.lower()
    if any(word in folded for word in WORDS):
        text = WORD.sub(_word, text)
    if any(map(str.isdigit, text)):
        text = TIME.sub(lambda match: f" {TIMES[match['word']]}{_end(match)}", text)
    if "i.e" in folded or "i. e" in folded:
        text = THAT_IS.sub("that is,", text)
    if "w/" in folded:
        text = SIGN.sub(lambda match: SIGNS[match["word"].lower()], text)
    if "UK" in text or "U." in text:
        text = KINGDOM.sub(lambda match: f"{match[1][:3]} United Kingdom{_end(match)}", text)
        text = LETTERS.sub(lambda match: f"U{match[1] or match[2]}", text)
    return SOON.sub("as soon as possible", text) if "asap" in folded else text


def _end(match: re.Match[str]) -> str:
    """The full stop of a short word where it also ends the sentence."""
    ends = match["stop"] and ENDS_SENTENCE.match(match.string, match.end())
    return "." if ends else ""


def _word(match: re.Match[str]) -> str:
    """The word in full, with capitals like the short one's; as it is where it may be a name."""
    short, end = match["word"], _end(match)
    is_capital = short[0].isupper()
    if is_capital and not short.isupper() and (end or (not match["stop"] and match.start())):
        return match[0]
    word = WORDS[short.lower()]
    if short.isupper():
        return f"{word.upper()}{end if match.end() == len(match.string) else ''}"
    ends = end and (short.lower() in MAY_END or match.end() == len(match.string))
    return f"{word.capitalize() if is_capital else word}{'.' if ends else ''}"
