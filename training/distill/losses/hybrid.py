"""Hybrid distillation: sentence-level and token-level losses joined by a gate.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024). Its
abstract fixes no formula for the gate; docs/method.md gives our reading of it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from training.data.batching import Batch, TargetSequence
from training.distill.gates import Gate, GateInput, entropy_of
from training.distill.losses.base import (
    Loss,
    LossOutput,
    TargetSource,
    student_logp,
    target_logits,
    target_of,
    target_states,
    token_mean,
)
from training.distill.losses.kd import distributions_of, token_level, token_nll
from training.model.transformer import Transformer

ScaleName = Literal["none", "running-mean", "excess"]


def sentence_of_position(target: TargetSequence) -> Tensor:
    """Row of the batch that each of the N non-pad positions belongs to: [N]."""
    return target.mask.nonzero()[:, 0]


def smallest_nll(label_smoothing: float, vocab_size: int) -> float:
    """The least that the smoothed nll can be: the entropy of its target, nats."""
    spread = label_smoothing / vocab_size
    kept = 1 - label_smoothing + spread
    rest = (vocab_size - 1) * spread * math.log(spread) if spread else 0.0
    return -(kept * math.log(kept) + rest)


class LossScale(nn.Module):
    """Puts the sentence-level [N] and the token-level loss [M] on one scale.

    `running-mean` divides each by the running mean of itself, without gradient; `excess` takes
    from the sentence-level loss the least that it can be (a KL's least is 0 already).
    """

    running: Tensor

    def __init__(self, kind: ScaleName, momentum: float = 0.99) -> None:
        super().__init__()
        self.kind = kind
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(2))

    def forward(self, sentence: Tensor, token: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
        if self.kind == "excess":
            return sentence - smallest, token
        if self.kind == "none":
            return sentence, token
        if self.training and sentence.numel() and token.numel():
            now = torch.stack([sentence.detach().mean(), token.detach().mean()]).clamp(min=1e-3)
            fresh = bool((self.running == 0).all())
            # A new tensor, not an update in place: the graph of this step keeps the old one.
            self.running = (
                now if fresh else self.momentum * self.running + (1 - self.momentum) * now
            )
        means = torch.where(self.running > 0, self.running, torch.ones_like(self.running))
        return sentence / means[0], token / means[1]


class HybridLoss(Loss):
    """g · L_sentence + (1 − g) · L_token.

    The sentence-level loss runs along the teacher's translation ŷ; the token-level one along
    `path`. Along ŷ one forward pass and one log-softmax serve both; otherwise the encoder still
    runs once. `scale` puts the losses on one scale first, since a cross-entropy holds the entropy
    of its target and a KL does not, and a learned gate would only run to the smaller number.
    """

    def __init__(
        self,
        gate: Gate,
        label_smoothing: float = 0.1,
        temperature: float = 1.0,
        kd_rate: float = 1.0,
        path: TargetSource = "hypothesis",
        scale: Literal["auto"] | ScaleName = "auto",
    ) -> None:
        super().__init__()
        if gate.per_position and path != "hypothesis":
            raise ValueError("a gate of each position needs both losses along the hypothesis")
        self.gate = gate
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.kd_rate = kd_rate
        self.path: TargetSource = path
        self.paths = ("hypothesis",) if path == "hypothesis" else ("hypothesis", path)
        self.needs_distributions = (path,)
        automatic: ScaleName = "running-mean" if gate.learned else "none"
        self.scale = LossScale(automatic if scale == "auto" else scale)

    def gates(self, memory: Tensor, src: Tensor, states: Tensor, target: TargetSequence) -> Tensor:
        """g of every sentence [B] or position [N]; `states` [N, D] and `target` along ŷ."""
        entropy = None
        if self.gate.per_position:
            _, top_logp, tail = distributions_of(target)
            entropy = entropy_of(top_logp, tail)
        inputs = GateInput(memory, src, states, entropy, self.progress)
        gates: Tensor = self.gate(inputs)
        return gates

    def _weights(self, gates: Tensor, target: TargetSequence) -> Tensor:
        """g at each position of a target sequence: [N]."""
        return gates if self.gate.per_position else gates[sentence_of_position(target)]

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        hypothesis, target = target_of(batch, "hypothesis"), target_of(batch, self.path)
        shared = self.path == "hypothesis"
        top_ids, _, _ = distributions_of(target)
        memory, bias = model.encode(batch.src)
        states = target_states(model, hypothesis, memory, bias)
        gates = self.gates(memory, batch.src, states, hypothesis)
        logits = model.logits(states).float()
        student = student_logp(logits, hypothesis.targets, top_ids if shared else None)
        sentence = token_nll(student, self.label_smoothing)
        if not shared:
            logits = target_logits(model, target, memory, bias)
            student = student_logp(logits, target.targets, top_ids)
        token = token_level(logits, student, target, self.temperature, self.kd_rate)
        logs = self._logs(gates, sentence, token)
        smallest = smallest_nll(self.label_smoothing, student.vocab_size)
        sentence, token = self.scale(sentence, token, smallest)
        loss = token_mean(self._weights(gates, hypothesis) * sentence)
        loss = loss + token_mean((1 - self._weights(gates, target)) * token)
        return LossOutput(loss + self.gate.penalty(gates), logs)

    def _logs(self, gates: Tensor, sentence: Tensor, token: Tensor) -> dict[str, Tensor]:
        detached = gates.detach()
        spread = detached.std(correction=0) if detached.numel() else detached.new_zeros(())
        return {
            "gate": token_mean(detached),
            "gate_spread": spread,
            "sentence_loss": token_mean(sentence.detach()),
            "token_loss": token_mean(token.detach()),
        }
