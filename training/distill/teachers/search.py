"""Beam search over any `Steps`, many sentences at once: `training.decoding.beam_one`, batched.

Shapes: B sentences still searched, W beam, V vocabulary, T tokens so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.decoding import NEVER, Hypothesis, ranking
from training.distill.teachers.base import Steps
from training.model import BOS, EOS

NOTHING = float("-inf")


@dataclass
class _Beams:
    """Unfinished hypotheses: `rows` [B] name the sentences, `ids` [B, W, T], `scores` [B, W]."""

    rows: Tensor
    limits: Tensor
    ids: Tensor
    scores: Tensor
    done: list[list[tuple[float, Hypothesis]]] = field(default_factory=list)
    """Ended hypotheses of every sentence with their rank; higher is better."""

    def keep(self, sentences: Tensor, parents: Tensor, tokens: Tensor, scores: Tensor) -> None:
        """Go on with some sentences [B'], each parent and token [B, W] appended."""
        grown = self.ids.gather(1, parents[:, :, None].expand(-1, -1, self.ids.shape[2]))
        self.ids = torch.cat([grown, tokens[:, :, None]], dim=2)[sentences]
        self.rows, self.limits = self.rows[sentences], self.limits[sentences]
        self.scores = scores[sentences]


@torch.inference_mode()
def beam_search(
    steps: Steps, limits: list[int], beam_size: int, length_penalty: float = 1.0
) -> list[list[Hypothesis]]:
    """Up to `beam_size` hypotheses for each sentence, best first.

    `steps` decodes B · W rows, every sentence `beam_size` times in turn; `limits` [B] are the most
    tokens of each, EOS counted. Ranked by log-probability / length ^ `length_penalty`; a sentence
    is done when `beam_size` of its hypotheses have ended. Padding, unknown and begin are never
    chosen.
    """
    count = len(limits)
    scores = torch.full((count, beam_size), NOTHING)
    scores[:, 0] = 0.0  # The beams of a sentence are all alike at first: one of them counts.
    beams = _Beams(
        torch.arange(count),
        torch.tensor(limits),
        torch.empty(count, beam_size, 0, dtype=torch.long),
        scores,
        [[] for _ in range(count)],
    )
    last = torch.full((count * beam_size,), BOS)
    step = 0
    while len(beams.rows):
        step += 1
        logp = _log_probs(steps.next_probabilities(last)).view(len(beams.rows), beam_size, -1)
        going, rows = _advance(beams, logp, step, length_penalty)
        if len(going):
            steps.select(rows)
        last = beams.ids[:, :, -1].reshape(-1)
    best = [sorted(done, key=lambda one: -one[0])[:beam_size] for done in beams.done]
    return [[hypothesis for _, hypothesis in done] for done in best]


def _log_probs(probabilities: Tensor) -> Tensor:
    """Log-probabilities [B · W, V] with the special tokens banned, summing to one again."""
    probabilities[:, list(NEVER)] = 0.0
    return (probabilities / probabilities.sum(1, keepdim=True)).log()


def _advance(
    beams: _Beams, logp: Tensor, step: int, length_penalty: float
) -> tuple[Tensor, Tensor]:
    """One step: record what ended, grow the rest → sentences that go on [B'], and which of the
    rows [B' · W] of the decoding each beam comes from."""
    count, width, vocabulary = logp.shape
    total = (beams.scores[:, :, None] + logp).view(count, -1)
    values, flat = total.topk(min(2 * width, total.shape[1]), dim=1)
    parents, tokens = flat // vocabulary, flat % vocabulary
    possible = values > NOTHING
    ended = ((tokens == EOS) | (beams.limits[:, None] <= step)) & possible
    among_best = torch.arange(values.shape[1]) < width
    for sentence, place in (ended & among_best).nonzero().tolist():
        ids = beams.ids[sentence, parents[sentence, place]].tolist()
        token, value = int(tokens[sentence, place]), float(values[sentence, place])
        hypothesis = Hypothesis(ids if token == EOS else [*ids, token], value)
        rank = ranking(value, step, length_penalty)
        beams.done[int(beams.rows[sentence])].append((rank, hypothesis))
    unended = possible & ~ended
    order = torch.argsort((~unended).byte(), dim=1, stable=True)[:, :width]
    chosen = values.masked_fill(~unended, NOTHING).gather(1, order)
    parents, tokens = parents.gather(1, order), tokens.gather(1, order)
    full = torch.tensor([len(beams.done[row]) >= width for row in beams.rows.tolist()])
    going = (~full & (chosen > NOTHING).any(1)).nonzero()[:, 0]
    rows = (torch.arange(count)[:, None] * width + parents)[going].reshape(-1)
    beams.keep(going, parents, tokens, chosen)
    return going, rows
