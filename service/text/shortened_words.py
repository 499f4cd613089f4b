"""English words that are shortened in writing (`max.`, `2 hrs`, `w/o`), in full for the model:
students leave them as they are, drop them, or read others (*the U.K.* as the United States)."""

from __future__ import annotations

import re

from service.text.clock import ENDS_SENTENCE

WORDS = {
    "approx": "approximately", "avg": "average", "dept": "department", "excl": "without",
    "govt": "government", "incl": "including", "misc": "miscellaneous",
}  # fmt: skip
"""With a full stop, or before a number (`approx 5`)."""
LIMITS = {"max": "maximum", "min": "minimum"}
"""The same, but they are minutes (`five min.`) and names (`Max`), too."""
TIMES = {
    "hr": "hour", "hrs": "hours", "mins": "minutes", "secs": "seconds", "wk": "week",
    "wks": "weeks", "yr": "year", "yrs": "years",
}  # fmt: skip
"""Behind a number."""
SIGNS = {"w/": "with", "w/o": "without"}
WORD = re.compile(
    rf"(?<![\w.,/'’-])(?P<word>{'|'.join(WORDS)})(?:\.(?=[\s,:;)])(?!\s*\Z)|(?=\s?\d))",
    re.IGNORECASE,
)
_FREE = (
    r"(?:\A|(?<=[,:;(]\s)|(?<=\()|(?<=\b(?i:an|at|is|of|or|to)\s)|(?<=\b(?i:and|are|for|our|the)\s)"
    r"|(?<=\b(?i:with|your)\s)|(?<=\b[Aa]\s))"
)
LIMIT = re.compile(
    rf"{_FREE}(?P<word>max|min)(?:\.(?=\s(?:\d|[a-z]))|(?=\s?\d+(?:\s[a-z]|\s?[kMG]?[Bgm]\b|%|\.?\Z)))"
    rf"|(?<=[\s(])(?P<last>max)\.?(?=\)|\Z)"
    rf"|(?:\A|(?<=[:;(]\s))(?P<first>Max|Min)\.(?=\s(?:\d|[a-z]))"
)
CAPITALS = re.compile(r"(?<![\w.,/'’-])(MAX|MIN)(?:\.(?!\w)|(?=\s?\d))")
"""In a text that is all in capitals."""
TIME = re.compile(
    rf"(?<=\d)\s?(?P<word>{'|'.join(sorted(TIMES, key=len, reverse=True))})(?P<stop>\.)?(?![\w./-])"
)
SIGN = re.compile(r"(?<![\w/])(?P<word>w/o?)(?=\s+\w)", re.IGNORECASE)
SOON = re.compile(
    r"(?<!\b[Tt]he\s)\b(?:ASAP|asap)\b"
    r"(?=[.,;:!?)]|\Z|\s(?:if|so|and|to|or|as|before|by|please|with|on|at|in|for|because|when)\b)"
)
THAT_IS = re.compile(r"(?<![\w.])i\.\s?e\.(?:,(?=\s))?(?=\s)")
_GOES_ON = "as|at|before|but|by|for|from|has|have|in|is|on|only|since|to|was|were|will|with"
KINGDOM = re.compile(
    r"\b(?P<word>[Tt]he\sU(?:K\b|\.\s?K\b(?P<stop>\.)?+))(?!['’./-]?\w)"
    rf"(?!\s(?!(?:{_GOES_ON})\b(?!-)|(?:and|or)\sthe\b)[^\W\d_])"
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
    if "max" in folded or "min" in folded:
        text = LIMIT.sub(_limit, text)
        if text.isupper():
            text = CAPITALS.sub(lambda match: LIMITS[match[1].lower()].upper(), text)
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
    """The word in full, with capitals like the short one's."""
    short = match["word"]
    word = WORDS[short.lower()]
    return word.upper() if short.isupper() else word.capitalize() if short[0].isupper() else word


def _limit(match: re.Match[str]) -> str:
    short = next(filter(None, match.groups()))
    if match["last"] and not any(map(str.isdigit, match.string[: match.start()])):
        return match[0]  # `Ask Mad max.`
    word = LIMITS[short.lower()]
    end = (
        "." if match["last"] and match[0].endswith(".") and match.end() == len(match.string) else ""
    )
    return f"{word.capitalize() if short[0].isupper() else word}{end}"
