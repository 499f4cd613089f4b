"""What every objective shares.

Shapes: B batch, T target length, N non-pad target positions of the batch, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from training.batching import Batch, TargetSide
from training.distill.config import PathName
from training.model import Transformer


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
