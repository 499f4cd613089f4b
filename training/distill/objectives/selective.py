"""Selective distillation: token-level only for the words that the student finds hardest.

Wang et al. 2021, "Selective Knowledge Distillation for Neural Machine Translation", batch-level and
global-level selection (sections 4.1 and 4.2). Shapes: N positions, Q queue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.batching import Batch
from training.distill.objectives.base import LossOutput, PathName, token_mean
from training.distill.objectives.logp import student_logp
from training.distill.objectives.nll import token_nll
from training.distill.objectives.token import TokenLevelLoss
from training.model import Transformer


def hardest(nll: Tensor, share: float) -> Tensor:
    """Which of the words [N] are among the `share` with the highest nll: [N], bool.

    ⌈share · N⌉ of them; of equal ones the first.
    """
    chosen = torch.zeros_like(nll, dtype=torch.bool)
    count = -int(-share * len(nll) // 1)
    order = nll.argsort(descending=True, stable=True)
    chosen[order[:count]] = True
    return chosen


class SelectiveBatchKDLoss(TokenLevelLoss):
    """The token-level loss for the hardest words of the batch, the nll for the others."""

    def __init__(
        self,
        temperature: float = 1.0,
        kd_rate: float = 0.5,
        path: PathName = "reference",
        label_smoothing: float = 0.1,
        share: float = 0.5,
    ) -> None:
        super().__init__(temperature, kd_rate, path)
        self.label_smoothing = label_smoothing
        self.share = share

    def select(self, nll: Tensor) -> Tensor:
        """Which words are distilled, by the student's nll of them: [N] → [N], bool."""
        return hardest(nll, self.share)

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        logits, side = self.logits(model, batch)
        student = student_logp(logits, side.targets, side.top_ids)
        nll = token_nll(student, self.label_smoothing)
        chosen = self.select(-student.target.detach())
        distilled = self.token_level(logits, student, side, self.label_smoothing)
        loss = token_mean(torch.where(chosen, distilled, nll))
        return LossOutput(loss, {"selected": chosen.float().sum() / max(len(chosen), 1)})


class SelectiveGlobalKDLoss(SelectiveBatchKDLoss):
    """The same, but a word is hard by the words seen last, kept in a first-in, first-out queue.

    State: `queue` [Q] and how many words it was given, saved with the run.
    """

    queue: Tensor
    seen: Tensor

    def __init__(self, queue_size: int = 30_000, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.register_buffer("queue", torch.zeros(queue_size))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def _push(self, nll: Tensor) -> None:
        size, seen = len(self.queue), int(self.seen)
        newest = nll[-size:]
        first = seen + len(nll) - len(newest)
        places = (first + torch.arange(len(newest), device=nll.device)) % size
        self.queue = self.queue.index_put((places,), newest.to(self.queue.dtype))
        self.seen = self.seen + len(nll)

    def select(self, nll: Tensor) -> Tensor:
        """Words above the (1 − share) quantile of the queue, this batch's own words in it."""
        if self.training:
            self._push(nll)
        filled = self.queue[: min(int(self.seen), len(self.queue))]
        if not len(filled):
            return hardest(nll, self.share)
        rank = min(max(int((1 - self.share) * len(filled)), 0), len(filled) - 1)
        return nll >= filled.kthvalue(rank + 1).values
