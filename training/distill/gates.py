"""Gates: what share of the loss is sentence-level, and what share token-level.

g = σ(z) in [0, 1] weighs the sentence-level loss. Trained on the plain losses a gate only runs to
whichever is smaller (dL/dg = L_sentence − L_token), so a learned gate is bounded, drawn to a prior
mean and paid for its entropy, and never sends a gradient into the states that it reads.
Shapes: B batch, S source length, N target positions, D width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.config.losses import (
    ConstantGateConfig,
    CorpusGateConfig,
    GateConfig,
    LearnedGateConfig,
    ScheduleGateConfig,
    SentenceGateConfig,
    TokenGateConfig,
)
from training.model.transformer import PAD


class GateInput(NamedTuple):
    """What a gate may read."""

    memory: Tensor
    """Student's encoder states, [B, S, D]."""
    src: Tensor
    """Source ids, [B, S]."""
    states: Tensor
    """Student's decoder states along the teacher's translation, [N, D]."""
    entropy: Tensor | None = None
    """Of the teacher's distribution at those positions, nats, the tail one outcome, [N]."""
    progress: float = 0.0
    """Share of the run that is done, 0 to 1."""


class Gate(nn.Module):
    """Reads the student and says g: one a sentence [B], or one a position [N]."""

    learned = False
    per_position = False
    held_out = False
    """Whether it learns from held-out text, not from the losses of its batch."""

    def forward(self, inputs: GateInput) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define forward")

    def penalty(self, gates: Tensor) -> Tensor:
        """What is added to the loss for these g, a scalar in nats; 0 for a gate that is given."""
        return gates.new_zeros(())


class ConstantGate(Gate):
    """The same g for every sentence."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs: GateInput) -> Tensor:
        return torch.full((len(inputs.src),), self.value, device=inputs.src.device)


class ScheduledGate(Gate):
    """g moves from `start` to `end` in a straight line over the run."""

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, inputs: GateInput) -> Tensor:
        progress = min(max(inputs.progress, 0.0), 1.0)
        value = self.start + (self.end - self.start) * progress
        return torch.full((len(inputs.src),), value, device=inputs.src.device)


class LearnedGate(Gate):
    """g = floor + (1 − 2 floor) · σ(z), where z starts the same everywhere, at g = `initial`."""

    learned = True

    def __init__(self, config: LearnedGateConfig) -> None:
        super().__init__()
        self.held_out = config.learns_from == "held-out"
        self.floor = config.floor
        self.prior_mean = config.prior_mean
        self.prior_weight = config.prior_weight
        self.entropy_weight = config.entropy_weight
        share = (config.initial - config.floor) / (1 - 2 * config.floor)
        share = min(max(share, 1e-3), 1 - 1e-3)
        self.start = math.log(share / (1 - share))

    def bounded(self, z: Tensor) -> Tensor:
        """z → g, elementwise."""
        return self.floor + (1 - 2 * self.floor) * torch.sigmoid(z)

    def penalty(self, gates: Tensor) -> Tensor:
        """Pull of the mean of g towards its prior, less the entropy bonus."""
        if not gates.numel():
            return gates.new_zeros(())
        mean, prior = gates.mean(), self.prior_mean
        pull = torch.xlogy(mean, mean / prior) + torch.xlogy(1 - mean, (1 - mean) / (1 - prior))
        return self.prior_weight * pull - self.entropy_weight * binary_entropy(gates).mean()


class CorpusGate(LearnedGate):
    """One learned g for the whole corpus."""

    def __init__(self, config: CorpusGateConfig) -> None:
        super().__init__(config)
        self.bias = nn.Parameter(torch.tensor(self.start))

    def forward(self, inputs: GateInput) -> Tensor:
        return self.bounded(self.bias).expand(len(inputs.src))


class LinearGate(LearnedGate):
    """z is linear in what the gate reads; its weights start at zero."""

    def __init__(self, inputs: int, config: LearnedGateConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(inputs, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, self.start)

    def weigh(self, features: Tensor) -> Tensor:
        """Features [rows, inputs], of which no gradient is taken → g [rows]."""
        weight, bias = self.linear.weight.float(), self.linear.bias.float()
        return self.bounded(nn.functional.linear(features.detach().float(), weight, bias)[:, 0])


class SentenceGate(LinearGate):
    """Linear in the mean of the sentence's encoder states."""

    def __init__(self, width: int, config: SentenceGateConfig) -> None:
        super().__init__(width, config)

    def forward(self, inputs: GateInput) -> Tensor:
        mask = (inputs.src != PAD).unsqueeze(-1)
        states = inputs.memory.detach().float()
        return self.weigh((states * mask).sum(1) / mask.sum(1).clamp(min=1))


class TokenGate(LinearGate):
    """Linear in the decoder's state and the teacher's entropy at each position."""

    per_position = True

    def __init__(self, width: int, config: TokenGateConfig) -> None:
        super().__init__(width + 1, config)

    def forward(self, inputs: GateInput) -> Tensor:
        if inputs.entropy is None:
            raise ValueError("a gate of kind token needs the teacher's distributions")
        entropy = inputs.entropy[:, None].float()
        return self.weigh(torch.cat([inputs.states.detach().float(), entropy], dim=1))


def build_gate(config: GateConfig, width: int) -> Gate:
    """The gate a recipe asks for, reading states of the given width."""
    match config:
        case ConstantGateConfig():
            return ConstantGate(config.value)
        case ScheduleGateConfig():
            return ScheduledGate(config.start, config.end)
        case CorpusGateConfig():
            return CorpusGate(config)
        case SentenceGateConfig():
            return SentenceGate(width, config)
        case TokenGateConfig():
            return TokenGate(width, config)
    raise ValueError(f"no gate is registered for {config!r}")


def binary_entropy(g: Tensor) -> Tensor:
    """Entropy of a choice with probability g, nats, elementwise."""
    return -(torch.xlogy(g, g) + torch.xlogy(1 - g, 1 - g))


def entropy_of(top_logp: Tensor, tail: Tensor) -> Tensor:
    """Entropy of the teacher at each position, nats, the tail one outcome: [N, K], [N] → [N]."""
    return -(top_logp.exp() * top_logp).sum(1) - torch.xlogy(tail, tail)
