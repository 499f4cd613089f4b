"""Abbreviations before numbers (`No. 5`, `p. 12`), spelled out for the model: students read them as
other words ("No. 5" → "Nein 5") or copy them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "no": "number", "nos": "numbers", "p": "page", "pp": "pages", "pg": "page",
        "pgs": "pages", "fig": "Figure", "figs": "Figures", "ch": "Chapter", "chap": "Chapter",
        "chs": "Chapters", "vol": "Volume", "vols": "Volumes", "art": "Article",
        "arts": "Articles", "sec": "Section", "sect": "Section", "secs": "Sections",
        "par": "Paragraph", "para": "Paragraph", "paras": "Paragraphs", "eq": "Equation",
        "eqs": "Equations", "app": "Appendix", "tab": "Table", "rm": "Room", "bk": "Book",
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
NUMBER = r"(?=\d|(?:[IVXLC]{2,6}|[VX])\b)"
"""What must follow them: digits or a Roman numeral, which `I` is seldom."""
WITHIN_SENTENCES = {"no": "No."}
"""Abbreviations that models know, but for the first word of a sentence."""
ORDINAL_SIGN = r"|n\.?[ºo°](?=\s?\d)"


@cache
def _pattern(language: str) -> re.Pattern[str] | None:
    words = WORDS.get(language)
    if words is None:
        return None
    names = "|".join(sorted(words, key=len, reverse=True))
    sign = ORDINAL_SIGN if language == "pt" else ""
    return re.compile(rf"(?<![\w.-])(?:({names})\.(?=\s?{NUMBER}){sign})\s?", re.IGNORECASE)


def spell_out(text: str, language: str) -> str:
    """A text of a language (`pt`, `pt-BR`) with words for its abbreviations before numbers."""
    base = language.partition("-")[0]
    pattern = _pattern(base)
    if pattern is None or ("." not in text and "º" not in text):
        return text

    def word(match: re.Match[str]) -> str:
        abbreviation = (match[1] or "nº").lower()
        if match.start() and abbreviation in WITHIN_SENTENCES:
            return f"{WITHIN_SENTENCES[abbreviation]} "
        name = WORDS[base][abbreviation]
        return f"{name[:1].upper() + name[1:] if match[0][:1].isupper() else name} "

    return pattern.sub(word, text)
