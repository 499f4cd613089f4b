"""Cross-entropy objectives: against the references, and against the teacher's translations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from training.batching import Batch
from training.distill.objectives.base import (
    Objective,
    ObjectiveOutput,
    PathName,
    side_of,
    target_logits,
    token_mean,
)
from training.model import Transformer


def token_nll(student_logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """−log S(y_t | y_<t, x) with label smoothing (Szegedy et al. 2016): [N, V], [N] → [N], nats."""
    return F.cross_entropy(
        student_logits, target, reduction="none", label_smoothing=label_smoothing
    )


class _CrossEntropy(Objective):
    path: PathName

    def __init__(self, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, model: Transformer, batch: Batch) -> ObjectiveOutput:
        memory, bias = model.encode(batch.src)
        logits, target = target_logits(model, side_of(batch, self.path), memory, bias)
        return ObjectiveOutput(token_mean(token_nll(logits, target, self.label_smoothing)))


class Nll(_CrossEntropy):
    """Maximum likelihood on the references: the baseline without a teacher."""

    path: PathName = "reference"
    paths: tuple[PathName, ...] = ("reference",)


class Sentence(_CrossEntropy):
    """Sentence-level distillation (Kim & Rush 2016, Seq-KD): the same on the teacher's beam
    output ŷ."""

    path: PathName = "hypothesis"
    paths: tuple[PathName, ...] = ("hypothesis",)
