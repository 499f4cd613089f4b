"""Cross-entropy on references or the teacher's translations, and token-level distillation.

Shapes: N positions, V vocabulary, K top-k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config.losses import TargetPath, TargetSource
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
from training.model.transformer import Transformer

# --- cross-entropy -----------------------------------------------------------------------------


def token_nll(student: StudentLogp, label_smoothing: float) -> Tensor:
    """−log S(y_t | y_<t, x) with label smoothing (Szegedy et al. 2016) at each position: [N], nats.

    The target is (1 − ε) on the right word and ε / |V| on every word.
    """
    if label_smoothing == 0:
        return -student.target
    return -(1 - label_smoothing) * student.target - label_smoothing * student.mean


class _CrossEntropy(Loss):
    path: TargetPath

    def __init__(self, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        target = target_of(batch, self.path)
        memory, bias = model.encode(batch.src)
        student = student_logp(target_logits(model, target, memory, bias), target.targets)
        return LossOutput(token_mean(token_nll(student, self.label_smoothing)))


class CrossEntropyLoss(_CrossEntropy):
    """Maximum likelihood on the references: the baseline without a teacher."""

    path: TargetPath = "reference"
    paths: tuple[TargetPath, ...] = ("reference",)


class SentenceKDLoss(_CrossEntropy):
    """Sentence-level distillation (Kim & Rush 2016, Seq-KD): the same on the teacher's beam
    output ŷ."""

    path: TargetPath = "hypothesis"
    paths: tuple[TargetPath, ...] = ("hypothesis",)


class InterpolatedSentenceKDLoss(_CrossEntropy):
    """Sentence-level distillation on the hypothesis of the teacher's n-best that is closest to the
    reference by sentence BLEU (Kim & Rush 2016, Seq-Inter)."""

    path: TargetPath = "closest"
    paths: tuple[TargetPath, ...] = ("closest",)


class NBestSentenceKDLoss(_CrossEntropy):
    """Sentence-level distillation on one of the teacher's n-best that is drawn for every epoch (see
    `training.distill.nbest`)."""

    path: TargetPath = "drawn"
    paths: tuple[TargetPath, ...] = ("drawn",)


# --- token-level distillation ------------------------------------------------------------------


def topk_kl(student: StudentLogp, top_logp: Tensor, tail: Tensor) -> Tensor:
    """KL(T ‖ S) with the teacher's tail as one extra outcome: → [N], nats.

    `student` holds log S at the teacher's top k, whose log-probabilities are `top_logp` [N, K];
    `tail` [N] is the teacher's probability outside them. S's tail is the sum of its probabilities
    there. Merging outcomes never raises a KL, so this is a lower bound of the exact one and equals
    it for K = V. Kim & Rush 2016, Word-KD.
    """
    head = (top_logp.exp() * (top_logp - student.top)).sum(1)
    if top_logp.shape[1] >= student.vocab_size:
        return head
    return head + torch.xlogy(tail, tail) - tail * student.rest


def tempered_kl(student_logits: Tensor, top_ids: Tensor, top_logp: Tensor, tau: float) -> Tensor:
    """τ² · KL between distributions at temperature τ (Hinton et al. 2015): → [N], nats.

    Needs the teacher's whole distribution, K = V. Raises ValueError otherwise.
    """
    if top_ids.shape[1] != student_logits.shape[1]:
        raise ValueError("a temperature other than 1 needs the whole distribution: labels.top_k 0")
    teacher_logp = F.log_softmax(top_logp / tau, dim=-1)
    student_logp = F.log_softmax(student_logits / tau, dim=-1).gather(1, top_ids)
    return tau * tau * (teacher_logp.exp() * (teacher_logp - student_logp)).sum(1)


def distributions_of(target: TargetSequence) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k ids, log-probabilities and tail along a target sequence.

    Raises ValueError where it carries none.
    """
    if target.top_ids is None or target.top_logp is None or target.tail is None:
        raise ValueError("token-level distillation needs the teacher's distributions on this path")
    return target.top_ids, target.top_logp, target.tail


def token_level(
    student_logits: Tensor,
    student: StudentLogp,
    target: TargetSequence,
    temperature: float,
    kd_rate: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """kd_rate · KL + (1 − kd_rate) · nll at each position: → [N], nats."""
    top_ids, top_logp, tail = distributions_of(target)
    if temperature == 1.0:
        kl = topk_kl(student, top_logp, tail)
    else:
        kl = tempered_kl(student_logits, top_ids, top_logp, temperature)
    if kd_rate == 1.0:
        return kl
    return kd_rate * kl + (1 - kd_rate) * token_nll(student, label_smoothing)


class TokenLevelLoss(Loss):
    """What losses share that are token-level along one path.

    `temperature` and `kd_rate` are of that loss, see `token_level`.
    """

    def __init__(
        self, temperature: float = 1.0, kd_rate: float = 1.0, path: TargetSource = "reference"
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.kd_rate = kd_rate
        self.path: TargetSource = path
        self.paths = (path,)
        self.needs_distributions = (path,)

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, TargetSequence]:
        """Student logits [N, V] along the path, and the target sequence.

        Raises ValueError where the batch has no such target, or none with distributions.
        """
        target = target_of(batch, self.path)
        distributions_of(target)
        memory, bias = model.encode(batch.src)
        return target_logits(model, target, memory, bias), target

    def token_level(
        self,
        logits: Tensor,
        student: StudentLogp,
        target: TargetSequence,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """The token-level loss at each position: [N], nats."""
        return token_level(logits, student, target, self.temperature, self.kd_rate, label_smoothing)


class TokenKDLoss(TokenLevelLoss):
    """KL to the teacher's distributions along one path, mixed with that path's nll."""

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        logits, target = self.logits(model, batch)
        student = student_logp(logits, target.targets, target.top_ids)
        return LossOutput(token_mean(self.token_level(logits, student, target)))
