"""Token-level distillation that lifts the teacher's top-1.

Zhang et al. 2023, "Towards Understanding and Improving Knowledge Distillation for Neural Machine
Translation" (TIE-KD): what a student learns from a teacher's distribution is mostly its top-1, so a
ranking loss gives it special weight. Their iterative distillation, which is of the data and not of
the loss, is not part of this. Shapes: N positions, V vocabulary, R student's top words.
"""

from __future__ import annotations

from torch import Tensor

from training.batching import Batch
from training.distill.objectives.base import LossOutput, PathName, token_mean
from training.distill.objectives.logp import student_logp
from training.distill.objectives.token import TokenLevelLoss, distributions_of
from training.model import Transformer


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
        path: PathName = "reference",
        rank_weight: float = 1.0,
        rank_top_k: int = 5,
        margin: float = 0.1,
    ) -> None:
        super().__init__(temperature, kd_rate, path)
        self.rank_weight = rank_weight
        self.rank_top_k = rank_top_k
        self.margin = margin

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        logits, side = self.logits(model, batch)
        top_ids, top_logp, _ = distributions_of(side)
        best = top_logp.argmax(1, keepdim=True)
        rival_ids = logits.detach().topk(min(self.rank_top_k, logits.shape[1]), dim=1).indices
        student = student_logp(logits, side.targets, top_ids, rival_ids)
        token = self.token_level(logits, student, side)
        top_one = student.top.gather(1, best)[:, 0].exp()
        is_rival = rival_ids != top_ids.gather(1, best)
        rank = ranking(top_one, student.more.exp(), is_rival, self.margin)
        logs = {"token_loss": token_mean(token.detach()), "rank_loss": token_mean(rank.detach())}
        return LossOutput(token_mean(token + self.rank_weight * rank), logs)
