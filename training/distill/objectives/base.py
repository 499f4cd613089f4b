"""What every objective shares.

Shapes: B batch, T target length, N non-pad target positions of the batch, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from training.batching import Batch, TargetSide
from training.model import Transformer

PathName = Literal["reference", "hypothesis"]


class ObjectiveOutput(NamedTuple):
    """A scalar loss, nats a target token, with what the log shows beside it."""

    loss: Tensor
    logs: dict[str, Tensor] = {}  # noqa: RUF012


class Objective(nn.Module):
    """Turns a model and a batch into a loss.

    `paths` are the target sides a batch must carry; the longer one decides the batches.
    `needs_distributions` says which of them must carry the teacher's distributions.
    """

    paths: tuple[PathName, ...] = ("reference",)
    needs_distributions: tuple[PathName, ...] = ()

    def forward(self, model: Transformer, batch: Batch) -> ObjectiveOutput:
        raise TypeError(f"{type(self).__name__} does not define forward")


def side_of(batch: Batch, path: PathName) -> TargetSide:
    """The target side of a path. Raises ValueError where the batch has none."""
    side = batch.reference if path == "reference" else batch.hypothesis
    if side is None:
        raise ValueError(f"this objective needs the {path} of every sentence, the batch has none")
    return side


def target_logits(
    model: Transformer, side: TargetSide, memory: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Student logits [N, V] (float32) and targets [N] at the non-pad positions of a side.

    Positions under padding never reach the output layer, the dearest part of a small model.
    """
    mask = side.mask
    states = model.decode(side.trg_in, memory, bias)
    return model.logits(states[mask]).float(), side.trg_out[mask]


def token_mean(values: Tensor) -> Tensor:
    """Mean over the N positions; 0 for a batch of padding only."""
    return values.sum() / max(values.numel(), 1)
