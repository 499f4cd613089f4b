"""A lexical table: which target pieces a source piece has been translated to, and how often. No
torch.

It is IBM Model 1 (Brown et al. 1993) without a null word, learnt from translated sentences.

Shapes: P pairs of a source and a target piece that share a sentence, V target vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from export.runtime.manifest import BundleError

ITERATIONS = 4
SENTENCES = 200_000
"""The table is learnt from so many sentences at most, the first ones."""
LEAST = 1e-3
"""Translations less probable than this are left out."""

Sentence = tuple[NDArray[np.integer], NDArray[np.integer]]


@dataclass(frozen=True)
class LexicalTable:
    """t(trg | src) for the pairs that have been seen: three arrays [P], sorted by source piece and
    then by falling probability; `frequency` [V] counts the target pieces."""

    src: NDArray[np.int64]
    trg: NDArray[np.int64]
    probability: NDArray[np.float64]
    frequency: NDArray[np.int64]

    def frequent(self, count: int) -> NDArray[np.int64]:
        """The target pieces that come most often, the most frequent first."""
        return np.argsort(-self.frequency, kind="stable")[:count]

    def likely(self, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Each source piece that was seen, with its `count` most probable translations."""
        starts = np.flatnonzero(np.diff(self.src, prepend=-1))
        for start, end in zip(starts, [*starts[1:], len(self.src)], strict=True):
            chosen = slice(start, min(end, start + count))
            words = self.trg[chosen][self.probability[chosen] >= LEAST]
            if len(words):
                yield int(self.src[start]), words


def lexical_table(
    sentences: Iterable[Sentence], vocab_size: int, iterations: int = ITERATIONS
) -> LexicalTable:
    """Learn the table from (source ids, target ids) without special tokens.

    Raises BundleError where there is no sentence.
    """
    pairs, groups, frequency = _cooccurrences(sentences, vocab_size)
    kinds, kind_of = np.unique(pairs, return_inverse=True)
    src = kinds // vocab_size
    probability = np.full(len(kinds), 1.0)
    for _ in range(iterations):
        weight = probability[kind_of]
        share = weight / np.bincount(groups, weight)[groups]
        counts = np.bincount(kind_of, share, minlength=len(kinds))
        probability = counts / np.bincount(src, counts)[src]
    order = np.lexsort((-probability, src))
    return LexicalTable(src[order], kinds[order] % vocab_size, probability[order], frequency)


def _cooccurrences(
    sentences: Iterable[Sentence], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every source with every target piece of its sentence, as src · V + trg; which target
    position each belongs to; how often each target piece comes."""
    pairs, groups, targets, positions = [], [], [], 0
    for src, trg in islice(sentences, SENTENCES):
        src = np.unique(np.asarray(src, dtype=np.int64))
        trg = np.asarray(trg, dtype=np.int64)
        pairs.append((src[:, None] * vocab_size + trg[None, :]).ravel())
        groups.append(np.tile(np.arange(positions, positions + len(trg)), len(src)))
        targets.append(trg)
        positions += len(trg)
    if not positions:
        raise BundleError("a shortlist needs translated sentences: run the `label` stage first")
    frequency = np.bincount(np.concatenate(targets), minlength=vocab_size)
    return np.concatenate(pairs), np.concatenate(groups), frequency
