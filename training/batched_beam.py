"""Beam search over a batch in torch: the same hypotheses as `training.decoding.beam_one`, faster.

Shapes: B batch, S source length, V vocabulary, W beam.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.decoding import Hypothesis, next_logp, output_limit, ranking
from training.model import BOS, EOS, PAD, Transformer


@dataclass
class _Row:
    """The search of one source: prefixes that go on, and what has ended."""

    index: int
    limit: int
    alive: list[list[int]]
    done: list[tuple[float, Hypothesis]] = field(default_factory=list)

    def advance(
        self, step: int, candidates: list[tuple[float, int, int]], width: int, penalty: float
    ) -> list[tuple[int, int, float]]:
        """Take the 2·W best (value, parent, token), best first; → (parent, token, value) of the
        prefixes that go on, none where the search is over."""
        chosen: list[tuple[int, int, float]] = []
        for rank, (value, parent, token) in enumerate(candidates):
            if token == EOS or step == self.limit:
                if rank < width:
                    tail = [] if token == EOS else [token]
                    hypothesis = Hypothesis(self.alive[parent] + tail, value)
                    self.done.append((ranking(value, step, penalty), hypothesis))
            elif len(chosen) < width:
                chosen.append((parent, token, value))
        if len(self.done) >= width or len(chosen) < width:
            return []
        self.alive = [[*self.alive[parent], token] for parent, token, _ in chosen]
        return chosen


@torch.inference_mode()
def beam_batch(
    model: Transformer, src: Tensor, beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Source ids [B, S], EOS last, PAD right → up to W hypotheses a row, best first.

    Sources whose search is over leave the batch.
    """
    width, device = beam_size, src.device
    memory, bias = model.encode(src)
    cache = model.new_cache(None if bias is None else bias.repeat_interleave(width, 0))
    memory = memory.repeat_interleave(width, 0)
    limits = [output_limit(n, model.max_length) for n in (src != PAD).sum(1).tolist()]
    rows = [_Row(i, limit, [[] for _ in range(width)]) for i, limit in enumerate(limits)]
    going, step = rows, 0
    scores = torch.full((len(rows), width), float("-inf"), device=device)
    scores[:, 0] = 0.0
    last = torch.full((len(rows) * width, 1), BOS, device=device)
    while going:
        step += 1
        logp = next_logp(model, last, memory, cache.memory_bias, cache)
        vocab_size = logp.shape[1]
        total = (scores.view(-1, 1) + logp).view(len(going), -1)
        values, flat = total.topk(min(2 * width, total.shape[1]))
        found = zip(going, values.tolist(), flat.tolist(), strict=True)
        kept: list[tuple[int, _Row, list[tuple[int, int, float]]]] = []
        for place, (row, some_values, some_flat) in enumerate(found):
            candidates = [
                (value, index // vocab_size, index % vocab_size)
                for value, index in zip(some_values, some_flat, strict=True)
            ]
            if chosen := row.advance(step, candidates, width, length_penalty):
                kept.append((place, row, chosen))
        if not kept:
            break
        parents = [place * width + parent for place, _, some in kept for parent, _, _ in some]
        index = torch.tensor(parents, device=device)
        cache.select(index)
        if len(kept) < len(going):
            memory = memory.index_select(0, index)
        scores = torch.tensor([[v for _, _, v in some] for _, _, some in kept], device=device)
        last = torch.tensor([[t] for _, _, some in kept for _, t, _ in some], device=device)
        going = [row for _, row, _ in kept]
    return [_best(row, width) for row in rows]


def _best(row: _Row, width: int) -> list[Hypothesis]:
    row.done.sort(key=lambda item: -item[0])
    return [hypothesis for _, hypothesis in row.done[:width]]


def beam_corpus(
    model: Transformer, rows: list[list[int]], beam_size: int, batch_rows: int = 64
) -> list[Hypothesis]:
    """The best hypothesis of many sources (ids, EOS last), batched by length, in order."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: dict[int, Hypothesis] = {}
    device = model.embedding.weight.device
    for start in range(0, len(order), batch_rows):
        group = order[start : start + batch_rows]
        src = torch.full((len(group), len(rows[group[-1]])), PAD, dtype=torch.long)
        for position, index in enumerate(group):
            src[position, : len(rows[index])] = torch.tensor(rows[index])
        for index, hypotheses in zip(
            group, beam_batch(model, src.to(device), beam_size), strict=True
        ):
            found[index] = hypotheses[0]
    return [found[index] for index in range(len(rows))]
