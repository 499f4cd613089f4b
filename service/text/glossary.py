"""Glossaries: terms and the translations that they must get."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MAX_TERMS = 1000
MAX_TERM_CHARS = 200


class GlossaryError(ValueError):
    """A glossary that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Glossary:
    """Source terms → target terms.

    Terms match whole words in any case, the longest first; where terms overlap, the first one
    counts. A term in capitals, or with a capital letter inside, matches in that spelling only; so
    does one that another term, which is there before it, equals but for capitals.
    Where the source capitalises a term and the glossary does not, the output is capitalised, too.
    """

    terms: Mapping[str, str] = field(default_factory=dict)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _exact: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _folded: Mapping[str, tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.terms) > MAX_TERMS:
            raise GlossaryError(f"{len(self.terms)} terms, at most {MAX_TERMS} are taken")
        exact: dict[str, str] = {}
        folded: dict[str, tuple[str, str]] = {}
        for source, target in self.terms.items():
            source, target = (_clean(term) for term in (source, target))
            first, first_target = folded.get(source.casefold(), (source, target))
            if _is_exact(source) or first != source:
                if exact.setdefault(source, target) != target:
                    raise GlossaryError(f"the term {source!r} is there twice: leave one out")
            elif first_target != target:
                raise GlossaryError(f"the term {source!r} is there twice: leave one out")
            else:
                folded[source.casefold()] = (source, target)
        set_field = object.__setattr__
        set_field(self, "_exact", exact)
        set_field(self, "_folded", folded)
        set_field(self, "_pattern", _pattern([*exact, *(source for source, _ in folded.values())]))

    def find(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Where terms start and end in a text, and what they become."""
        if self._pattern is None:
            return
        place = 0
        while match := self._pattern.search(text, place):
            target = self._target(match.group())
            if target is None:
                place = match.start() + 1
            else:
                yield match.start(), match.end(), target
                place = match.end()

    def _target(self, found: str) -> str | None:
        words = " ".join(found.split())
        if words in self._exact:
            return self._exact[words]
        source, target = self._folded.get(words.casefold(), ("", None))
        if target is None or words == source:
            return target
        if words.isupper() and len(words) > 1:
            return target.upper()
        if words[0].isupper() and not source[0].isupper():
            return target[0].upper() + target[1:]
        return target


def _clean(term: str) -> str:
    words = " ".join(unicodedata.normalize("NFC", term).split())
    if not words:
        raise GlossaryError("a term of the glossary is empty: leave it out")
    if len(words) > MAX_TERM_CHARS:
        raise GlossaryError(f"a term is longer than {MAX_TERM_CHARS} characters: {words[:40]}…")
    return words


def _is_exact(term: str) -> bool:
    return any(map(str.isupper, term[1:])) and " " not in term


def _pattern(terms: list[str]) -> re.Pattern[str] | None:
    if not terms:
        return None
    by_length = sorted(terms, key=len, reverse=True)
    choices = "|".join(r"\s+".join(map(re.escape, term.split())) for term in by_length)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)


NO_GLOSSARY = Glossary()
