"""A lexical shortlist: the target pieces that a source piece has been translated to; no torch.

With it CTranslate2 computes the output layer for those pieces alone. The table is IBM Model 1
(Brown et al. 1993) without a null word, learnt from the teacher's own translations. What a batch
may write is the union over its sentences, so a sentence's output depends on its neighbours: it is
off unless a recipe asks for it.

Shapes: P pairs of a source and a target piece that share a sentence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError

VMAP_FILE = "vmap.txt"
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


def lexical_table(
    sentences: Iterable[Sentence], vocab_size: int, iterations: int = ITERATIONS
) -> LexicalTable:
    """Learn the table from (source ids, target ids) without special tokens.

    Raises BundleError where there is no sentence.
    """
    pairs, groups, frequency = _together(sentences, vocab_size)
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


def _together(
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


def write_vmap(
    path: Path, table: LexicalTable, pieces: Sequence[str], candidates: int, always: int
) -> None:
    """Write CTranslate2's vocabulary map: for each source piece its `candidates` most probable
    translations, and the `always` most frequent target pieces whatever the source is."""
    frequent = np.argsort(-table.frequency, kind="stable")[:always]
    lines = ["\t" + " ".join(pieces[piece] for piece in frequent)]
    starts = np.flatnonzero(np.diff(table.src, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(table.src)], strict=True):
        end = min(end, start + candidates)
        kept = table.trg[start:end][table.probability[start:end] >= LEAST]
        if len(kept):
            words = " ".join(pieces[piece] for piece in kept)
            lines.append(f"{pieces[table.src[start]]}\t{words}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
