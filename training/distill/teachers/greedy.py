"""Translations and the distributions along them, in one pass of greedy decoding.

Each step of greedy decoding has the scores that a teacher-forced pass along the translation would
compute once more, so their best are kept there.

Shapes: B batch, S source length, T steps, N positions of all rows one after another, K top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import torch
from torch import Tensor

from training.distill.teachers.base import NO_LOGP, Distributions, GreedyLabel
from training.model.decoding import NEVER
from training.model.shortlisted import Words
from training.model.transformer import BOS, EOS, Transformer


@torch.inference_mode()
def greedy_labels(
    model: Transformer, src: Tensor, limits: Sequence[int], words: Words, top_k: int
) -> list[GreedyLabel]:
    """Source ids [B, S], EOS last, PAD right → a translation a row, EOS last, with its top-k at
    every position.

    Text and log-probability are those of `training.model.decoding.greedy` with these most tokens
    (`limits` [B], EOS counted) and words. The distributions are over all of `words`; with `top_k` 0
    they are empty. A translation that is cut has them at the place of its EOS too.
    """
    memory, bias = model.encode(src)
    cache = model.new_cache(bias)
    device = memory.device
    rows = torch.arange(len(src), device=device)
    longest = torch.tensor(limits, device=device)
    last = torch.full((len(src), 1), BOS, device=device)
    kept = _Kept(torch.zeros(len(src), device=device))
    for step in count(1):
        states = model.decode(last, memory, cache.memory_bias, cache)[:, 0]
        cut = longest[rows] < step
        choice = kept.add(rows, states, words, top_k, cut)
        going = (choice != EOS).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(rows):
            # The cache holds the memory's keys and values, so the memory itself may stay.
            cache.select(going)
            words, choice, rows = words.select(going), choice[going], rows[going]
        last = choice[:, None]
    return kept.labels()


@dataclass
class _Kept:
    """What was kept of every step, for the rows that were decoded then."""

    scores: Tensor
    """Log-probabilities of the rows' translations, [B]."""
    rows: list[Tensor] = field(default_factory=list)
    choices: list[Tensor] = field(default_factory=list)
    ids: list[Tensor] = field(default_factory=list)
    logp: list[Tensor] = field(default_factory=list)

    def add(self, rows: Tensor, states: Tensor, words: Words, top_k: int, cut: Tensor) -> Tensor:
        """Score a step's words and keep the best → the chosen tokens; EOS for rows that are cut."""
        logits = words.logits(states)
        total = logits.logsumexp(1, keepdim=True)
        # So many that a word that may be written is among them.
        best, places = logits.topk(min(max(top_k, 1 + len(NEVER)), logits.shape[1]), dim=1)
        ids, logp = words.ids(places), best - total
        first = (ids >= EOS).int().argmax(1, keepdim=True)
        chosen = logp.gather(1, first)[:, 0]
        if (never := words.never(logits)) is not None:
            chosen = chosen - torch.log1p(-(never - total).exp().sum(1))
        self.scores.index_add_(0, rows, chosen.masked_fill(cut, 0.0))
        choice = ids.gather(1, first)[:, 0].masked_fill(cut, EOS)
        self.rows.append(rows)
        self.choices.append(choice)
        self.ids.append(ids[:, :top_k])
        self.logp.append(logp[:, :top_k])
        return choice

    def labels(self) -> list[GreedyLabel]:
        """All that was kept, row by row."""
        rows = torch.cat(self.rows)
        order = rows.argsort(stable=True)
        cuts = rows.bincount().cumsum(0)[:-1].tolist()
        logp = torch.cat(self.logp)[order].clamp(min=NO_LOGP)
        tail = (1 - logp.exp().sum(1)).clamp(min=0)
        columns = [torch.cat(self.choices)[order], torch.cat(self.ids)[order], logp, tail]
        choices, *parts = (np.split(column.cpu().numpy(), cuts) for column in columns)
        return [
            ([(written.tolist(), score)], Distributions(*distribution))
            for written, score, *distribution in zip(
                choices, self.scores.tolist(), *parts, strict=True
            )
        ]
