"""What every loss shares.

Every loss reads log S at some words of each position and, for label smoothing, its mean over the
vocabulary. One log-softmax serves the sentence-level and the token-level loss, and one dense
gradient, written once, replaces a dense one a term.

Shapes: B batch, T target length, N non-pad target positions of the batch, V vocabulary, K top-k, J
words read a position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config.losses import TargetPath
from training.data.batching import Batch, TargetSequence
from training.model.transformer import Transformer


class LossOutput(NamedTuple):
    """A scalar loss, nats a target token, with what the log shows beside it."""

    loss: Tensor
    logs: dict[str, Tensor] = {}  # noqa: RUF012


class Loss(nn.Module):
    """Turns a model and a batch into a scalar.

    `paths` are the target sequences a batch must carry; the longest one decides the batches.
    `needs_distributions` says which of them must carry the teacher's distributions. `progress` is
    the share of the run that is done, 0 to 1, set by the loop before every step.
    """

    paths: tuple[TargetPath, ...] = ("reference",)
    needs_distributions: tuple[TargetPath, ...] = ()
    progress: float = 0.0
    needs_held_out: bool = False
    """Whether `held_out` must be set: number → a batch of validation text, with references."""
    held_out: Callable[[int], Batch] | None = None
    needs_start: bool = False
    """Whether the model that the student starts from teaches, by `teach_by`."""

    def teach_by(self, start: Transformer, known: tuple[Tensor, Tensor] | None = None) -> None:
        """Take the model that the student starts from, whole, of the student's vocabularies, and
        which of their pieces it has learnt."""

    def prepared(self, batch: Batch) -> Batch:
        """The batch with what the loss adds before it is known which words are scored."""
        return batch

    def size(self, batch: Batch) -> int:
        """How many things the loss of a batch is the mean of: what it weighs beside others of the
        same step."""
        return batch.ntokens

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        raise TypeError(f"{type(self).__name__} does not define forward")


def target_of(batch: Batch, path: TargetPath) -> TargetSequence:
    """The target sequence that `path` names. Raises ValueError where the batch has none."""
    target: TargetSequence | None = getattr(batch, path)
    if target is None:
        raise ValueError(f"this objective needs the {path} of every sentence, the batch has none")
    return target


def target_states(
    model: Transformer, target: TargetSequence, memory: Tensor, bias: Tensor | None
) -> Tensor:
    """Student's decoder states [N, D] at the non-pad positions of a target sequence.

    Positions under padding never reach the output layer, the dearest part of a small model.
    """
    return model.decode(target.trg_in, memory, bias)[target.mask]


def target_logits(
    model: Transformer, target: TargetSequence, memory: Tensor, bias: Tensor | None
) -> Tensor:
    """Student logits [N, V] (float32) at the non-pad positions of a target sequence."""
    return model.logits(target_states(model, target, memory, bias)).float()


def token_mean(values: Tensor) -> Tensor:
    """Mean over the N positions; 0 for a batch of padding only."""
    return values.sum() / max(values.numel(), 1)


class _SelectLogp(torch.autograd.Function):
    """Logits [N, V], ids [N, J] → log-softmax at the ids [N, J], its mean over V [N], and the log
    of the probability outside the columns `apart` of the ids [N].

    One buffer [N, V] is kept, the probabilities with 0 at the ids that are left out.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ids: Tensor, apart: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        logp = F.log_softmax(logits, dim=-1)
        selected, mean = logp.gather(1, ids), logp.mean(1)
        left_out = ids[:, apart[0] : apart[1]]
        others = logp.exp_().scatter_(1, left_out, 0.0)
        mass = others.sum(1).clamp(min=torch.finfo(logits.dtype).tiny)
        ctx.save_for_backward(others, ids, left_out, selected, mass)
        ctx.apart = apart
        return selected, mean, mass.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        selected, mean, rest = gradients
        others, ids, left_out, logp, mass = ctx.saved_tensors
        # d log S(v) = [v] − S and d log (mass of the others) = S(others) / mass − S, at every word.
        total = selected.sum(1) + mean + rest
        share = mean / others.shape[1]
        dense = torch.addcmul(share[:, None], others, (rest / mass - total)[:, None])
        dense.scatter_add_(1, ids, selected)
        start, end = ctx.apart
        if start < end:
            probabilities = logp[:, start:end].exp()
            dense.scatter_add_(1, left_out, -probabilities * total[:, None])
        return dense, None, None


def select_logp(
    student_logits: Tensor, ids: Tensor, apart: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor, Tensor]:
    """log S at the given ids, its mean over the vocabulary, and the log of the probability outside
    the columns `apart` (first, past the last) of the ids, nats:
    [N, V], [N, J] → [N, J], [N], [N].

    The last is summed over the other words: 1 − Σ would lose most of its digits where a student is
    sure. Differentiable once in `student_logits`. Ids may repeat within a row, but not within
    `apart`.
    """
    found: tuple[Tensor, Tensor, Tensor] = _SelectLogp.apply(student_logits, ids, apart)
    return found


class StudentLogp(NamedTuple):
    """What the losses read of the student's distribution at each position, nats."""

    target: Tensor
    """Of the path's own words, [N]."""
    top: Tensor
    """Of the teacher's top-k, [N, K]; [N, 0] where the target carries no distributions."""
    extra: Tensor
    """Of the other words that a loss asked for, [N, J]."""
    mean: Tensor
    """Over the vocabulary, [N]."""
    rest: Tensor
    """Of all words outside the teacher's top-k together, [N]."""
    vocab_size: int


def student_logp(
    student_logits: Tensor,
    target: Tensor,
    top_ids: Tensor | None = None,
    extra_ids: Tensor | None = None,
) -> StudentLogp:
    """Logits [N, V], targets [N], the teacher's top-k ids [N, K] and other ids [N, J]."""
    none = target.new_empty(len(target), 0)
    parts = [target[:, None], none if top_ids is None else top_ids]
    parts.append(none if extra_ids is None else extra_ids)
    apart = (1, 1 + parts[1].shape[1])
    selected, mean, rest = select_logp(student_logits, torch.cat(parts, dim=1), apart)
    target_logp, top, extra = selected.split([part.shape[1] for part in parts], dim=1)
    return StudentLogp(target_logp[:, 0], top, extra, mean, rest, student_logits.shape[1])
