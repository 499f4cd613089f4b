"""Token-level distillation that singles words out: the hardest ones, or the teacher's top-1.

Selection: Wang et al. 2021, "Selective Knowledge Distillation for Neural Machine Translation",
batch-level and global-level (sections 4.1 and 4.2).

TIE-KD: Zhang et al. 2023, "Towards Understanding and Improving Knowledge Distillation for Neural
Machine Translation". A student learns mostly the top-1 of a teacher's distribution, so a ranking
loss gives it special weight. Their iterative distillation, a matter of data, is not part of this.

Shapes: N positions, V vocabulary, Q queue, R student's top words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.config.losses import TargetSource
from training.data.batching import Batch
from training.distill.losses.base import LossOutput, student_logp, token_mean
from training.distill.losses.kd import TokenLevelLoss, distributions_of, token_nll
from training.model.transformer import Transformer

# --- the hardest words -------------------------------------------------------------------------


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
        path: TargetSource = "reference",
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
        logits, target = self.logits(model, batch)
        student = student_logp(logits, target.targets, target.top_ids)
        nll = token_nll(student, self.label_smoothing)
        chosen = self.select(-student.target.detach())
        distilled = self.token_level(logits, student, target, self.label_smoothing)
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


# --- the teacher's top-1 (TIE-KD) --------------------------------------------------------------


def ranking(top_one: Tensor, rivals: Tensor, is_rival: Tensor, margin: float) -> Tensor:
    """Σ max(0, margin + S(rival) − S(top-1)) over the student's likeliest words: → [N].

    `top_one` [N]: S of the teacher's top-1; `rivals` [N, R]: S of the student's likeliest words;
    `is_rival` [N, R] is false where such a word is the teacher's top-1 itself.
    """
    hinge = (margin + rivals - top_one[:, None]).clamp(min=0)
    return (hinge * is_rival).sum(1)


class TieKDLoss(TokenLevelLoss):
    """token-level loss + rank_weight · ranking loss, along one path."""

    def __init__(
        self,
        temperature: float = 1.0,
        kd_rate: float = 1.0,
        path: TargetSource = "reference",
        rank_weight: float = 1.0,
        rank_top_k: int = 5,
        margin: float = 0.1,
    ) -> None:
        super().__init__(temperature, kd_rate, path)
        self.rank_weight = rank_weight
        self.rank_top_k = rank_top_k
        self.margin = margin

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        logits, target = self.logits(model, batch)
        top_ids, top_logp, _ = distributions_of(target)
        best = top_logp.argmax(1, keepdim=True)
        rival_ids = logits.detach().topk(min(self.rank_top_k, logits.shape[1]), dim=1).indices
        student = student_logp(logits, target.targets, top_ids, rival_ids)
        token = self.token_level(logits, student, target)
        top_one = student.top.gather(1, best)[:, 0].exp()
        is_rival = rival_ids != top_ids.gather(1, best)
        rank = ranking(top_one, student.extra.exp(), is_rival, self.margin)
        logs = {"token_loss": token_mean(token.detach()), "rank_loss": token_mean(rank.detach())}
        return LossOutput(token_mean(token + self.rank_weight * rank), logs)
