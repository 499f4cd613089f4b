"""Hybrid distillation: sentence-level and token-level losses joined by a gate.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024). Its
abstract fixes no formula for the gate; docs/method.md gives our reading of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.config.losses import TargetSource
from training.data.batching import Batch, TargetSequence
from training.distill.gates import Gate, GateInput, entropy_of
from training.distill.losses.base import (
    Loss,
    LossOutput,
    student_logp,
    target_logits,
    target_of,
    target_states,
    token_mean,
)
from training.distill.losses.held_out import HeldOutSignal
from training.distill.losses.kd import distributions_of, token_level, token_nll
from training.distill.losses.scale import LossScale, Scaled, ScaleName, smallest_nll
from training.model.transformer import Transformer

SIGNALS = ("sentence_signal", "token_signal")


def sentence_of_position(target: TargetSequence) -> Tensor:
    """Row of the batch that each of the N non-pad positions belongs to: [N]."""
    return target.mask.nonzero()[:, 0]


def joined(weights: tuple[Tensor, Tensor], scaled: Scaled) -> Tensor:
    """Σ of both losses by their weights [N] and [M]: the student learns by the scaled losses, a
    gate by their signals, whose value is left out."""
    loss = scaled.sentence.new_zeros(())
    parts = (scaled.sentence, scaled.sentence_signal), (scaled.token, scaled.token_signal)
    for weight, (taught, signal) in zip(weights, parts, strict=True):
        fixed = weight.detach()
        loss = loss + token_mean(fixed * taught) + token_mean((weight - fixed) * signal)
    return loss


class HybridParts(NamedTuple):
    """The losses of a batch, and what a gate reads beside them."""

    memory: Tensor
    """Student's encoder states, [B, S, D]."""
    states: Tensor
    """Student's decoder states along ŷ, [N, D]."""
    sentence: Tensor
    """[N]."""
    token: Tensor
    """[M]."""
    plain: Tensor | None
    """nll of the reference, [R], where it has a weight."""
    vocab_size: int


class HybridLoss(Loss):
    """g · L_sentence + (1 − g) · L_token.

    The sentence-level loss runs along the teacher's translation ŷ; the token-level one along
    `path`. Along ŷ one forward pass and one log-softmax serve both; otherwise the encoder still
    runs once. `scale` puts the losses on one scale first, so that g is the share of the gradient
    and a learned gate does not only run to the smaller number; one with `held_out` learns by what
    either loss does for held-out text. `reference_weight` adds the nll of the reference.
    """

    def __init__(
        self,
        gate: Gate,
        label_smoothing: float = 0.1,
        temperature: float = 1.0,
        kd_rate: float = 1.0,
        path: TargetSource = "hypothesis",
        scale: ScaleName = "gradient",
        reference_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if gate.per_position and path != "hypothesis":
            raise ValueError("a gate of each position needs both losses along the hypothesis")
        self.gate = gate
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.kd_rate = kd_rate
        self.path: TargetSource = path
        self.reference_weight = reference_weight
        extra: tuple[TargetSource, ...] = ("reference",) if reference_weight else ()
        self.paths = tuple(dict.fromkeys(("hypothesis", path, *extra)))
        self.needs_distributions = (path,)
        self.scale = LossScale(scale)
        self.needs_held_out = gate.held_out
        self.signal = HeldOutSignal() if gate.held_out else None

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

    def parts(self, model: Transformer, batch: Batch) -> HybridParts:
        """Both losses of a batch, unscaled."""
        hypothesis, target = target_of(batch, "hypothesis"), target_of(batch, self.path)
        shared = self.path == "hypothesis"
        top_ids, _, _ = distributions_of(target)
        memory, bias = model.encode(batch.src)
        states = target_states(model, hypothesis, memory, bias)
        logits = token_logits = model.logits(states).float()
        student = student_logp(logits, hypothesis.targets, top_ids if shared else None)
        sentence = token_nll(student, self.label_smoothing)
        if not shared:
            token_logits = target_logits(model, target, memory, bias)
            student = student_logp(token_logits, target.targets, top_ids)
        token = token_level(token_logits, student, target, self.temperature, self.kd_rate)
        plain = None
        if self.reference_weight:
            if self.path != "reference":
                reference = target_of(batch, "reference")
                along = target_logits(model, reference, memory, bias)
                student = student_logp(along, reference.targets)
            plain = token_nll(student, self.label_smoothing)
        return HybridParts(memory, states, sentence, token, plain, student.vocab_size)

    def forward(self, model: Transformer, batch: Batch) -> LossOutput:
        hypothesis, target = target_of(batch, "hypothesis"), target_of(batch, self.path)
        parts = self.parts(model, batch)
        gates = self.gates(parts.memory, batch.src, parts.states, hypothesis)
        weights = self._weights(gates, hypothesis), 1 - self._weights(gates, target)
        logs = self._logs(gates, parts)
        losses = parts.sentence, parts.token
        norms = self.scale.measure(losses, weights, model.parameters())
        smallest = smallest_nll(self.label_smoothing, parts.vocab_size)
        scaled = self.scale(*losses, smallest, token_mean(weights[0].detach()), norms)
        if self.scale.kind == "gradient":
            logs["gradient_share"] = self.scale.share
        penalty = self.gate.penalty(gates)
        if self.signal is not None and self.training and torch.is_grad_enabled():
            scaled, learns = self._from_held_out(self.signal, model, batch, scaled)
            penalty = penalty if learns else 0 * penalty
            logs |= zip(("sentence_gain", "token_gain"), self.signal.gains, strict=True)
        loss = joined(weights, scaled) + penalty
        if parts.plain is not None:
            loss = loss + self.reference_weight * token_mean(parts.plain)
        return LossOutput(loss, logs)

    def _from_held_out(
        self, signal: HeldOutSignal, model: Transformer, batch: Batch, scaled: Scaled
    ) -> tuple[Scaled, bool]:
        """What the gate learns by, in place of the batch's own losses; whether it does."""
        if self.held_out is None:
            raise ValueError("a gate that learns from held-out text was given none")
        if not signal.asks() or not len(scaled.sentence) or not len(scaled.token):
            nothing = map(torch.zeros_like, (scaled.sentence_signal, scaled.token_signal))
            return scaled._replace(**dict(zip(SIGNALS, nothing, strict=True))), False

        def losses() -> tuple[Tensor, Tensor]:
            parts = self.parts(model, batch)
            return parts.sentence, parts.token

        found = signal(model, self.held_out(signal.number), losses, scaled.factors)
        return scaled._replace(**dict(zip(SIGNALS, found, strict=True))), True

    def _logs(self, gates: Tensor, parts: HybridParts) -> dict[str, Tensor]:
        detached = gates.detach()
        spread = detached.std(correction=0) if detached.numel() else detached.new_zeros(())
        logs = {
            "gate": token_mean(detached),
            "gate_spread": spread,
            "sentence_loss": token_mean(parts.sentence.detach()),
            "token_loss": token_mean(parts.token.detach()),
        }
        if parts.plain is not None:
            logs["reference_loss"] = token_mean(parts.plain.detach())
        return logs
