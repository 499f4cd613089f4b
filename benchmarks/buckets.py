"""Thirds of a test set, by source length and by how rare its source words are.

Shapes: S sentences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

BUCKETS = 3
NAMES = {"length": ("short", "middle", "long"), "rarity": ("common", "middle", "rare")}


def thirds(values: np.ndarray) -> np.ndarray:
    """Which third each value [S] is in, 0 the least; as many in each, ties by position."""
    ranks = values.argsort(kind="stable").argsort(kind="stable")
    found: np.ndarray = ranks * BUCKETS // max(len(values), 1)
    return found


def buckets(rows: Sequence[Sequence[int]], rarity: np.ndarray) -> np.ndarray:
    """Token ids of sentences and the rarity of every token → thirds by length, and by the mean
    rarity of a sentence's tokens: [S, 2]."""
    lengths = np.array([len(row) for row in rows], dtype=float)
    rare = np.array([rarity[np.asarray(row)].mean() if len(row) else 0.0 for row in rows])
    return np.stack([thirds(lengths), thirds(rare)], axis=1)


def rarity_of_counts(counts: np.ndarray) -> np.ndarray:
    """Rarity of every token (nats) from how often a training text has it: [V]."""
    found: np.ndarray = -np.log(np.maximum(counts, 1) / max(counts.sum(), 1))
    return found


def source_counts(shards: Sequence[Path], vocab_size: int) -> np.ndarray:
    """How often the source side of token shards has every token: [V]."""
    from training.columns import map_table

    counts = np.zeros(vocab_size, dtype=np.int64)
    for shard in shards:
        for chunk in map_table(shard)["src"].chunks:
            counts += np.bincount(chunk.flatten().to_numpy(), minlength=vocab_size)
    return counts
