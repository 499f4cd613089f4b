"""Capital letters that a model's vocabulary lacks though it has the small ones (`Ú` of `ú`).

A word all in capitals is sent in small letters, and so is the first letter of a sentence; the
translation gets its capitals back. A capital elsewhere may be a name's, and is left to coverage.
Several words all in capitals are sent as a sentence is written, since models have seen few such,
and so is one that the vocabulary has whole in small letters only (`EXIT`, not `NASA`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from service.text.inline import MARK

CASED = [chr(code) for code in chain(range(0x530), range(0x1E00, 0x2000)) if chr(code).isupper()]
"""Capital letters of Latin, Greek and Cyrillic."""
FIRST = re.compile(rf"[\w{MARK}]")


@dataclass(frozen=True)
class Capitals:
    """The capital letters that a vocabulary has as small ones only."""

    letters: frozenset[str]
    count_tokens: Callable[[str], int] | None = None
    """How many tokens a text is, to tell words from abbreviations."""
    _word: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        letters = "".join(sorted(self.letters))
        # From a word's beginning, so that the search takes linear time.
        pattern = rf"\b(?=\w{{0,60}}[{letters}])\w+" if letters else r"(?!)"
        object.__setattr__(self, "_word", re.compile(pattern))

    @classmethod
    def readable_by(
        cls, reads: Callable[[str], bool], count_tokens: Callable[[str], int] | None = None
    ) -> Capitals:
        """Those of a vocabulary; `reads` says whether it has all of a text."""
        letters = frozenset(c for c in CASED if not reads(c * 2) and reads(c.lower() * 2))
        return cls(letters, count_tokens)

    def lowered(self, text: str) -> str:
        """The text with small letters for those. What is in capitals, the text or a word, becomes
        small as a whole."""
        if not self._word.search(text):
            return self._as_written(text)
        return text.lower() if are_capitals(text) else self._word.sub(self._lowered_word, text)

    def _lowered_word(self, match: re.Match[str]) -> str:
        word = match[0]
        if are_capitals(word):
            return word.lower()
        return "".join(letter.lower() if letter in self.letters else letter for letter in word)

    def _as_written(self, text: str) -> str:
        """A text in capitals as a sentence or a word is written; other texts as they are."""
        if not are_capitals(text) or MARK in text:
            return text
        words = WORD.findall(text, 0, 2000)
        if len(words) > 1:
            return as_a_sentence(text)
        return text.replace(words[0], self._as_a_word(words[0])) if words else text

    def _as_a_word(self, word: str) -> str:
        """A word in capitals in the form that is one token; an abbreviation as it is."""
        if self.count_tokens is None:
            return word
        small, as_first, own = map(self.count_tokens, (word.lower(), word.capitalize(), word))
        is_word = small == 1 and as_first <= own and (own > 1 or len(word) > LONGEST_ABBREVIATION)
        return (word.capitalize() if as_first == 1 else word.lower()) if is_word else word

    def restore(self, source: str, translation: str) -> str:
        """The translation with the capitals of a source that was sent in small letters: all of it,
        the first one, and those of words that it copies."""
        if not self._word.search(source):
            return translation if self._as_written(source) == source else translation.upper()
        if are_capitals(source) and MARK not in source:
            return translation.upper()
        translation = self._with_words_in_capitals(source, translation)
        start, place = FIRST.search(source), FIRST.search(translation)
        if start is None or place is None or start[0] not in self.letters:
            return translation
        return translation[: place.start()] + place[0].upper() + translation[place.end() :]

    def _with_words_in_capitals(self, source: str, translation: str) -> str:
        words = {word[0] for word in self._word.finditer(source) if are_capitals(word[0])}
        small = {word.lower(): word for word in words if word.lower() in translation}
        if not small:
            return translation
        pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, small))})(?!\w)"
        return re.sub(pattern, lambda match: small[match[0]], translation)


WORD = re.compile(r"[^\W\d_]{2,}")
LONGEST_ABBREVIATION = 3
"""Letters of an abbreviation that a vocabulary may have in small letters too."""


def as_a_sentence(text: str) -> str:
    """A text in capitals in small letters but for its first."""
    small = text.lower()
    first = WORD.search(small)
    place = first.start() if first else 0
    return small[:place] + small[place : place + 1].upper() + small[place + 1 :]


def are_capitals(text: str) -> bool:
    """Whether a text is in capitals: two letters at least, and no small one."""
    return text.isupper() and sum(map(str.isalpha, text)) > 1
