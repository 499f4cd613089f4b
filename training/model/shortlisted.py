"""Output layers over the whole vocabulary, or over the few words that each sentence may become.

The output layer is most of a small model's work. A lexical shortlist names some hundreds of words
a sentence; one product computes the union of a batch's words, and each row then looks at its own
ones only, so that a sentence's result does not depend on the others of its batch.

Shapes: B batch rows, D width, V vocabulary, C most words of a row, U union of a batch's words, K
best ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.model.decoding import IMPOSSIBLE, NEVER, TransformerSteps
from training.model.transformer import EOS, PAD, Transformer

GROUP = 32
"""Rows whose words are scored together."""
ABSENT = -1e9
"""Score of a place in which a row has no word."""


class Words(Protocol):
    """Which words are scored for each row of a batch, and by what."""

    def logits(self, states: Tensor) -> Tensor:
        """States [B, D] → scores [B, C]."""
        ...

    def ids(self, places: Tensor) -> Tensor:
        """Places among each row's scores [B, K] → token ids [B, K]."""
        ...

    def select(self, rows: Tensor) -> Words:
        """The words of these rows, in that order; a row may come again."""
        ...

    def never(self, logits: Tensor) -> Tensor | None:
        """Of scores [B, C] those of the tokens that no translation holds; None without any."""
        ...


class AllWords:
    """The whole vocabulary for every row: C = V, and a place is an id."""

    def __init__(self, model: Transformer) -> None:
        self._model = model

    def logits(self, states: Tensor) -> Tensor:
        """States [B, D] → scores [B, V]."""
        return self._model.logits(states)

    def ids(self, places: Tensor) -> Tensor:
        """The same numbers."""
        return places

    def select(self, rows: Tensor) -> AllWords:
        """Itself: all rows have the same words."""
        return self

    def never(self, logits: Tensor) -> Tensor | None:
        """Scores [B, 3] of `NEVER`, which have the first ids."""
        return logits[:, : len(NEVER)]


class CandidateWords:
    """Words of each row alone, without those of `NEVER`; EOS is always among them.

    The words of `GROUP` rows are scored by one product: the union of more rows' words grows faster
    than products of more rows become quicker.
    """

    def __init__(self, model: Transformer, candidates: Sequence[np.ndarray]) -> None:
        words = [ids[ids >= EOS] for ids in candidates]
        width = max(map(len, words))
        ids = np.full((len(words), width), PAD, dtype=np.int64)
        columns = np.zeros((len(words), width), dtype=np.int64)
        device = model.embedding.weight.device
        self._layers: list[OutputLayer] = []
        for start in range(0, len(words), GROUP):
            rows = range(start, min(start + GROUP, len(words)))
            listed = np.zeros(model.vocab_size, dtype=np.bool_)
            for row in rows:
                listed[words[row]] = True
            union = np.flatnonzero(listed)
            places = listed.cumsum() - 1
            # Where a row has fewer words than another, it looks at a last column that is no word.
            columns[start : rows.stop] = len(union)
            for row in rows:
                ids[row, : len(words[row])] = words[row]
                columns[row, : len(words[row])] = places[words[row]]
            self._layers.append(_layer(model, torch.from_numpy(union).to(device)))
        self._ids = torch.from_numpy(ids).to(device)
        self._columns = torch.from_numpy(columns).to(device)
        self._groups = torch.arange(len(words)) // GROUP

    def logits(self, states: Tensor) -> Tensor:
        """States [B, D] → scores [B, C], `ABSENT` where a row has no more words."""
        sizes = self._groups.bincount(minlength=len(self._layers)).tolist()
        parts = zip(self._layers, states.split(sizes), self._columns.split(sizes), strict=True)
        return torch.cat(
            [
                F.linear(rows, *layer).gather(1, columns)
                for layer, rows, columns in parts
                if len(rows)
            ]
        )

    def ids(self, places: Tensor) -> Tensor:
        """Places [B, K] → token ids [B, K], PAD where a row has no more words."""
        return self._ids.gather(1, places)

    def select(self, rows: Tensor) -> CandidateWords:
        """The words of these rows; rows of one source must stay side by side."""
        selected = object.__new__(CandidateWords)
        selected._layers = self._layers
        selected._ids = self._ids.index_select(0, rows)
        selected._columns = self._columns.index_select(0, rows)
        selected._groups = self._groups[rows.cpu()]
        return selected

    def never(self, logits: Tensor) -> Tensor | None:
        """None: such tokens are no candidates."""
        return None

    def spread(self, values: Tensor, vocab_size: int, absent: float) -> Tensor:
        """Values [B, C] of the rows' words → [B, V], `absent` elsewhere."""
        whole = values.new_full((len(values), vocab_size), absent)
        # A place without a word writes to PAD, which is no candidate.
        whole.scatter_(1, self._ids, values)
        whole[:, list(NEVER)] = absent
        return whole


OutputLayer = tuple[Tensor, Tensor]
"""Weights [U + 1, D] and biases [U + 1] of some words, and of none at their end."""


def _layer(model: Transformer, words: Tensor) -> OutputLayer:
    """The output layer of some words, and of none at its end."""
    weight, bias = model.embedding.weight.detach(), model.output_bias.detach()
    return (
        torch.cat([weight.index_select(0, words), weight.new_zeros(1, weight.shape[1])]),
        torch.cat([bias.index_select(0, words), bias.new_full((1,), ABSENT)]),
    )


class CandidateSteps(TransformerSteps):
    """Cached decoding of sources [B, S], each `times` times in turn, over their own words."""

    def __init__(self, model: Transformer, src: Tensor, times: int, words: CandidateWords) -> None:
        super().__init__(model, src, times)
        self._words = words.select(
            torch.arange(len(src), device=src.device).repeat_interleave(times)
        )

    def _next_logp(self, last: Tensor) -> Tensor:
        """Log-probabilities [B, C] of each row's words."""
        states = self._model.decode(
            last[:, None].to(self._memory.device),
            self._memory,
            self._cache.memory_bias,
            self._cache,
        )
        return self._words.logits(states[:, -1]).log_softmax(1)

    def next_log_probs(self, last: Tensor) -> Tensor:
        """Log-probabilities [B, V] of the next tokens, none for those that are no candidates."""
        return self._words.spread(self._next_logp(last), self._model.vocab_size, IMPOSSIBLE)

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Probabilities [B, V] of the next tokens, 0 for those that are no candidates."""
        return self._words.spread(self._next_logp(last).exp(), self._model.vocab_size, 0.0)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in that order."""
        super().select(rows)
        self._words = self._words.select(rows.to(self._memory.device))
