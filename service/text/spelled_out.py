"""Abbreviations before numbers (`No. 5`, `p. 12`), days of the week (`Mon–Fri`, `Sat 10:30`),
English months (`Dec. 3`), spans of hours (`9-5pm`) and times in words (`half past three`), and
Portuguese times (`17h30`), spelled out for the model: students read them as other words
("No. 5" → "Nein 5") or copy them. What comes back for `No.` is written as the target language does
(`Nr. 5`, `n.º 5`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

from service.text.clock import GIVEN_24_HOURS, counted_to_24
from service.text.hour_spans import with_both_halves
from service.text.inline import MARK
from service.text.shortened_words import in_full
from service.text.told_times import with_times_in_digits

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "no": "number", "nos": "numbers", "p": "page", "pp": "pages", "pg": "page",
        "pgs": "pages", "fig": "Figure", "figs": "Figures", "ch": "Chapter", "chap": "Chapter",
        "chs": "Chapters", "vol": "Volume", "vols": "Volumes", "art": "Article",
        "arts": "Articles", "sec": "Section", "sect": "Section", "secs": "Sections",
        "par": "Paragraph", "para": "Paragraph", "paras": "Paragraphs", "eq": "Equation",
        "eqs": "Equations", "tab": "Table", "rm": "Room", "bk": "Book",
        "c": "about", "ca": "about", "approx": "about",
    },
    "de": {
        "nr": "Nummer", "nrn": "Nummern", "s": "Seite", "abb": "Abbildung", "kap": "Kapitel",
        "bd": "Band", "art": "Artikel", "abs": "Absatz", "abschn": "Abschnitt", "tab": "Tabelle",
        "ziff": "Ziffer", "anm": "Anmerkung", "anh": "Anhang", "aufl": "Auflage", "gl": "Gleichung",
        "ca": "etwa",
    },
    "pt": {
        "nº": "número", "nos": "números", "nr": "número", "p": "página", "pp": "páginas",
        "pág": "página", "págs": "páginas", "pag": "página", "pags": "páginas", "fig": "figura",
        "figs": "figuras", "cap": "capítulo", "caps": "capítulos", "vol": "volume",
        "vols": "volumes", "art": "artigo", "arts": "artigos", "sec": "seção", "séc": "século",
        "sécs": "séculos", "par": "parágrafo", "eq": "equação", "tab": "tabela", "inc": "inciso",
        "ap": "apartamento", "apto": "apartamento", "ca": "cerca de", "aprox": "cerca de",
    },
}  # fmt: skip
"""By language: abbreviations in small letters, and the words that they stand for."""
DAYS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "en": (
        "to",
        {
            "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday",
            "Thu": "Thursday", "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday",
            "Sat": "Saturday", "Sun": "Sunday",
        },
    ),
    "de": (
        "bis",
        {
            "Mo": "Montag", "Di": "Dienstag", "Mi": "Mittwoch", "Do": "Donnerstag",
            "Fr": "Freitag", "Sa": "Samstag", "So": "Sonntag",
        },
    ),
    "pt": (
        "a",
        {
            "Seg": "Segunda-feira", "Ter": "Terça-feira", "Qua": "Quarta-feira",
            "Qui": "Quinta-feira", "Sex": "Sexta-feira", "Sáb": "Sábado", "Dom": "Domingo",
        },
    ),
}  # fmt: skip
"""By language: the word between the first and the last day, and abbreviations of days."""
NUMBER = r"(?=\d|(?:[IVXLC]{2,6}|[VX])\b)"
"""What must follow them: digits or a Roman numeral, which `I` is seldom."""
WITHIN_SENTENCES = {"no": "No."}
"""Abbreviations that models know, but for the first word of a sentence."""
ORDINAL_SIGN = r"|n(?:\.?[º°]|\.o)(?=\s?\d)"


NUMBER_SIGN = re.compile(
    r"(?<![\w.-])(?P<sign>(?:No|Nr|nr|no)\.|[Nn](?:\.?[º°]|\.o)|(?P<plural>(?:Nos|nos|Nrn)\.))\s?(?P<number>\d+)"
)
"""What stands for *number* before digits, in any language."""
SIGNS_OF: Mapping[str, tuple[str, str]] = {
    "en": ("No.", "Nos."),
    "de": ("Nr.", "Nrn."),
    "pt": ("n.º", "n.ºs"),
}
"""By language: how it is written before one number, and before several."""
WRITTEN: Mapping[str, str] = {
    "en": r"numbers?|No[.s]?|Nr\.?|num\.?",
    "de": r"Zahl(?:en)?|Nummern?|Anzahl|Nrn?\.?|No[.s]?|Numbers?|Nein,?",
    "pt": r"números?|n\.?[ºo°]s?\.?|Nr\.?|nos?\.?|numbers?|não,?",
}
"""By language: what models write for it."""
BEFORE_NUMBER = re.compile(r"\.\s?[\dIVXLC]|º")
"""What a text has in which such an abbreviation is."""
TIME = re.compile(r"(?<![\w.,:])([01]?\d|2[0-3])h([0-5]\d)(?:min)?(?![\w:])")
"""A time of the day as Portuguese writes it."""
WEEKDAY = re.compile(
    r"(?<![\w.,])([2-6])[ªa](?:(s?)-(?=feiras?\b)|(?=\s(?:[aàe]|ou)\s[2-6][ªa]s?-feira))"
)
"""A day of the week by its number in Portuguese: `2ª-feira`."""
WEEKDAYS = {"2": "segunda", "3": "terça", "4": "quarta", "5": "quinta", "6": "sexta"}
_DAY = "seg|ter|qua|qui|sex|sáb|dom"
WEEK = re.compile(
    rf"(?:(?:\A|(?<=\bde\s)|(?<=[;:(]\s))(?!ter\s)({_DAY})\.?|\b({_DAY})\.)\sa\s({_DAY})\b"
    r"(?:\.(?=[,;:]|\s(?-i:[a-zà-ú\d])))?",
    re.IGNORECASE,
)
"""Days of the week from one to another, as Portuguese abbreviates them: `seg. a sex.`."""
DECADES = re.compile(
    r"((?:\A|\b(?:[nd]?os|aos|pelos)\s)anos|\bdécadas?\sde)\s([3-9]0)(?:\s?(e|a|[-–/])\s?([3-9]0))?\b"
    r"(?![.,]?\d|%|\s(?:mil|milh|[dn]o\sséculo|[ad]\.\s?C))",
    re.IGNORECASE,
)
"""Decades of the 20th century, as Portuguese names them: `anos 90`."""
EVERY = re.compile(
    r"\b[Dd]e\s(\d+)\sem\s\1(?=\s(?:segundos?|minutos?|horas?|dias?|semanas?|meses|anos?|metros?|km)\b)"
)
"""How often in Portuguese: `de 8 em 8 horas`."""
MONTHS = {
    name[:3]: name
    for name in (
        *("January", "February", "March", "April", "May", "June", "July", "August"),
        *("September", "October", "November", "December"),
    )
} | {"Sept": "September"}
"""English months by their abbreviations."""
_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
MONTH = re.compile(
    rf"(?<![\w.-])(?:({_MONTH})\b\.?(?=\s\d{{1,2}}(?:st|nd|rd|th)?\b(?![.:]\d)|,?\s(?:19|20)\d\d\b)"
    rf"|(?<=\d\s)(?!Jan\s[^\W\d])({_MONTH})\b(?:\.(?=\s\d|,))?)"
)
"""An abbreviated month before or behind a day, or before a year; people are called Jan."""
DATE_SPAN = re.compile(rf"(?<=\d)\s?[-‐‑–—]\s?(?=(?:{_MONTH})\b\.?\s\d)")
"""What is between two days of different months: `Jan. 3-Feb. 5`."""
ANY_DAY = {language: re.compile("|".join(names)) for language, (_, names) in DAYS.items()}


@cache
def _numbered(language: str) -> re.Pattern[str]:
    names = "|".join(sorted(WORDS[language], key=len, reverse=True))
    sign = ORDINAL_SIGN if language == "pt" else ""
    return re.compile(rf"(?<![\w.-])(?:({names})\.(?=\s?{NUMBER}){sign})\s?", re.IGNORECASE)


@cache
def _days(language: str) -> re.Pattern[str]:
    """A day before another one or a time."""
    names = DAYS[language][1]
    day = "|".join(sorted({*names, *names.values()}, key=len, reverse=True))
    return re.compile(
        rf"(?<![\w-])(?<!\b[Tt]he\s)(?P<first>{day})\.?"
        rf"(?:\s?[-‐‑–—]\s?(?P<last>{day})\b\.?|(?=:?\s\d{{1,2}}(?:[:.h]\d|\s?[AaPp]\.?[Mm]|\s?Uhr))|(?=:(?:\s|\Z)))"
    )


def spell_out(text: str, language: str, target: str = "", *, is_first: bool = True) -> str:
    """A text of a language (`pt`, `pt-BR`) with words for its abbreviations before numbers and for
    days of the week, and with hours as the model into `target` reads them. Without `is_first`, it
    does not begin a sentence."""
    base = language.partition("-")[0]
    if base not in WORDS:
        return text
    if BEFORE_NUMBER.search(text):
        text = _numbered(base).sub(lambda match: _word(match, base, is_first), text)
    if base == "en":
        text = in_full(text)
    text = with_plain_times(text, base)
    if base == "en" and any(map(str.isdigit, text)):
        text = DATE_SPAN.sub(" to ", text)
        text = MONTH.sub(lambda match: MONTHS[match[1] or match[2]], text)
        if target.partition("-")[0] in GIVEN_24_HOURS:
            text = counted_to_24(text, is_first=is_first)
    if ANY_DAY[base].search(text):
        text = _days(base).sub(lambda match: _day(match, base), text)
    if base == "pt":
        text = WEEK.sub(lambda match: _week(match, DAYS[base][1]), text)
        text = TIME.sub(r"\1:\2", text)
    return text


def with_plain_times(text: str, language: str) -> str:
    """A text whose hours are in digits and all say which half of the day is meant, if one does, and
    whose days of the week are words, decades whole: what `half past five`, `5-6pm`, `2ª-feira` and
    `anos 90` are read as."""
    base = language.partition("-")[0]
    text = with_times_in_digits(text, base)
    if not any(map(str.isdigit, text)):
        return text
    if base == "en":
        return with_both_halves(text)
    if base == "pt":
        text = WEEKDAY.sub(
            lambda match: f"{WEEKDAYS[match[1]]}{'' if match[2] is None else match[2] + '-'}", text
        )
        text = DECADES.sub(_decades, text)
        return EVERY.sub(
            lambda match: f"{'A' if match[0][0] == 'D' else 'a'} cada {match[1]}", text
        )
    return text


@cache
def _number_sign(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{WRITTEN[language]})\s?(?P<number>\d+)", re.IGNORECASE)


def with_number_signs(source: str, translation: str, target: str) -> str:
    """A translation to a language (`pt`, `pt-BR`) in which `No. 5` of its source, which may have
    marks of tags in it, is what that language writes. Linear time."""
    base = target.partition("-")[0]
    if base not in SIGNS_OF or not BEFORE_NUMBER.search(source := source.replace(MARK, "")):
        return translation
    signs = list(NUMBER_SIGN.finditer(source))
    if not signs:
        return translation
    plural = {sign["number"]: sign["plural"] is not None for sign in signs}
    wanted = Counter(sign["number"] for sign in signs)
    found = Counter(match["number"] for match in _number_sign(base).finditer(translation))
    first = next((place for place, one in enumerate(translation) if one.isalnum()), 0)

    def own(match: re.Match[str]) -> str:
        number = match["number"]
        if number not in plural or wanted[number] != found[number]:
            return match[0]
        form = SIGNS_OF[base][plural[number]]
        is_first = match.start() <= first
        return f"{form[:1].upper() + form[1:] if is_first else form} {number}"

    return _number_sign(base).sub(own, translation)


def _word(match: re.Match[str], language: str, is_first: bool) -> str:
    abbreviation = (match[1] or "nº").lower()
    if (match.start() or not is_first) and abbreviation in WITHIN_SENTENCES:
        return f"{WITHIN_SENTENCES[abbreviation]} "
    name = WORDS[language][abbreviation]
    return f"{name[:1].upper() + name[1:] if match[0][:1].isupper() else name} "


def _week(match: re.Match[str], names: Mapping[str, str]) -> str:
    days = [day for day in match.groups() if day]
    first, last = (names[day.capitalize()].lower() for day in days)
    return f"{first} a {last}"


def _decades(match: re.Match[str]) -> str:
    second = f" {'e' if match[3] in '-–/' else match[3]} 19{match[4]}" if match[4] else ""
    return f"{match[1]} 19{match[2]}{second}"


def _day(match: re.Match[str], language: str) -> str:
    to, names = DAYS[language]
    first, last = (names.get(day, day) if day else "" for day in match.group("first", "last"))
    return f"{first} {to} {last}" if last else first
