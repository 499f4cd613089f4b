"""Controls of the gate report, so that "g rises with difficulty" can turn out untrue.

A rise means something only if it is gone once the difficulties are shuffled among the sentences.
And since a gate may follow whichever of its losses is the smaller, what either loss does for
held-out text is measured on the same sentences, whatever the gate: only if its advantage rises too
does the sentence-level loss teach the harder sentences better.

Shapes: S sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import Checkpoint
from training.data.batching import Batch
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.losses.base import target_of
from training.distill.losses.held_out import alignment
from training.distill.losses.hybrid import HybridLoss
from training.distill.losses.scale import smallest_nll
from training.model.transformer import Transformer
from training.validation import HeldOutText, Pair

SHUFFLES = 1000
BATCH = 64
"""Sentences that are scored at once."""
HELD_OUT_TOKENS = 4096
HELD_OUT_BATCHES = 8


@dataclass(frozen=True)
class Shuffled:
    """A rank correlation with difficulty, held to those with shuffled difficulties."""

    correlation: float
    """Spearman's ρ, −1 to 1; 0 where either is the same everywhere."""
    low: float
    high: float
    """Between these are 95 % of the correlations with shuffled difficulties."""
    p_value: float
    """Share of them that are as far from 0, the true one counted."""


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 [S], those of equal values their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    found: np.ndarray = (ends - (counts + 1) / 2)[place]
    return found


def against_shuffled(values: np.ndarray, difficulty: np.ndarray, seed: int = 0) -> Shuffled:
    """Whether values [S] go with difficulties [S]. The same for the same seed."""
    one, other = (_standardised(ranks(each)) for each in (values, difficulty))
    found = float(one @ other)
    generator = np.random.default_rng(seed)
    shuffled = np.array([one @ generator.permutation(other) for _ in range(SHUFFLES)])
    low, high = np.quantile(shuffled, [0.025, 0.975])
    as_far = int((np.abs(shuffled) >= abs(found) - 1e-12).sum())
    return Shuffled(found, float(low), float(high), (as_far + 1) / (SHUFFLES + 1))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Centred and of length 1; 0 where all are the same."""
    centred = values - values.mean()
    length = float(np.sqrt((centred**2).sum()))
    result: np.ndarray = centred / length if length > 1e-9 else np.zeros(len(values))
    return result


def held_out_of(checkpoint: Checkpoint, pairs: Sequence[Pair]) -> list[Batch]:
    """Batches of held-out pairs for a finished student."""
    source = checkpoint.source_tokenizer
    text = HeldOutText(
        pairs,
        Tokenizer(checkpoint.tokenizer),
        Tokenizer(source) if source else None,
        checkpoint.config.max_length,
        HELD_OUT_TOKENS,
        seed=0,
    )
    return [text(number) for number in range(min(HELD_OUT_BATCHES, text.count))]


def gains_of(
    model: Transformer,
    objective: HybridLoss,
    data: ParallelDataset,
    rows: np.ndarray,
    held_out: list[Batch],
) -> np.ndarray:
    """How much a step by either loss of each sentence lowers the nll of held-out text: [2, S], the
    sentence-level loss first.

    Of a sentence it is the mean over its positions of ⟨∇ℓ, ∇L⟩, each loss as the run scales it;
    only differences between sentences, and between the two losses, mean something.
    """
    order = np.argsort(data.src.lengths[rows], kind="stable")
    batches = [
        data.batch(
            rows[order[start : start + BATCH]], objective.paths, objective.needs_distributions
        )
        for start in range(0, len(order), BATCH)
    ]

    def losses() -> tuple[Tensor, Tensor]:
        parts = [objective.parts(model, batch) for batch in batches]
        return torch.cat([one.sentence for one in parts]), torch.cat([one.token for one in parts])

    found = alignment(model, held_out, losses)
    with torch.no_grad():
        smallest = smallest_nll(objective.label_smoothing, model.vocab_size)
        factors = objective.scale(*losses(), smallest).factors
    gains = np.zeros((2, len(rows)))
    for side, path in enumerate(("hypothesis", objective.path)):
        sizes = np.concatenate([target_of(one, path).mask.sum(1).numpy() for one in batches])
        owners = np.repeat(np.arange(len(sizes)), sizes)
        sums = np.bincount(owners, found[side].numpy(), minlength=len(sizes))
        gains[side, order] = float(factors[side]) * sums / sizes
    return gains
