"""Gates: what share of the loss is sentence-level, and what share token-level.

g = σ(z) in [0, 1] weighs the sentence-level loss. Trained on the plain losses a gate only runs to
whichever is smaller (dL/dg = L_sentence − L_token), so a learned gate is bounded, drawn to a prior
mean and paid for its entropy, and never sends a gradient into the encoder that it reads.
Shapes: B batch, S source length, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.distill.config import ConstantGate, GateConfig, SentenceGate
from training.model import PAD


class Gate(nn.Module):
    """Encoder states [B, S, D] and source ids [B, S] → g [B]."""

    learned = False
    prior_mean = 0.5
    prior_weight = 0.0
    entropy_weight = 0.0

    def forward(self, memory: Tensor, src: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define forward")


class Constant(Gate):
    """The same g for every sentence."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, memory: Tensor, src: Tensor) -> Tensor:
        return torch.full((src.shape[0],), self.value, device=src.device)


class LinearSentence(Gate):
    """g = floor + (1 − 2 floor) · σ(w · mean of the sentence's encoder states + b)."""

    learned = True

    def __init__(self, width: int, config: SentenceGate) -> None:
        super().__init__()
        self.floor = config.floor
        self.prior_mean = config.prior_mean
        self.prior_weight = config.prior_weight
        self.entropy_weight = config.entropy_weight
        self.linear = nn.Linear(width, 1)
        share = (config.initial - config.floor) / (1 - 2 * config.floor)
        share = min(max(share, 1e-3), 1 - 1e-3)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, math.log(share / (1 - share)))

    def forward(self, memory: Tensor, src: Tensor) -> Tensor:
        mask = (src != PAD).unsqueeze(-1)
        states = memory.detach().float()
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        z = nn.functional.linear(mean, self.linear.weight.float(), self.linear.bias.float())
        return self.floor + (1 - 2 * self.floor) * torch.sigmoid(z[:, 0])


def build_gate(config: GateConfig, width: int) -> Gate:
    """The gate a recipe asks for, reading states of the given width."""
    match config:
        case ConstantGate():
            return Constant(config.value)
        case SentenceGate():
            return LinearSentence(width, config)
    raise ValueError(f"no gate is registered for {config!r}")


def binary_entropy(g: Tensor) -> Tensor:
    """Entropy of a choice with probability g, nats, elementwise."""
    return -(torch.xlogy(g, g) + torch.xlogy(1 - g, 1 - g))


def gate_penalty(gate: Gate, gates: Tensor) -> Tensor:
    """Pull of the batch mean of g [B] towards its prior, less the entropy bonus; a scalar."""
    if not gate.learned:
        return gates.new_zeros(())
    mean, prior = gates.mean(), gate.prior_mean
    pull = torch.xlogy(mean, mean / prior) + torch.xlogy(1 - mean, (1 - mean) / (1 - prior))
    return gate.prior_weight * pull - gate.entropy_weight * binary_entropy(gates).mean()
