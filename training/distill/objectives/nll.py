"""Cross-entropy objectives: against the references, and against the teacher's translations."""

from __future__ import annotations

from torch import Tensor

from training.batching import Batch
from training.distill.objectives.base import (
    Loss,
    LossOutput,
    PathName,
    side_of,
    target_logits,
    token_mean,
)
from training.distill.objectives.logp import StudentLogp, student_logp
from training.model import Transformer


def token_nll(student: StudentLogp, label_smoothing: float) -> Tensor:
    """−log S(y_t | y_<t, x) with label smoothing (Szegedy et al. 2016) at each position: [N], nats.

    The target is (1 − ε) on the right word and ε / |V| on every word.
    """
    if label_smoothing == 0:
        return -student.target
    return -(1 - label_smoothing) * student.target - label_smoothing * student.mean


class _CrossEntropy(Loss):
    path: PathName

    def __init__(self, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        side = side_of(batch, self.path)
        memory, bias = model.encode(batch.src)
        student = student_logp(target_logits(model, side, memory, bias), side.targets)
        return LossOutput(token_mean(token_nll(student, self.label_smoothing)))


class CrossEntropyLoss(_CrossEntropy):
    """Maximum likelihood on the references: the baseline without a teacher."""

    path: PathName = "reference"
    paths: tuple[PathName, ...] = ("reference",)


class SentenceKDLoss(_CrossEntropy):
    """Sentence-level distillation (Kim & Rush 2016, Seq-KD): the same on the teacher's beam
    output ŷ."""

    path: PathName = "hypothesis"
    paths: tuple[PathName, ...] = ("hypothesis",)


class InterpolatedSentenceKDLoss(_CrossEntropy):
    """Sentence-level distillation on the hypothesis of the teacher's n-best that is closest to the
    reference by sentence BLEU (Kim & Rush 2016, Seq-Inter)."""

    path: PathName = "closest"
    paths: tuple[PathName, ...] = ("closest",)
