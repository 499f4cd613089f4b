"""What every objective shares.

Shapes: B batch, T target length, N non-pad target positions of the batch, V vocabulary.

The student's log-probabilities of the few words that a loss reads.

Every loss here reads log S at some words of each position and, for label smoothing, its mean over
the vocabulary. One log-softmax then serves the sentence-level and the token-level loss, and one
dense gradient, written once, replaces a dense one a term.

Shapes: N positions, V vocabulary, K top-k, J words read a position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config.losses import PathName
from training.data.batching import Batch, TargetSide
from training.model.transformer import Transformer


class LossOutput(NamedTuple):
    """A scalar loss, nats a target token, with what the log shows beside it."""

    loss: Tensor
    logs: dict[str, Tensor] = {}  # noqa: RUF012


class Loss(nn.Module):
    """Turns a model and a batch into a loss.

    `paths` are the target sides a batch must carry; the longest one decides the batches.
    `needs_distributions` says which of them must carry the teacher's distributions. `progress` is
    the share of the run that is done, 0 to 1, set by the loop before every step.
    """

    paths: tuple[PathName, ...] = ("reference",)
    needs_distributions: tuple[PathName, ...] = ()
    progress: float = 0.0

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        raise TypeError(f"{type(self).__name__} does not define forward")


def side_of(batch: Batch, path: PathName) -> TargetSide:
    """The target side of a path. Raises ValueError where the batch has none."""
    side: TargetSide | None = getattr(batch, path)
    if side is None:
        raise ValueError(f"this objective needs the {path} of every sentence, the batch has none")
    return side


def target_states(
    model: Transformer, side: TargetSide, memory: Tensor, bias: Tensor | None
) -> Tensor:
    """Student's decoder states [N, D] at the non-pad positions of a side.

    Positions under padding never reach the output layer, the dearest part of a small model.
    """
    return model.decode(side.trg_in, memory, bias)[side.mask]


def target_logits(
    model: Transformer, side: TargetSide, memory: Tensor, bias: Tensor | None
) -> Tensor:
    """Student logits [N, V] (float32) at the non-pad positions of a side."""
    return model.logits(target_states(model, side, memory, bias)).float()


def token_mean(values: Tensor) -> Tensor:
    """Mean over the N positions; 0 for a batch of padding only."""
    return values.sum() / max(values.numel(), 1)


class _SelectLogp(torch.autograd.Function):
    """Logits [N, V], ids [N, J] → log-softmax at the ids [N, J] and its mean over V [N]."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        logp = F.log_softmax(logits, dim=-1)
        ctx.save_for_backward(logp, ids)
        return logp.gather(1, ids), logp.mean(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        selected, mean = gradients
        logp, ids = ctx.saved_tensors
        dense = (mean / logp.shape[1])[:, None].repeat(1, logp.shape[1])
        dense.scatter_add_(1, ids, selected)
        return torch._log_softmax_backward_data(dense, logp, 1, logp.dtype), None


def select_logp(student_logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """log S at the given ids and its mean over the vocabulary, nats: [N, V], [N, J] → [N, J], [N].

    Differentiable once in `student_logits`. Ids may repeat within a row.
    """
    selected: tuple[Tensor, Tensor] = _SelectLogp.apply(student_logits, ids)
    return selected


class StudentLogp(NamedTuple):
    """What the losses read of the student's distribution at each position, nats."""

    target: Tensor
    """Of the path's own words, [N]."""
    top: Tensor
    """Of the teacher's top-k, [N, K]; [N, 0] where the side carries no distributions."""
    more: Tensor
    """Of further words that an objective asked for, [N, J]."""
    mean: Tensor
    """Over the vocabulary, [N]."""
    vocab_size: int


def student_logp(
    student_logits: Tensor,
    target: Tensor,
    top_ids: Tensor | None = None,
    more_ids: Tensor | None = None,
) -> StudentLogp:
    """Logits [N, V], targets [N], the teacher's top-k ids [N, K] and further ids [N, J]."""
    none = target.new_empty(len(target), 0)
    parts = [target[:, None], none if top_ids is None else top_ids]
    parts.append(none if more_ids is None else more_ids)
    selected, mean = select_logp(student_logits, torch.cat(parts, dim=1))
    own, top, more = selected.split([part.shape[1] for part in parts], dim=1)
    return StudentLogp(own[:, 0], top, more, mean, student_logits.shape[1])
