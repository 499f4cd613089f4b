"""The teacher's n-best translations as targets: one of each row is drawn for every epoch.

A teacher has many good translations of a sentence, and a student of the best one learns a single
mode. Kim & Rush 2016, section 3.2, name the n-best list as the better approximation of the
sequence-level loss; here each of it is seen as often as the teacher finds it likely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from training.data.batching import RaggedColumn, ragged, whole


class NBestColumn:
    """The n-best lists of a label store, with their scores (nats, EOS counted).

    Raises ValueError where a row has no translation, or not as many scores.
    """

    def __init__(self, nbest: Sequence[pa.ChunkedArray], scores: Sequence[pa.ChunkedArray]) -> None:
        lists = [whole(column) for column in nbest]
        self.translations = RaggedColumn([column.values for column in lists])
        counts = np.concatenate([np.diff(column.offsets.to_numpy()) for column in lists])
        self._starts = np.concatenate([[0], counts.cumsum()])
        self._scores = np.concatenate([ragged(column)[0] for column in scores]).astype(np.float64)
        if not counts.all() or len(self._scores) != self._starts[-1]:
            raise ValueError("every row needs a translation, and each translation a score")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """For each row the number of one of its translations among `translations`, [rows].

        Drawn by the probabilities that the teacher gave them, over their sum; the same for the same
        seed and epoch. (Gumbel's trick: the largest of log p + noise.)
        """
        noise = np.random.default_rng([seed, epoch, 1]).gumbel(size=len(self._scores))
        keys = self._scores + noise
        best = np.maximum.reduceat(keys, self._starts[:-1])
        counts = np.diff(self._starts)
        chosen = np.flatnonzero(keys == np.repeat(best, counts))
        if len(chosen) != len(self):
            # Equal keys, which doubles have next to never: the first of a row.
            rows = np.repeat(np.arange(len(self)), counts)[chosen]
            chosen = chosen[np.unique(rows, return_index=True)[1]]
        return chosen
