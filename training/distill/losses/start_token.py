"""Token-level distillation by the model that a student starts from.

A student that is cut out of a model learns best from that model (Sanh et al. 2020, movement
pruning; Muralidharan et al. 2024, Minitron). Its distributions are computed batch by batch, so
there is no label store, and every epoch may alter the text.

That model may lack pieces that the student was given. Of a pair with such a piece it knows nothing,
and the reference alone teaches there.

Shapes: B batch, N non-pad target positions, V and V' target and source vocabulary, K top-k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.batching import Batch, TargetSequence
from training.distill.losses.base import target_logits, target_of
from training.distill.losses.kd import TokenKDLoss, distributions_of
from training.model.transformer import Transformer

IMPOSSIBLE = -1e4
"""Log-probability of what cannot be."""


class StartTokenLoss(TokenKDLoss):
    """KL to the whole model's distributions along the references, mixed with their nll."""

    needs_start = True

    def __init__(self, kd_rate: float = 0.5, top_k: int = 8) -> None:
        super().__init__(kd_rate=kd_rate, path="reference")
        self.needs_distributions = ()  # none are read
        self.top_k = top_k
        # Not a part of this module: it neither learns nor is saved.
        self._teachers: tuple[Transformer, ...] = ()
        self._known: tuple[Tensor, Tensor] | None = None

    def teach_by(self, start: Transformer, known: tuple[Tensor, Tensor] | None = None) -> None:
        """Take the model that teaches, whole, of the student's vocabularies; `known` are the pieces
        of the source [V'] and target [V] that it has learnt, bool; default: all."""
        self._teachers = (start.eval().requires_grad_(False),)
        if known is not None and not all(bool(side.all()) for side in known):
            device = start.embedding.weight.device
            self._known = (known[0].to(device), known[1].to(device))

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
        taught = target._replace(top_ids=top.indices, top_logp=top_logp, tail=tail)
        return batch._replace(reference=self._sure_where_unknown(batch, taught))

    def _sure_where_unknown(self, batch: Batch, target: TargetSequence) -> TargetSequence:
        """The distributions with all mass on the reference's word in pairs with unknown pieces."""
        if self._known is None:
            return target
        source, words = self._known
        unknown = ~(source[batch.src].all(1) & words[target.trg_out].all(1))  # [B]
        here = unknown[target.mask.nonzero()[:, 0]]  # [N]
        if not bool(here.any()):
            return target
        ids, top_logp, tail = distributions_of(target)
        right = target.targets
        ids = ids.clone()
        ids[:, -1] = torch.where((ids == right[:, None]).any(1), ids[:, -1], right).where(
            here, ids[:, -1]
        )
        sure = torch.where(ids == right[:, None], 0.0, IMPOSSIBLE)
        return target._replace(
            top_ids=ids,
            top_logp=torch.where(here[:, None], sure.to(top_logp.dtype), top_logp),
            tail=torch.where(here, torch.zeros_like(tail), tail),
        )
