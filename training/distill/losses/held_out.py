"""What a gate learns from held-out text: which of two losses makes that text likelier.

A step along −∇ℓ changes the loss L of held-out text by −η ⟨∇ℓ, ∇L⟩, so that product says how much a
position teaches what counts elsewhere (Ren et al. 2018, "Learning to Reweight Examples for Robust
Deep Learning"). It is the derivative of ℓ in the direction of ∇L, hence two forward passes give it
for every position of a batch at once (the central difference of Liu et al. 2019, DARTS).

Shapes: N and M positions of the sentence-level and of the token-level loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.data.batching import Batch
from training.distill.losses.base import student_logp, target_logits, target_of, token_mean
from training.model.transformer import Transformer

EVERY = 8
"""In every so many batches the gate learns; in the others it rests. A batch in which it does takes
the time of nearly three."""
DISTANCE = 0.002
"""How far the weights are moved to either side, as the norm of the difference."""
MOMENTUM = 0.9
Losses = Callable[[], tuple[Tensor, Tensor]]
"""Computes the sentence-level [N] and the token-level loss [M] with the weights as they stand."""


def held_out_nll(model: Transformer, batch: Batch) -> Tensor:
    """Mean nll of the references of held-out sentences, nats a token."""
    target = target_of(batch, "reference")
    memory, bias = model.encode(batch.src)
    student = student_logp(target_logits(model, target, memory, bias), target.targets)
    return -token_mean(student.target)


def _direction(model: Transformer, held_out: Sequence[Batch]) -> list[tuple[Tensor, Tensor]]:
    """The weights that learn, each with its gradient of the mean nll of these batches."""
    learning = [one for one in model.parameters() if one.requires_grad]
    gradients = [torch.zeros_like(one) for one in learning]
    for batch in held_out:
        with torch.enable_grad():
            loss = held_out_nll(model, batch.to(learning[0].device)) / len(held_out)
            found = torch.autograd.grad(loss, learning, allow_unused=True)
        for total, one in zip(gradients, found, strict=True):
            if one is not None:
                total.add_(one)
    return [(one.data, gradient) for one, gradient in zip(learning, gradients, strict=True)]


@contextmanager
def _moved(parts: list[tuple[Tensor, Tensor]], distance: float) -> Iterator[None]:
    """The weights moved so far in a direction; afterwards they are, to the bit, what they were."""
    before = [weight.clone() for weight, _ in parts]
    try:
        for weight, direction in parts:
            weight.add_(direction, alpha=distance)
        yield
    finally:
        for (weight, _), value in zip(parts, before, strict=True):
            weight.copy_(value)


def alignment(
    model: Transformer, held_out: Sequence[Batch], losses: Losses
) -> tuple[Tensor, Tensor]:
    """⟨∇ℓ, ∇L⟩ at each position of both losses, [N] and [M], in the weights that learn; L is the
    mean over the batches of held-out text.

    Without dropout and in float32, since small differences count.
    """
    device = model.embedding.weight.device
    training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            parts = _direction(model, held_out)
            norm = torch.stack([direction.square().sum() for _, direction in parts]).sum().sqrt()
            distance = DISTANCE / float(norm.clamp(min=1e-12))
            with torch.no_grad():
                with _moved(parts, distance):
                    above = losses()
                with _moved(parts, -distance):
                    below = losses()
    finally:
        model.train(training)
    sentence, token = ((up - down) / (2 * distance) for up, down in zip(above, below, strict=True))
    return sentence, token


class HeldOutSignal(nn.Module):
    """The signals by which a gate learns from held-out text.

    Both losses' alignments, as long as `factors` make their gradients, over the running mean of
    their size: the gate gives weight to the loss whose step makes held-out text likelier.

    State: that running mean, how many batches there were, and how much the last one that was
    measured gained by either loss.
    """

    size: Tensor
    gains: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.zeros(()))
        self.register_buffer("gains", torch.zeros(2))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def number(self) -> int:
        """How many batches the gate has learnt in."""
        return int(self.batches) // EVERY

    def asks(self) -> bool:
        """Whether the gate learns in this batch, which is then counted."""
        asks = int(self.batches) % EVERY == 0
        self.batches = self.batches + 1
        return asks

    def forward(
        self, model: Transformer, held_out: Batch, losses: Losses, factors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Signals [N] and [M]: the less, the more a loss helps. `factors` [2] are of the scale."""
        found = alignment(model, [held_out], losses)
        helped = [one * factor for one, factor in zip(found, factors, strict=True)]
        self.gains = torch.stack([token_mean(one) for one in helped])
        now = self.gains.abs().mean().clamp(min=1e-12)
        self.size = now if self.size == 0 else MOMENTUM * self.size + (1 - MOMENTUM) * now
        sentence, token = (-one / self.size for one in helped)
        return sentence, token
