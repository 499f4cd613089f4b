"""What a teacher is, and what all of them share.

Shapes: B batch, N positions of a batch's targets one after another (EOS counted), V vocabulary of
the student, K top-k.

Beam search over any `Steps`, many sentences at once: `training.model.decoding.beam_one`, batched.

Shapes: B sentences still searched, W beam, V vocabulary, T tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from training.model.decoding import NEVER, Hypothesis, output_limit, ranking
from training.model.transformer import BOS, EOS

Ids = list[int]
Hypotheses = list[tuple[Ids, float]]
"""Translations of one source with their log-probabilities (nats, EOS counted), best first."""
LIMIT_STEP = 16
NO_LOGP = -1e4
"""Log-probability of a piece that a teacher cannot say: its probability is 0, and float16 holds
it."""
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Distributions:
    """Top-k of each position of a path: ids [N, K], log-probabilities [N, K] (nats), tail [N]."""

    ids: np.ndarray
    logp: np.ndarray
    tail: np.ndarray


@dataclass(frozen=True)
class About:
    """How a teacher is named in a report; `parameters` is None where they cannot be counted."""

    engine: str
    precision: str
    parameters: int | None


class Teacher(Protocol):
    """Who translates the training text. Ids of both sides are the student's and end with EOS."""

    @property
    def about(self) -> About: ...

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        """`n_best` translations of each source."""
        ...

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        """The next-token distributions at every position of each given target.

        Raises RecipeError where the teacher has none over the student's vocabulary.
        """
        ...


class Steps(Protocol):
    """Decoding of a batch step by step, for a search over several teachers at once."""

    def next_probabilities(self, last: Tensor) -> Tensor:
        """The tokens [B] chosen last (BOS at first) → probabilities [B, V] of the next ones."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep these rows [B'] of the batch, in that order."""
        ...


class Member(Teacher, Protocol):
    """A teacher that can be a member of an ensemble: it shares its whole distributions."""

    batch_tokens: int
    max_length: int
    """Most target tokens, BOS counted."""

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Log-probabilities [N, V] along the targets of one batch. Their sum falls short of 1 by
        what the teacher gives to tokens that the student does not have."""
        ...

    def steps(self, src: list[Ids], times: int) -> Steps:
        """The decoding of some sources, from its start; each source `times` times in turn."""
        ...


def top_k_of(logp: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [N, V] → ids [N, K], log-probabilities [N, K] and tail mass [N].

    `top_k` 0 keeps the whole vocabulary, in the order of its ids; a tail within rounding is then 0.
    """
    positions, width = logp.shape
    if top_k == 0 or top_k >= width:
        ids = torch.arange(width, device=logp.device).expand(positions, width)
        tail = (1 - logp.exp().sum(1)).clamp(min=0)
        return ids, logp, tail.masked_fill(tail < _ROUNDING, 0)
    logp, ids = logp.topk(top_k, dim=-1)
    return ids, logp, (1 - logp.exp().sum(1)).clamp(min=0)


def batched_distributions(
    log_probs: Callable[[list[Ids], list[Ids]], Tensor],
    src: list[Ids],
    trg: list[Ids],
    top_k: int,
    batch_tokens: int,
) -> list[Distributions]:
    """Distributions of many pairs by `log_probs` of one batch, in batches of like length."""
    found: dict[int, Distributions] = {}
    for rows in like_batches(trg, src, batch_tokens):
        logp = log_probs([src[row] for row in rows], [trg[row] for row in rows])
        cuts = np.cumsum([len(trg[row]) for row in rows])[:-1]
        parts = (np.split(part.cpu().numpy(), cuts) for part in top_k_of(logp, top_k))
        found |= {
            row: Distributions(*part)
            for row, part in zip(rows, zip(*parts, strict=True), strict=True)
        }
    return [found[row] for row in range(len(src))]


def like_batches(rows: list[Ids], ties: list[Ids], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of rows in batches of at most `batch_tokens` tokens, padding counted; a longer row
    is a batch of its own. Rows are sorted by length, equal ones by the length of `ties`."""
    order = sorted(range(len(rows)), key=lambda row: (len(rows[row]), len(ties[row])))
    start = 0
    for end in range(1, len(order) + 1):
        more = end < len(order) and len(rows[order[end]]) * (end - start + 1) <= batch_tokens
        if not more:
            yield order[start:end]
            start = end


def rows_by_limit(lengths: list[int], max_length: int) -> dict[int, list[int]]:
    """Rows by the output limit of their source's length (EOS counted), rounded up to `LIMIT_STEP`
    and below `max_length` with BOS and EOS: CTranslate2 takes one limit a call."""
    found: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rounded = -(-output_limit(length, max_length) // LIMIT_STEP) * LIMIT_STEP
        found.setdefault(min(rounded, max_length - 2), []).append(row)
    return found


def cut(ids: Ids, max_length: int) -> Ids:
    """Ids (EOS last) cut to what fits a model of `max_length` positions, BOS or EOS counted."""
    return ids if len(ids) < max_length else [*ids[: max_length - 2], EOS]


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
