"""Hybrid distillation: sentence-level and token-level losses joined by a gate.

"Sentence-Level or Token-Level? A Comprehensive Study on Knowledge Distillation" (IJCAI 2024). Its
abstract fixes no formula for the gate; docs/method.md gives our reading of it.
"""

from __future__ import annotations

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
from training.distill.losses.kd import distributions_of, token_level, token_nll
from training.distill.losses.scale import LossScale, Scaled, ScaleName, smallest_nll
from training.model.transformer import Transformer


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


class HybridLoss(Loss):
    """g · L_sentence + (1 − g) · L_token.

    The sentence-level loss runs along the teacher's translation ŷ; the token-level one along
    `path`. Along ŷ one forward pass and one log-softmax serve both; otherwise the encoder still
    runs once. `scale` puts the losses on one scale first, so that g is the share of the gradient
    and a learned gate does not only run to the smaller number.
    """

    def __init__(
        self,
        gate: Gate,
        label_smoothing: float = 0.1,
        temperature: float = 1.0,
        kd_rate: float = 1.0,
        path: TargetSource = "hypothesis",
        scale: ScaleName = "gradient",
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
        self.scale = LossScale(scale)

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
        weights = self._weights(gates, hypothesis), 1 - self._weights(gates, target)
        logits = token_logits = model.logits(states).float()
        student = student_logp(logits, hypothesis.targets, top_ids if shared else None)
        sentence = token_nll(student, self.label_smoothing)
        if not shared:
            token_logits = target_logits(model, target, memory, bias)
            student = student_logp(token_logits, target.targets, top_ids)
        token = token_level(token_logits, student, target, self.temperature, self.kd_rate)
        logs = self._logs(gates, sentence, token)
        norms = self.scale.measure((sentence, token), weights, model.parameters())
        smallest = smallest_nll(self.label_smoothing, student.vocab_size)
        mean_gate = token_mean(weights[0].detach())
        scaled = self.scale(sentence, token, smallest, mean_gate, norms)
        if self.scale.kind == "gradient":
            logs["gradient_share"] = self.scale.share
        return LossOutput(joined(weights, scaled) + self.gate.penalty(gates), logs)

    def _logs(self, gates: Tensor, sentence: Tensor, token: Tensor) -> dict[str, Tensor]:
        detached = gates.detach()
        spread = detached.std(correction=0) if detached.numel() else detached.new_zeros(())
        return {
            "gate": token_mean(detached),
            "gate_spread": spread,
            "sentence_loss": token_mean(sentence.detach()),
            "token_loss": token_mean(token.detach()),
        }
