"""Hybrid distillation: sentence-level and token-level losses joined by a gate.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024). Its
abstract fixes no formula for the gate; docs/method.md gives our reading of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.batching import Batch, TargetSide
from training.distill.gate import Gate, gate_penalty
from training.distill.objectives.base import (
    Objective,
    ObjectiveOutput,
    PathName,
    side_of,
    target_logits,
)
from training.distill.objectives.nll import token_nll
from training.distill.objectives.token import token_level
from training.model import Transformer


def sentence_of_position(side: TargetSide) -> Tensor:
    """Row of the batch that each of the N non-pad positions belongs to: [N]."""
    return side.mask.nonzero()[:, 0]


def gated_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Σ weights · values / N; 0 for a batch of padding only."""
    return (weights * values).sum() / max(values.numel(), 1)


class Hybrid(Objective):
    """g · L_sentence + (1 − g) · L_token.

    The sentence-level loss runs along the teacher's translation ŷ; the token-level one along
    `path`. Along ŷ one forward pass serves both; otherwise the encoder still runs once. With a
    learned gate each loss is divided by its own running mean (`equalise`), since a
    cross-entropy holds the entropy of its target and a KL does not, and the gate would only run
    to the smaller number.
    """

    running: Tensor

    def __init__(
        self,
        gate: Gate,
        label_smoothing: float = 0.1,
        temperature: float = 1.0,
        kd_rate: float = 1.0,
        path: PathName = "hypothesis",
        equalise: bool = True,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.gate = gate
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.kd_rate = kd_rate
        self.path: PathName = path
        self.paths = ("hypothesis",) if path == "hypothesis" else ("hypothesis", "reference")
        self.needs_distributions = (path,)
        self.equalise = equalise and gate.learned
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(2))

    def _scales(self, sentence: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """What each loss is divided by: its running mean, updated while training."""
        if not self.equalise:
            one = torch.ones((), device=sentence.device)
            return one, one
        if self.training:
            now = torch.stack([sentence.detach().mean(), token.detach().mean()]).clamp(min=1e-3)
            fresh = bool((self.running == 0).all())
            # A new tensor, not an update in place: the graph of this step keeps the old one.
            self.running = (
                now if fresh else self.momentum * self.running + (1 - self.momentum) * now
            )
        scales = torch.where(self.running > 0, self.running, torch.ones_like(self.running))
        return scales[0], scales[1]

    def forward(self, model: Transformer, batch: Batch) -> ObjectiveOutput:
        memory, bias = model.encode(batch.src)
        gates = self.gate(memory, batch.src)
        hypothesis = side_of(batch, "hypothesis")
        logits, target = target_logits(model, hypothesis, memory, bias)
        sentence = token_nll(logits, target, self.label_smoothing)
        if self.path == "hypothesis":
            side = hypothesis
        else:
            side = side_of(batch, self.path)
            logits, target = target_logits(model, side, memory, bias)
        token = token_level(logits, target, side, self.temperature, self.kd_rate)
        sentence_scale, token_scale = self._scales(sentence, token)
        loss = gated_mean(sentence / sentence_scale, gates[sentence_of_position(hypothesis)])
        loss = loss + gated_mean(token / token_scale, 1 - gates[sentence_of_position(side)])
        logs = {
            "gate": gates.detach().mean(),
            "gate_spread": gates.detach().std(correction=0),
            "sentence_loss": sentence.detach().sum() / max(sentence.numel(), 1),
            "token_loss": token.detach().sum() / max(token.numel(), 1),
        }
        return ObjectiveOutput(loss + gate_penalty(self.gate, gates), logs)
