"""On-policy distillation: the teacher's distributions along what the student writes itself.

A student of given words never sees the prefixes that its own mistakes lead to. ImitKD (Lin et al.
2020, "Autoregressive Knowledge Distillation through Imitation Learning") and GKD (Agarwal et al.
2024, "On-Policy Distillation of Language Models") teach it there too. Here the student translates
the text in rounds (`training.rounds`), and the teacher is asked once a round.

Shapes: B batch, N positions along ŷ, M positions along the student's words, K top-k.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from training.config.losses import TargetPath
from training.data.batching import Batch, TargetSequence
from training.distill.losses.base import (
    Loss,
    LossOutput,
    StudentLogp,
    student_logp,
    target_logits,
    target_of,
    token_mean,
)
from training.distill.losses.kd import distributions_of, token_nll, topk_kl
from training.distill.losses.scale import LossScale, smallest_nll
from training.model.transformer import Transformer

Divergence = Literal["kl", "jensen-shannon"]


def jensen_shannon(student: StudentLogp, top_logp: Tensor, tail: Tensor) -> Tensor:
    """½ KL(T ‖ M) + ½ KL(S ‖ M) with M = ½ (T + S), the words outside the teacher's top k one
    outcome: [N, K] and [N] → [N], nats, 0 to log 2. Lin 1991; GKD's with β = ½."""
    theirs, mine = top_logp, student.top
    if top_logp.shape[1] < student.vocab_size:
        least = torch.finfo(tail.dtype).tiny
        theirs = torch.cat([theirs, tail.clamp(min=least).log()[:, None]], dim=1)
        mine = torch.cat([mine, student.rest[:, None]], dim=1)
    middle = torch.logaddexp(theirs, mine) - math.log(2)
    return (theirs.exp() * (theirs - middle) + mine.exp() * (mine - middle)).sum(1) / 2


class OnPolicyLoss(Loss):
    """(1 − w) · L_sentence + w · divergence(T ‖ S) along the student's own words.

    Sentences that the student did not translate in the last round are taught along ŷ alone, as all
    are before the first one. `scale` makes w the share of the gradient, see `LossScale`.
    """

    paths: tuple[TargetPath, ...] = ("hypothesis", "student")
    needs_distributions: tuple[TargetPath, ...] = ("student",)

    def __init__(
        self,
        weight: float = 0.5,
        divergence: Divergence = "kl",
        scale: Literal["gradient", "none"] = "gradient",
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.divergence = topk_kl if divergence == "kl" else jensen_shannon
        self.scale = LossScale(scale)
        self.label_smoothing = label_smoothing

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        hypothesis = target_of(batch, "hypothesis")
        memory, bias = model.encode(batch.src)
        student = student_logp(target_logits(model, hypothesis, memory, bias), hypothesis.targets)
        sentence = token_nll(student, self.label_smoothing)
        logs = {"sentence_loss": token_mean(sentence.detach())}
        if batch.student is None or not batch.student.mask.any():
            return LossOutput(token_mean(sentence), logs)
        own = self._along_own_words(model, batch.student, memory, bias)
        logs["own_loss"] = token_mean(own.detach())
        gate = 1 - self.weight
        weights = torch.full_like(sentence, gate), torch.full_like(own, self.weight)
        norms = self.scale.measure((sentence, own), weights, model.parameters())
        smallest = smallest_nll(self.label_smoothing, student.vocab_size)
        scaled = self.scale(sentence, own, smallest, gate, norms)
        if self.scale.kind == "gradient":
            logs["gradient_share"] = self.scale.share
        loss = gate * token_mean(scaled.sentence) + self.weight * token_mean(scaled.token)
        return LossOutput(loss, logs)

    def _along_own_words(
        self, model: Transformer, target: TargetSequence, memory: Tensor, bias: Tensor | None
    ) -> Tensor:
        """The divergence at each position that the student wrote [M], nats."""
        top_ids, top_logp, tail = distributions_of(target)
        rows = target.mask.any(1)
        written = TargetSequence(target.trg_in[rows], target.trg_out[rows])
        logits = target_logits(model, written, memory[rows], None if bias is None else bias[rows])
        return self.divergence(student_logp(logits, written.targets, top_ids), top_logp, tail)
