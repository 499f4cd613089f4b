"""What a teacher is, and what all of them share.

Shapes: B batch, N positions of a batch's targets one after another (EOS counted), V vocabulary of
the student, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from training.model.decoding import output_limit

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
    """A model that translates the training text. Ids of both sides are the student's, EOS last."""

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


GreedyLabel = tuple[Hypotheses, Distributions]
"""The greedy translation of a source, and the distributions along it."""


@runtime_checkable
class OnePassTeacher(Protocol):
    """A teacher that can keep the distributions along its translations while it decodes."""

    @property
    def one_pass(self) -> bool:
        """Whether that is its quickest way."""
        ...

    def greedy_labels(self, src: list[Ids], top_k: int) -> list[GreedyLabel]:
        """The greedy translation of each source and its distributions."""
        ...


@runtime_checkable
class SamplingTeacher(Protocol):
    """A teacher that can draw translations from its distribution."""

    def sample(self, src: list[Ids], count: int, temperature: float) -> list[Hypotheses]:
        """`count` translations of each source, which may repeat; the same for the same batch of
        sources."""
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
    distributions: dict[int, Distributions] = {}
    for rows in batches_by_length(trg, src, batch_tokens):
        logp = log_probs([src[row] for row in rows], [trg[row] for row in rows])
        cuts = np.cumsum([len(trg[row]) for row in rows])[:-1]
        parts = (np.split(part.cpu().numpy(), cuts) for part in top_k_of(logp, top_k))
        distributions |= {
            row: Distributions(*part)
            for row, part in zip(rows, zip(*parts, strict=True), strict=True)
        }
    return [distributions[row] for row in range(len(src))]


def batches_by_length(rows: list[Ids], ties: list[Ids], batch_tokens: int) -> Iterator[list[int]]:
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
    rows: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rounded = -(-output_limit(length, max_length) // LIMIT_STEP) * LIMIT_STEP
        rows.setdefault(min(rounded, max_length - 2), []).append(row)
    return rows
