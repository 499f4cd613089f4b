"""Scales that a sentence-level and a token-level loss are put on before a gate weighs them.

A cross-entropy holds the entropy of its target, most of it a constant with label smoothing, and a
KL does not; so neither their values nor their values over their means say how hard each pulls.
`gradient` measures that: with it g is the sentence-level share of the gradient's norm.

Shapes: N and M positions of the sentence-level and of the token-level loss, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

ScaleName = Literal["gradient", "none", "running-mean", "excess"]
PROBES = 64
"""Positions of a batch whose gradients are measured: a hundredth of a step's work."""


def smallest_nll(label_smoothing: float, vocab_size: int) -> float:
    """The least that the smoothed nll can be: the entropy of its target, nats."""
    spread = label_smoothing / vocab_size
    kept = 1 - label_smoothing + spread
    rest = (vocab_size - 1) * spread * math.log(spread) if spread else 0.0
    return -(kept * math.log(kept) + rest)


def probes(positions: int, device: torch.device) -> Tensor:
    """At most `PROBES` of so many positions, evenly spaced."""
    count = min(positions, PROBES)
    return torch.arange(count, device=device) * positions // max(count, 1)


def gradient_norms(loss: Callable[[Tensor], Tensor], student_logits: Tensor) -> Tensor:
    """Norm of the gradient of each position's loss with respect to its logits: [n, V] → [n].

    `loss` takes the logits [n, V] to the losses [n]. No gradient passes into the model.
    """
    with torch.enable_grad():
        logits = student_logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits).sum(), logits)
    return gradient.norm(dim=1)


def share_of_gradient(sentence: Tensor, token: Tensor) -> Tensor:
    """The sentence-level share of the gradient, 0 to 1, of the norms at some positions [n], [m]:
    their quadratic means, since gradients of different positions are nearly orthogonal."""
    sizes = [norms.square().mean().sqrt() if len(norms) else 0.0 for norms in (sentence, token)]
    total = sizes[0] + sizes[1]
    return sentence.new_tensor(float(sizes[0] / total) if total else 0.0)


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
    """What the gradient of each was multiplied by, [2]."""


class LossScale(nn.Module):
    """Puts the sentence-level [N] and the token-level loss [M] on one scale.

    `gradient` multiplies each by what makes their gradients, weighed by g and 1 − g, as long as g
    and 1 − g say; a loss that has all the weight stays as it is. A learned gate compares what each
    has in excess of its least value, divided by the running mean of that. `running-mean` divides
    each by the running mean of itself, without gradient; `excess` takes from the sentence-level
    loss the least that it can be (a KL's least is 0 already).
    """

    running: Tensor
    norms: Tensor

    def __init__(self, kind: ScaleName, momentum: float = 0.99) -> None:
        super().__init__()
        self.kind = kind
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(2))
        if kind == "gradient":
            self.register_buffer("norms", torch.zeros(2))

    def forward(
        self,
        sentence: Tensor,
        token: Tensor,
        smallest: float,
        norms: tuple[Tensor, Tensor] | None = None,
        gate: float | Tensor = 0.5,
    ) -> Scaled:
        """`smallest` is the least of the sentence-level loss. For `gradient`: the `norms` of the
        gradients at some positions of each ([n], [m]; None keeps the estimates), and the mean g.
        """
        if self.kind == "gradient":
            return self._by_gradient(sentence, token, smallest, norms, gate)
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
        norms: tuple[Tensor, Tensor] | None,
        gate: float | Tensor,
    ) -> Scaled:
        if self.training and norms is not None and all(len(one) for one in norms):
            squares = torch.stack([one.square().mean() for one in norms]).clamp(min=1e-12)
            self.norms = self._moved(self.norms.square(), squares).sqrt()
        sizes = torch.where(self.norms > 0, self.norms, torch.ones_like(self.norms))
        factors = (gate * sizes[0] + (1 - gate) * sizes[1]) / sizes
        excess, token_signal = (sentence.detach() - smallest).clamp(min=0), token.detach()
        means = self._means(excess, token_signal)
        return Scaled(
            sentence * factors[0],
            token * factors[1],
            excess / means[0],
            token_signal / means[1],
            factors,
        )

    def _means(self, sentence: Tensor, token: Tensor) -> Tensor:
        """The running means [2], this batch's counted while training."""
        if self.training and sentence.numel() and token.numel():
            now = torch.stack([sentence.detach().mean(), token.detach().mean()]).clamp(min=1e-3)
            self.running = self._moved(self.running, now)
        return torch.where(self.running > 0, self.running, torch.ones_like(self.running))

    def _moved(self, running: Tensor, now: Tensor) -> Tensor:
        """A new tensor, not an update in place: the graph of this step keeps the old one."""
        if bool((running == 0).all()):
            return now
        return self.momentum * running + (1 - self.momentum) * now
