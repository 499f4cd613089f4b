"""A lexical table: which target words a source word has been translated to, how often. No torch.

The words are whatever the ids stand for: pieces of a tokenizer, or words. It is IBM Model 1 (Brown
et al. 1993) without a null word, learnt from translated sentences.

Shapes: P pairs of a source and a target word that share a sentence, V target vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 4
SENTENCES = 200_000
"""A shortlist's table is learnt from so many sentences at most."""
LEAST = 1e-3
"""Translations less probable than this are left out."""


class NoSentencesError(ValueError):
    """There is nothing to learn a table from."""


Sentence = tuple[NDArray[np.integer], NDArray[np.integer]]


@dataclass(frozen=True)
class LexicalTable:
    """t(trg | src) for the pairs that have been seen: three arrays [P], sorted by source word and
    then by falling probability; `frequency` [V] counts the target words, `sentences` [U] the
    sentences that have each source word, up to the last that was seen."""

    src: NDArray[np.int64]
    trg: NDArray[np.int64]
    probability: NDArray[np.float64]
    frequency: NDArray[np.int64]
    sentences: NDArray[np.int64]

    def frequent(self, count: int) -> NDArray[np.int64]:
        """The target words that come most often, the most frequent first."""
        return np.argsort(-self.frequency, kind="stable")[:count]

    def likely(
        self, count: int | None = None, least: float = LEAST
    ) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each source word that was seen, with its `count` most probable translations; default: all
        of `least` probability."""
        starts = np.flatnonzero(np.diff(self.src, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(self.src)], strict=True):
            probable = int(np.count_nonzero(self.probability[start:end] >= least))
            chosen = probable if count is None else min(probable, count)
            if chosen:
                yield int(self.src[start]), self.trg[start : start + chosen]


def lexical_table(
    sentences: Iterable[Sentence],
    vocab_size: int,
    iterations: int = ITERATIONS,
    limit: int = SENTENCES,
) -> LexicalTable:
    """Learn the table from the first `limit` pairs of (source ids, target ids), without special
    tokens.

    Raises NoSentencesError where there is no sentence.
    """
    pairs, groups, frequency, seen = _cooccurrences(islice(sentences, limit), vocab_size)
    kinds, kind_of = np.unique(pairs, return_inverse=True)
    src = kinds // vocab_size
    probability = np.full(len(kinds), 1.0)
    for _ in range(iterations):
        weight = probability[kind_of]
        share = weight / np.bincount(groups, weight)[groups]
        counts = np.bincount(kind_of, share, minlength=len(kinds))
        probability = counts / np.bincount(src, counts)[src]
    order = np.lexsort((-probability, src))
    return LexicalTable(src[order], kinds[order] % vocab_size, probability[order], frequency, seen)


def _cooccurrences(
    sentences: Iterable[Sentence], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every source with every target word of its sentence, as src · V + trg; which target
    position each belongs to; how often each target word comes; how many sentences have each source
    word."""
    pairs, groups, sources, targets, positions = [], [], [], [], 0
    for src, trg in sentences:
        src = np.unique(np.asarray(src, dtype=np.int64))
        trg = np.asarray(trg, dtype=np.int64)
        pairs.append((src[:, None] * vocab_size + trg[None, :]).ravel())
        groups.append(np.tile(np.arange(positions, positions + len(trg)), len(src)))
        sources.append(src)
        targets.append(trg)
        positions += len(trg)
    if not positions:
        raise NoSentencesError("there is no sentence to learn from")
    frequency = np.bincount(np.concatenate(targets), minlength=vocab_size)
    seen = np.bincount(np.concatenate(sources))
    return np.concatenate(pairs), np.concatenate(groups), frequency, seen
