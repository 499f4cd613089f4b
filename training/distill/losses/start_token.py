"""Token-level distillation by the model that a student starts from.

A student that is cut out of a model learns best from that model (Sanh et al. 2020, movement
pruning; Muralidharan et al. 2024, Minitron). Its distributions are computed batch by batch, so
there is no label store, and every epoch may alter the text.

Shapes: N non-pad target positions, V vocabulary, K top-k.
"""

from __future__ import annotations

import torch

from training.data.batching import Batch
from training.distill.losses.base import target_logits, target_of
from training.distill.losses.kd import TokenKDLoss
from training.model.transformer import Transformer


class StartTokenLoss(TokenKDLoss):
    """KL to the whole model's distributions along the references, mixed with their nll."""

    needs_start = True

    def __init__(self, kd_rate: float = 0.5, top_k: int = 8) -> None:
        super().__init__(kd_rate=kd_rate, path="reference")
        self.needs_distributions = ()  # none are read
        self.top_k = top_k
        # Not a part of this module: it neither learns nor is saved.
        self._teachers: tuple[Transformer, ...] = ()

    def teach_by(self, start: Transformer) -> None:
        """Take the model that teaches, whole, of the student's vocabularies."""
        self._teachers = (start.eval().requires_grad_(False),)

    @torch.no_grad()
    def prepared(self, batch: Batch) -> Batch:
        """The batch with the teacher's top k ids and log-probabilities [N, K] and its tail [N]."""
        (teacher,) = self._teachers
        target = target_of(batch, "reference")
        memory, bias = teacher.encode(batch.src)
        logits = target_logits(teacher, target, memory, bias)
        top = logits.topk(min(self.top_k, logits.shape[1]), dim=1)
        top_logp = top.values - logits.logsumexp(1, keepdim=True)
        tail = (1 - top_logp.exp().sum(1)).clamp_(min=0)
        return batch._replace(
            reference=target._replace(top_ids=top.indices, top_logp=top_logp, tail=tail)
        )
