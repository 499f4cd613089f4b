"""Several teachers as one: the average of their next-token probabilities.

The average is of probabilities, not of log-probabilities, and taken over whole distributions,
before any top-k. The members translate together: one beam search over the averaged probabilities.

Shapes: B batch, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.decoding import output_limit
from training.distill.teachers.base import (
    About,
    Distributions,
    Hypotheses,
    Ids,
    Member,
    Steps,
    batched_distributions,
    like_batches,
)
from training.distill.teachers.search import beam_search
from training.model import EOS

_TINY = 1e-38


class EnsembleTeacher:
    """Teachers over one vocabulary; `weights` are divided by their sum, None weighs all alike."""

    def __init__(self, members: Sequence[Member], weights: Sequence[float] | None = None) -> None:
        self.members = list(members)
        given = [1.0] * len(self.members) if weights is None else list(weights)
        self.weights = [weight / sum(given) for weight in given]
        self.batch_tokens = min(member.batch_tokens for member in self.members)
        self.max_length = min(member.max_length for member in self.members)

    @property
    def about(self) -> About:
        sizes = [member.about.parameters for member in self.members]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        return About(f"ensemble of {len(sizes)}", "float32", total)

    def translate(
        self, src: list[Ids], beam_size: int, n_best: int, length_penalty: float
    ) -> list[Hypotheses]:
        found: list[Hypotheses] = [[]] * len(src)
        for rows in like_batches(src, src, max(self.batch_tokens // beam_size, 1)):
            sources = [src[row] for row in rows]
            steps = AveragedSteps(
                [member.steps(sources, beam_size) for member in self.members], self.weights
            )
            limits = [output_limit(len(source), self.max_length) for source in sources]
            searched = beam_search(steps, limits, beam_size, length_penalty)
            for row, hypotheses in zip(rows, searched, strict=True):
                found[row] = [([*one.ids, EOS], one.score) for one in hypotheses[:n_best]]
        return found

    def distributions(self, src: list[Ids], trg: list[Ids], top_k: int) -> list[Distributions]:
        return batched_distributions(self.log_probs, src, trg, top_k, self.batch_tokens)

    def log_probs(self, src: list[Ids], trg: list[Ids]) -> Tensor:
        """Logarithm [N, V] of the members' averaged probabilities along the targets."""
        parts = [member.log_probs(src, trg).exp() for member in self.members]
        return average(parts, self.weights).clamp(min=_TINY).log()

    def steps(self, src: list[Ids], times: int) -> Steps:
        """The members' decoding together."""
        return AveragedSteps([member.steps(src, times) for member in self.members], self.weights)


class AveragedSteps:
    """The steps of several teachers in one: their probabilities averaged."""

    def __init__(self, members: Sequence[Steps], weights: Sequence[float]) -> None:
        self._members = members
        self._weights = weights

    def next_probabilities(self, last: Tensor) -> Tensor:
        """Tokens [B] → averaged probabilities [B, V] of the next ones."""
        return average([steps.next_probabilities(last) for steps in self._members], self._weights)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in that order, in every member."""
        for steps in self._members:
            steps.select(rows)


def average(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean of equal shapes; the weights sum to one."""
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        total.add_(part, alpha=weight)
    return total
