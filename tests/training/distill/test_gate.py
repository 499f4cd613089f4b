"""Gates: bounds, gradients, scales and the pull to the prior."""

from __future__ import annotations

import math

import pytest
import torch

from tests.training.distill.test_objectives import batch, hybrid, model
from training.distill.config import ConstantGate, SentenceGate
from training.distill.gate import LinearSentence, binary_entropy, build_gate, gate_penalty
from training.distill.objectives.hybrid import Hybrid
from training.model import EOS, PAD


def test_constant_gate_is_its_value() -> None:
    gate = build_gate(ConstantGate(value=0.3), 8)
    assert gate(torch.randn(4, 2, 8), torch.ones(4, 2)).tolist() == pytest.approx([0.3] * 4)


def test_sentence_gate_starts_at_its_initial_value() -> None:
    gate = build_gate(SentenceGate(initial=0.7, floor=0.05), 8)
    g = gate(torch.randn(4, 2, 8), torch.ones(4, 2))
    assert g.tolist() == pytest.approx([0.7] * 4, abs=1e-5)


def test_sentence_gate_reads_the_mean_of_real_positions() -> None:
    gate = LinearSentence(1, SentenceGate(floor=0.0))
    with torch.no_grad():
        gate.linear.weight.fill_(1.0)
        gate.linear.bias.zero_()
    memory = torch.tensor([[[1.0], [3.0], [100.0]]])
    g = gate(memory, torch.tensor([[7, EOS, PAD]]))
    assert g.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_gate_stays_within_its_bounds() -> None:
    gate = LinearSentence(1, SentenceGate(floor=0.1))
    with torch.no_grad():
        gate.linear.weight.fill_(1000.0)
    g = gate(torch.tensor([[[1.0]], [[-1.0]]]), torch.tensor([[5], [5]]))
    assert g.tolist() == pytest.approx([0.9, 0.1])


def test_entropy_and_pull_by_hand() -> None:
    assert binary_entropy(torch.tensor([0.5, 0.0, 1.0])).tolist() == pytest.approx(
        [math.log(2), 0, 0]
    )
    config = SentenceGate(prior_mean=0.5, prior_weight=2.0, entropy_weight=0.0)
    penalty = gate_penalty(LinearSentence(4, config), torch.tensor([0.75, 0.75]))
    expected = 2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_gate_gradient_reaches_neither_encoder_nor_decoder() -> None:
    student = model()
    gate = build_gate(SentenceGate(), 16)
    memory, _ = student.encode(torch.tensor([[5, 6, EOS]]))
    gate(memory, torch.tensor([[5, 6, EOS]])).sum().backward()
    assert all(p.grad is None for p in student.parameters())
    assert all(p.grad is not None for p in gate.parameters())


def test_student_gradient_is_that_of_fixed_weights() -> None:
    """A learned gate moves the student exactly as a constant one of the same value does."""
    learned, fixed = model(), model()
    gated = hybrid(SentenceGate(initial=0.6), equalise=False)
    gated(learned, batch()).loss.backward()
    hybrid(ConstantGate(value=0.6))(fixed, batch()).loss.backward()
    for (name, one), two in zip(learned.named_parameters(), fixed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_losses_are_put_on_one_scale() -> None:
    """With each loss divided by its own running mean the first gated loss is about 1."""
    objective = hybrid(SentenceGate(prior_weight=0, entropy_weight=0)).train()
    output = objective(model(), batch())
    assert isinstance(objective, Hybrid)
    assert output.loss.item() == pytest.approx(1.0, abs=1e-4)
    assert output.logs["sentence_loss"].item() == pytest.approx(objective.running[0].item())
    assert output.logs["token_loss"].item() == pytest.approx(objective.running[1].item())


def test_prior_keeps_a_learned_gate_from_collapsing() -> None:
    """Trained alone on losses of very different size, the gate runs to the smaller; pulled, not."""
    ends = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        gate = LinearSentence(4, SentenceGate(prior_weight=weight, entropy_weight=0, floor=0.01))
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        memory, src = torch.randn(16, 3, 4), torch.ones(16, 3)
        for _ in range(300):
            optimizer.zero_grad()
            g = gate(memory, src)
            (g * 1.5 + (1 - g) * 0.5).mean().add(gate_penalty(gate, g)).backward()
            optimizer.step()
        ends[weight] = gate(memory, src).mean().item()
    assert ends[0.0] < 0.05
    assert 0.25 < ends[3.0] < 0.5
