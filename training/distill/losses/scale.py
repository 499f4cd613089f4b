"""Scales that a sentence-level and a token-level loss are put on before a gate weighs them.

A cross-entropy holds the entropy of its target, most of it a constant with label smoothing, and a
KL does not; so neither their values nor their values over their means say how hard each pulls. Nor
do the gradients at single positions: those of a cross-entropy cancel one another more. `gradient`
measures the gradient of the student's weights, so that g is the sentence-level share of its norm.

Shapes: N and M positions of the sentence-level and of the token-level loss, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from training.distill.losses.base import token_mean

ScaleName = Literal["gradient", "none", "running-mean", "excess"]
EARLY, OFTEN, SELDOM = 256, 4, 32
"""The gradients of both losses, which takes two more backward passes, are measured at every
`OFTEN`th of the first `EARLY` batches, while their ratio moves, then at every `SELDOM`th."""


def smallest_nll(label_smoothing: float, vocab_size: int) -> float:
    """The least that the smoothed nll can be: the entropy of its target, nats."""
    spread = label_smoothing / vocab_size
    kept = 1 - label_smoothing + spread
    rest = (vocab_size - 1) * spread * math.log(spread) if spread else 0.0
    return -(kept * math.log(kept) + rest)


def gradient_norm(loss: Tensor, weights: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of the gradient of a loss [N] in the parameters that learn, its positions weighed by
    `weights` [N] over their mean; where all are 0, by 1. The graph is kept, and no gradient."""
    learning = [one for one in parameters if one.requires_grad]
    mean = token_mean(weights)
    relative = weights / mean if mean > 0 else torch.ones_like(weights)
    gradients = torch.autograd.grad(
        token_mean(relative * loss), learning, retain_graph=True, allow_unused=True
    )
    squares = [one.float().square().sum() for one in gradients if one is not None]
    return torch.stack(squares).sum().sqrt()


class Scaled(NamedTuple):
    """The two losses as the student is taught by them, and as a learned gate compares them."""

    sentence: Tensor
    """[N]."""
    token: Tensor
    """[M]."""
    sentence_signal: Tensor
    """[N], without gradient."""
    token_signal: Tensor
    """[M], without gradient."""
    factors: Tensor
    """What the two losses were multiplied by, [2]."""


class LossScale(nn.Module):
    """Puts the sentence-level [N] and the token-level loss [M] on one scale.

    `gradient` multiplies each by what makes their gradients, weighed by g and 1 − g, as long as g
    and 1 − g say; a loss that has all the weight stays as it is. A learned gate compares what each
    has in excess of its least value, divided by the running mean of that. `running-mean` divides
    each by the running mean of itself, without gradient; `excess` takes from the sentence-level
    loss the least that it can be (a KL's least is 0 already).

    State: the running means; for `gradient` the running quadratic means of the norms too, the
    share that the last measurement found, and how many batches there were.
    """

    running: Tensor
    norms: Tensor
    share: Tensor
    batches: Tensor

    def __init__(self, kind: ScaleName, momentum: float = 0.99, norm_momentum: float = 0.5) -> None:
        super().__init__()
        self.kind = kind
        self.momentum = momentum
        self.norm_momentum = norm_momentum
        self.register_buffer("running", torch.zeros(2))
        if kind == "gradient":
            self.register_buffer("norms", torch.zeros(2))
            self.register_buffer("share", torch.zeros(()))
            self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def asks_for_norms(self) -> bool:
        """Whether the next batch is one whose gradients are measured."""
        if self.kind != "gradient" or not self.training or not torch.is_grad_enabled():
            return False
        batches = int(self.batches)
        return batches % (OFTEN if batches < EARLY else SELDOM) == 0

    def measure(
        self,
        losses: tuple[Tensor, Tensor],
        weights: tuple[Tensor, Tensor],
        parameters: Iterable[nn.Parameter],
    ) -> Tensor | None:
        """The norms [2] of the gradients of both losses by their weights, [N] and [M], where this
        batch is one to measure."""
        if not self.asks_for_norms or not all(len(loss) for loss in losses):
            return None
        learning = list(parameters)
        parts = zip(losses, weights, strict=True)
        return torch.stack(
            [gradient_norm(loss, weight.detach(), learning) for loss, weight in parts]
        )

    def forward(
        self,
        sentence: Tensor,
        token: Tensor,
        smallest: float,
        gate: float | Tensor = 0.5,
        norms: Tensor | None = None,
    ) -> Scaled:
        """`smallest` is the least of the sentence-level loss. For `gradient`: the mean g, and the
        norms [2] of both gradients where they were measured."""
        if self.kind == "gradient":
            return self._by_gradient(sentence, token, smallest, gate, norms)
        factors = torch.ones_like(self.running)
        if self.kind == "excess":
            sentence = sentence - smallest
        elif self.kind == "running-mean":
            means = self._means(sentence, token)
            sentence, token, factors = sentence / means[0], token / means[1], 1 / means
        return Scaled(sentence, token, sentence.detach(), token.detach(), factors)

    def _by_gradient(
        self,
        sentence: Tensor,
        token: Tensor,
        smallest: float,
        gate: float | Tensor,
        norms: Tensor | None,
    ) -> Scaled:
        if norms is not None:
            squares = norms.square().clamp(min=1e-12)
            self.norms = _moved(self.norms.square(), squares, self.norm_momentum).sqrt()
        sizes = torch.where(self.norms > 0, self.norms, torch.ones_like(self.norms))
        factors = (gate * sizes[0] + (1 - gate) * sizes[1]) / sizes
        if norms is not None:
            weights = torch.stack([sizes.new_zeros(()) + gate, sizes.new_ones(()) - gate])
            reached = weights * factors * norms
            self.share = reached[0] / reached.sum().clamp(min=1e-12)
        if self.training:
            self.batches = self.batches + 1
        excess, kl = (sentence.detach() - smallest).clamp(min=0), token.detach()
        means = self._means(excess, kl)
        signals = excess / means[0], kl / means[1]
        return Scaled(sentence * factors[0], token * factors[1], *signals, factors)

    def _means(self, sentence: Tensor, token: Tensor) -> Tensor:
        """The running means [2], this batch's counted while training."""
        if self.training and sentence.numel() and token.numel():
            now = torch.stack([sentence.detach().mean(), token.detach().mean()]).clamp(min=1e-3)
            self.running = _moved(self.running, now, self.momentum)
        return torch.where(self.running > 0, self.running, torch.ones_like(self.running))


def _moved(running: Tensor, now: Tensor, momentum: float) -> Tensor:
    """A new tensor, not an update in place: the graph of this step keeps the old one."""
    return now if bool((running == 0).all()) else momentum * running + (1 - momentum) * now
