"""Training with an output layer that scores some words of the vocabulary for each batch.

The output layer is most of a small model's work where the vocabulary is large. A batch needs the
scores of its targets and of the teacher's top words; of the rest a uniform sample stands for all
(Jean et al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation"). Each
drawn word stands for r = (words not needed) / (words drawn) of them, so log r is added to its
score: the sum that the softmax divides by is then right on average.

Shapes: B batch, T target length, N non-pad target positions, K top-k, V vocabulary, C words scored.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.data.adopted_tokenizer import SPECIAL
from training.data.batching import Batch, TargetSequence


class ScoredWords(NamedTuple):
    """The words [C] that a batch scores, by rising id, and log r [C], 0 for those that it needs."""

    words: Tensor
    offset: Tensor

    def relabelled(self, batch: Batch) -> Batch:
        """The batch with places among these words in place of the ids of its outputs."""
        return batch._replace(
            **{path: self._relabelled(target) for path, target in batch.targets.items()}  # type: ignore[arg-type]
        )

    def _relabelled(self, target: TargetSequence) -> TargetSequence:
        top = target.top_ids
        return target._replace(
            trg_out=torch.searchsorted(self.words, target.trg_out),
            top_ids=None if top is None else torch.searchsorted(self.words, top),
        )


def scored_words(batch: Batch, vocab_size: int, drawn: int) -> ScoredWords:
    """The special tokens, what stands in the batch's targets or among the teacher's top words, and
    `drawn` of the others, by torch's generator of the CPU."""
    needed = torch.zeros(vocab_size, dtype=torch.bool, device=batch.src.device)
    # PAD keeps its place, 0, by which positions without a target are known.
    needed[: len(SPECIAL)] = True
    for target in batch.targets.values():
        needed[target.trg_out.flatten()] = True
        if target.top_ids is not None:
            needed[target.top_ids.flatten()] = True
    rest = (~needed).nonzero()[:, 0]
    count = min(drawn, len(rest))
    chosen = needed.clone()
    chosen[rest[torch.randperm(len(rest))[:count].to(rest.device)]] = True
    words = chosen.nonzero()[:, 0]
    log_share = math.log(len(rest) / count) if count else 0.0
    offset = torch.where(needed[words], 0.0, log_share)
    return ScoredWords(words, offset)
