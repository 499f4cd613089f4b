"""English words that are written with accents (`café`, `naïve`), sent without where the model's
vocabulary lacks those: it knows `cafe` and `naive`. A copy in the translation gets them back.

Other words with such letters may be names or quotations, and are protected
(`service/text/coverage.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

COMMON = ("café", "élite", "naïve", "naïvely")
"""Those that any model of English knows."""
OTHERS = (
    "attaché", "blasé", "brûlée", "château", "cliché", "consommé", "coöperate", "coöperation",
    "coördinate", "crème", "crêpe", "décor", "décolleté", "déjà", "dénouement", "début",
    "débutante", "éclair", "élan", "émigré", "entrée", "exposé", "façade", "fête", "fiancé",
    "fiancée", "flambé", "frappé", "garçon", "gâteau", "ingénue", "jalapeño", "lamé", "macramé",
    "maître", "matinée", "mêlée", "naïf", "naïveté", "négligée", "papier-mâché", "passé", "pâté",
    "piñata", "piqué", "première", "protégé", "protégée", "purée", "résumé", "risqué", "rosé",
    "roué", "sauté", "séance", "señor", "señora", "soirée", "soufflé", "soupçon", "tête-à-tête",
    "touché", "über", "vis-à-vis", "voilà", "zoölogy",
)  # fmt: skip
PLAIN = {
    ord(letter): unicodedata.normalize("NFD", letter)[0]
    for letter in "".join((*COMMON, *OTHERS))
    if not letter.isascii()
}


def _any_of(words: Sequence[str]) -> re.Pattern[str]:
    """One of them in small letters, since one with a capital may be a name."""
    listed = "|".join(sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{listed})(?:e?s|d)?(?![\w-])")


COMMON_WORD, WORD = _any_of(COMMON), _any_of((*COMMON, *OTHERS))


@dataclass(frozen=True)
class Loanwords:
    """The letters with accents that a vocabulary lacks, and the words that are sent without."""

    lacking: frozenset[str]
    word: re.Pattern[str]

    @classmethod
    def readable_by(
        cls, reads: Callable[[str], bool], count_tokens: Callable[[str], int]
    ) -> Loanwords:
        """Those of a vocabulary; `reads` says whether it has all of a text. One that has `cafe`
        whole is of a model that knows more such words."""
        lacking = frozenset(chr(code) for code in PLAIN if not reads(chr(code) * 2))
        return cls(lacking, WORD if count_tokens("cafe") == 1 else COMMON_WORD)

    def without_accents(self, text: str) -> str:
        """The text, as long as it was, with such words as the model knows them."""
        if text.isascii() or not self.lacking:
            return text
        return self.word.sub(lambda match: self._plain(match[0]), text)

    def restore(self, source: str, translation: str) -> str:
        """The translation with the accents of words that it copies from its source."""
        if source.isascii() or not self.lacking:
            return translation
        for word in dict.fromkeys(self.word.findall(source)):
            if (plain := self._plain(word)) != word:
                pattern = rf"(?<![\w-]){re.escape(plain)}(?![\w-])"
                translation = re.sub(pattern, word, translation)
        return translation

    def _plain(self, word: str) -> str:
        return word.translate(PLAIN) if self.lacking.intersection(word) else word
