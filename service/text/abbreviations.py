"""Which full stops end no sentence, where `sentencex` takes them for ends: those of abbreviations
and ordinals of English, German and Portuguese that its tables lack, and stops without a space
after them (`Mon.–Fri.`, `n.º 5`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

WITH_SPACES = re.compile(r"[\u0000-\u0dff\u1200-\u2bff\ua640-\ufdff]")
"""Characters of scripts that put a space after a sentence, and marks that such scripts use."""
ORDINAL_MARKS = frozenset("ºª°")
OPENING = "\"'“„‘‚«‹([{¿¡ \t"
"""What may stand before the first word of a sentence."""
ABBREVIATION = re.compile(r"(?<![\w.])([^\W\d_]{1,20}(?:\.[^\W\d_]{1,20}){0,5})\.\Z")
LETTERS_WITH_STOPS = re.compile(r"[^\W\d_]{1,2}(?:\.[^\W\d_]{1,2})+")
NEXT_ABBREVIATION = re.compile(r"([^\W\d_]{1,20})\.(?=\W|\Z)")
NUMBER = re.compile(r"\d|[IVXLCDM]{1,8}\b|[B-DF-HJ-NP-Za-z]\b")
"""Digits, Roman numerals and letters; `A`, `E` and `O` are words."""
GERMAN_ORDINAL = re.compile(
    r"\b(?:[Dd](?:er|ie|as|e[mns])|[AaIi]m|[Vv]om|[Zz]u[mr]|[Bb]eim|[Aa]b|[Bb]is|[Ss]eit|[Uu]nd)"
    r"\s\d{1,2}\.\Z"
)
LOOKBACK_CHARS = 120


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


TITLES: Mapping[str, frozenset[str]] = {
    "en": _names("Mr Mrs Ms Messrs Mx Dr Prof Rev Hon Gen Col Capt Lt Sgt Gov Sen Rep St Mt Ft"),
    "de": _names("Hr Fr Frl Dr Prof Dipl Ing Mag St Hl"),
    "pt": _names(
        "Sr Sra Srs Sras Srta Sto Sta S Dr Dra Drs Dras Prof Profa Eng Enga Arq Exmo Exma Exmos "
        "Ilmo Ilma Pe Fr Gen Cel Cap Av Pça Lg Trav Rod Est Min Dep Sen Gov Cia"
    ),
}
"""Abbreviations before a name: none of them ends a sentence."""
PREPOSITIONS = _names("excl incl exkl inkl zzgl abzgl vs")
"""Abbreviations before a noun, which German writes with a capital as the next sentence."""
NAMED = re.compile(r"[A-Z]{2,}\b")
AFTER_TIME = re.compile(
    r"(?:[ECMP][SD]?T|GMT|UTC|BST|CES?T|EES?T|IST|JST|AE[SD]?T)\b|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"
    r"|(?:Eastern|Central|Mountain|Pacific)\s(?:Standard|Daylight|Time)\b"
)
"""What follows a time of day in the same sentence: a time zone, a day."""
NUMBERED: Mapping[str, frozenset[str]] = {
    "": _names("n nr vol fig art p pp tab tel ref cap ed"),
    "en": _names(
        "sec sect secs ch chs chap par para paras eq eqs ext vols figs pg pgs arts pt bk v nos "
        "apt rm bldg"
    ),
    "de": _names("abs abb bd kap ziff s ss bde anm aufl str"),
    "pt": _names("pág págs pag pags séc sécs als al inc parág proc tít lv obs nº"),
}
"""Abbreviations before a number; none of them ends a sentence before one (digits, `IV`, `a`)."""
ABBREVIATIONS: Mapping[str, frozenset[str]] = {
    "": _names("max min approx vs etc incl excl ca cf ex"),
    "en": _names(
        "avg temp est dept govt assn bros inc ltd co corp adj esp resp orig misc qty amt hr hrs wk "
        "wks yr yrs mo mos mins secs ft lb lbs oz tbsp tsp encl fwd attn avail "
        "Mon Tue Tues Wed Thu Thur Thurs Fri Sat Sun "
        "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
    ),
    "de": _names(
        "bzw bspw bsp evtl ggf inkl exkl zzgl vgl usw usf sog gem lt bes allg entspr jew einschl "
        "ausschl mind höchst std sek mio mrd stk geb gest Mo Di Mi Do Fr Sa So "
        "Jan Feb Mär Apr Jun Jul Aug Sep Sept Okt Nov Dez"
    ),
    "pt": _names(
        "máx mín aprox méd temp qtd qtde núm tels ltda lda cia dto esq edif apto ap exa exas abrev "
        "pref adj cód doc docs fl fls hab hs seg ter qua qui sex sáb dom jan fev mar abr mai jun "
        "jul ago set out nov dez"
    ),
}
"""Abbreviations that end a sentence only if a capital follows. What has a capital here is one only
with it: `Sat.`, not `sat.`"""


def ends_sentence(text: str, place: int, language: str) -> bool:
    """Whether a sentence can end at a place where the splitter found an end.

    `language` is the code of the text's language (`pt`, `pt-BR`)."""
    before, after = text[max(0, place - LOOKBACK_CHARS) : place].rstrip(), text[place:]
    if before and not text[place - 1].isspace():
        return not (WITH_SPACES.match(text[place - 1]) and WITH_SPACES.match(after))
    following = after[:60].lstrip(OPENING)
    if following[:1] in ORDINAL_MARKS:
        return False
    if not before.endswith("."):
        return True
    base = language.partition("-")[0].lower()
    if base == "de" and GERMAN_ORDINAL.search(before):
        return False
    match = ABBREVIATION.search(before)
    return match is None or not _goes_on(match[1], following, base)


def _goes_on(word: str, following: str, language: str) -> bool:
    """Whether a sentence goes on after a word with a full stop."""
    if _is_in(word, TITLES, language) and word[:1].isupper():
        return True
    if word.lower() in PREPOSITIONS and (language == "de" or NAMED.match(following)):
        return True
    if word.lower() in ("a.m", "p.m") and AFTER_TIME.match(following):
        return True
    is_letter = len(word) == 1 or LETTERS_WITH_STOPS.fullmatch(word) is not None
    is_numbered = _is_in(word, NUMBERED, language)
    if is_numbered and NUMBER.match(following):
        return True
    if not (is_letter or is_numbered or _is_in(word, ABBREVIATIONS, language)):
        return False
    if not following[:1].isupper():
        return True
    following_word = NEXT_ABBREVIATION.match(following)
    if following_word is None:
        return False
    if is_letter:
        return len(following_word[1]) == 1
    return any(_is_in(following_word[1], table, language) for table in (TITLES, ABBREVIATIONS))


def _is_in(word: str, table: Mapping[str, frozenset[str]], language: str) -> bool:
    words = table.get(language, frozenset()) | table.get("", frozenset())
    return word in words or word.lower() in words or (word.isupper() and word.title() in words)
