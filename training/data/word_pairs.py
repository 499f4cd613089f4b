"""Pairs of single words out of translated sentences, for a student to learn words that stand alone.

Corpora of sentences have few lines of one word, and a model that has seen none babbles when
somebody types "dog". Two words are a pair where each is the other's most probable translation by
IBM Model 1 (Brown et al. 1993), learnt in both directions: the competitive linking of Melamed 2000,
"Models of Translational Equivalence among Words", with one link a word.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data.files import CorpusError, check_output, read_lines, write_lines
from training.data.lexical_table import LexicalTable, Sentence, lexical_table

Pair = tuple[str, str]

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
ITERATIONS = 6
SENTENCES = 400_000
"""The first sentences, which are read; they take some 10 KB each while the table is learnt."""
LEAST_COUNT = 4
CANDIDATES = 8
"""Translations of a word that are looked at in the other direction, the most probable ones."""
EACH_WAY = 0.3
"""Probability that a pair needs in either direction …"""
TOGETHER = 0.18
"""… and the product that it needs of both."""


class WordPair(NamedTuple):
    """Two words that translate each other, and how often the first one stands in the text."""

    src: str
    trg: str
    frequency: int


def word_pairs(pairs: Sequence[Pair], least_count: int = LEAST_COUNT) -> list[WordPair]:
    """The pairs of words in translated sentences, the most frequent first.

    A word is written as it mostly is behind the first word of a sentence: German nouns keep their
    capital, and a verb that began a sentence does not. Left out are words that come less often than
    `least_count`, those of one letter, abbreviations in capitals, and those that stay the same.
    """
    src = _Side([WORD.findall(line) for line, _ in pairs])
    trg = _Side([WORD.findall(line) for _, line in pairs])
    sentences = [(s, t) for s, t in zip(src.ids, trg.ids, strict=True) if len(s) and len(t)]
    if not sentences:
        return []
    there = _table(sentences, src, trg)
    back = _table([(t, s) for s, t in sentences], src, trg)
    back_of = {
        (int(s), int(t)): p for t, s, p in zip(back.src, back.trg, back.probability, strict=True)
    }
    found = []
    starts = np.searchsorted(there.src, np.arange(len(src.words) + 1))
    for word, (start, end) in enumerate(pairwise(starts)):
        if src.counts[word] < least_count or start == end:
            continue
        rows = slice(start, min(end, start + CANDIDATES))
        both = [
            (p * back_of.get((word, int(other)), 0.0), p, int(other))
            for other, p in zip(there.trg[rows], there.probability[rows], strict=True)
        ]
        product, probability, other = max(both)
        least = min(probability, product / probability)
        if product >= TOGETHER and least >= EACH_WAY and trg.counts[other] >= least_count:
            found.append(WordPair(src.words[word], trg.words[other], int(src.counts[word])))
    kept = [pair for pair in found if _is_worth_learning(pair)]
    return sorted(kept, key=lambda pair: (-pair.frequency, pair))


def _is_worth_learning(pair: WordPair) -> bool:
    sides = (pair.src, pair.trg)
    return pair.src != pair.trg and all(len(side) > 1 and not side.isupper() for side in sides)


def _table(sentences: Iterable[Sentence], *sides: _Side) -> LexicalTable:
    return lexical_table(sentences, max(len(side.words) for side in sides), ITERATIONS, SENTENCES)


class _Side:
    """The words of one language's sentences as ids, each in its usual form."""

    def __init__(self, sentences: Sequence[Sequence[str]]) -> None:
        forms: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            for word in sentence[1:]:
                forms[word.lower()][word] += 1
        usual = {key: found.most_common(1)[0][0] for key, found in forms.items()}
        numbers: dict[str, int] = {}
        self.ids = [
            np.array(
                [
                    numbers.setdefault(usual.get(word.lower(), word), len(numbers))
                    for word in sentence
                ],
                dtype=np.int64,
            )
            for sentence in sentences
        ]
        self.words = list(numbers)
        every = np.concatenate([np.zeros(0, np.int64), *self.ids])
        self.counts = np.bincount(every, minlength=len(numbers))


def write_word_pairs(
    src: Sequence[Path], trg: Sequence[Path], out: Path, least_count: int = LEAST_COUNT
) -> int:
    """Write the word pairs of translated files to `out` as TSV, packed where its name ends in .gz;
    those in small letters with a capital, too, as a label has them. Gives the number of lines.

    Nothing is written where it fails. Raises CorpusError where a file cannot be read, two files
    that belong together differ in length, or the text has no pair of words.
    """
    check_output(out, (*src, *trg))
    sentences: list[Pair] = []
    for one, other in zip(src, trg, strict=True):
        left, right = list(read_lines(one)), list(read_lines(other))
        if len(left) != len(right):
            raise CorpusError(
                f"{one} has {len(left):,} lines and {other} {len(right):,}: line n of one must "
                "translate line n of the other"
            )
        sentences += [(s, t) for s, t in zip(left, right, strict=True) if s and t]
    lines = list[str]()
    for pair in word_pairs(sentences, least_count):
        lines.append(f"{pair.src}\t{pair.trg}")
        if pair.src.islower():
            lines.append(f"{_capital(pair.src)}\t{_capital(pair.trg)}")
    if not lines:
        raise CorpusError(
            "no two words of this text translate each other reliably: give more text. Words must "
            "be divided by spaces"
        )
    write_lines(out, lines)
    return len(lines)


def _capital(word: str) -> str:
    return word[0].upper() + word[1:]
