"""Which of several texts is in a language, by its code."""

from __future__ import annotations

from collections.abc import Mapping


def code_of(language: str) -> str:
    """A language code in one spelling: `pt_BR` is `pt-br`."""
    return language.lower().replace("_", "-")


def text_in(texts: Mapping[str, str], language: str, other: str) -> str | None:
    """The text in a language, of texts by `code_of`: by its very code, else by its primary subtag.

    Where both languages of a corpus share the primary subtag (`zh-Hans`, `zh-Hant`), only the very
    code counts.
    """
    language, other = code_of(language), code_of(other)
    primary = language.partition("-")[0]
    if language in texts or primary == other.partition("-")[0]:
        return texts.get(language)
    return next((text for code, text in texts.items() if code.split("-")[0] == primary), None)
