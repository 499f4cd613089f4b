"""Gates: bounds, gradients, scales and the pull to the prior."""

from __future__ import annotations

import math

import pytest
import torch

from tests.training.distill.test_losses import batch, hybrid, model
from training.config.losses import (
    ConstantGateConfig,
    CorpusGateConfig,
    ScheduleGateConfig,
    SentenceGateConfig,
    TokenGateConfig,
)
from training.distill.gates import (
    Gate,
    GateInput,
    SentenceGate,
    binary_entropy,
    build_gate,
    entropy_of,
)
from training.distill.losses.hybrid import HybridLoss
from training.distill.losses.scale import smallest_nll
from training.model.transformer import EOS, PAD

LEARNED = [CorpusGateConfig, SentenceGateConfig, TokenGateConfig]


def inputs(
    memory: torch.Tensor, src: torch.Tensor, positions: int = 5, progress: float = 0.0
) -> GateInput:
    """What a gate reads, with some decoder states [N, D] and entropies [N] of the teacher."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(positions, memory.shape[-1], generator=generator)
    return GateInput(memory, src, states, torch.rand(positions, generator=generator), progress)


def test_constant_gate_is_its_value() -> None:
    gate = build_gate(ConstantGateConfig(value=0.3), 8)
    g = gate(inputs(torch.randn(4, 2, 8), torch.ones(4, 2)))
    assert g.tolist() == pytest.approx([0.3] * 4)


@pytest.mark.parametrize(
    ("progress", "expected"), [(-0.5, 0.9), (0.0, 0.9), (0.25, 0.7), (1.0, 0.1), (1.5, 0.1)]
)
def test_schedule_is_a_straight_line_over_the_run(progress: float, expected: float) -> None:
    gate = build_gate(ScheduleGateConfig(start=0.9, end=0.1), 8)
    g = gate(inputs(torch.randn(3, 2, 8), torch.ones(3, 2), progress=progress))
    assert g.tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_gate_starts_at_its_initial_value(kind: type[SentenceGateConfig]) -> None:
    gate = build_gate(kind(initial=0.7, floor=0.05), 8)
    g = gate(inputs(torch.randn(4, 2, 8), torch.ones(4, 2)))
    assert g.tolist() == pytest.approx([0.7] * (5 if gate.per_position else 4), abs=1e-5)


@pytest.mark.parametrize("initial", [0.2, 0.8])
def test_a_gate_that_starts_at_a_bound_can_still_leave_it(initial: float) -> None:
    """At floor 0.2, a thousandth of the 0.6 between the bounds away from it."""
    gate = build_gate(CorpusGateConfig(initial=initial, floor=0.2), 8)
    g = gate(inputs(torch.randn(1, 2, 8), torch.ones(1, 2))).item()
    assert abs(g - initial) == pytest.approx(0.6e-3, rel=1e-2)


def test_a_gate_reads_a_run_that_has_not_begun() -> None:
    read = GateInput(torch.randn(2, 2, 8), torch.ones(2, 2), torch.empty(0, 8))
    assert (read.progress, read.entropy) == (0, None)
    assert build_gate(ScheduleGateConfig(start=0.9, end=0.1), 8)(read).tolist() == pytest.approx(
        [0.9] * 2
    )
    assert build_gate(ConstantGateConfig(), 8).penalty(torch.tensor([0.2])).item() == 0
    with pytest.raises(TypeError, match="Gate does not define forward"):
        Gate()(read)


@pytest.mark.parametrize(("kind", "width"), [(SentenceGateConfig, 8), (TokenGateConfig, 9)])
def test_a_linear_gate_has_a_weight_for_each_thing_it_reads(
    kind: type[SentenceGateConfig], width: int
) -> None:
    gate = build_gate(kind(), 8)
    assert gate.learned
    assert gate.per_position == (kind is TokenGateConfig)
    assert [tuple(one.shape) for one in gate.parameters()] == [(1, width), (1,)]


def test_corpus_gate_is_one_number() -> None:
    gate = build_gate(CorpusGateConfig(floor=0.1), 8)
    with torch.no_grad():
        gate.bias.fill_(math.log(3))
    g = gate(inputs(torch.randn(3, 2, 8), torch.ones(3, 2)))
    assert g.tolist() == pytest.approx([0.1 + 0.8 * 0.75] * 3)


def test_token_gate_by_hand() -> None:
    """z = 2 · state + 3 · entropy."""
    gate = build_gate(TokenGateConfig(floor=0.0), 1)
    with torch.no_grad():
        gate.linear.weight.copy_(torch.tensor([[2.0, 3.0]]))
        gate.linear.bias.zero_()
    read = GateInput(
        torch.randn(1, 2, 1), torch.ones(1, 2), torch.tensor([[0.5], [-1.0]]), torch.tensor([1, 0])
    )
    expected = [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(2))]
    assert gate(read).tolist() == pytest.approx(expected)


def test_token_gate_without_distributions_says_so() -> None:
    gate = build_gate(TokenGateConfig(), 8)
    read = inputs(torch.randn(1, 2, 8), torch.ones(1, 2))._replace(entropy=None)
    with pytest.raises(ValueError, match="teacher's distributions"):
        gate(read)


def test_entropy_of_the_teacher_by_hand() -> None:
    """(.5 .25) and a tail of .25: ½ ln 2 + ½ ln 4."""
    entropy = entropy_of(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([0.25]))
    assert entropy.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_sentence_gate_reads_the_mean_of_real_positions() -> None:
    gate = SentenceGate(1, SentenceGateConfig(floor=0.0))
    with torch.no_grad():
        gate.linear.weight.fill_(1.0)
        gate.linear.bias.zero_()
    memory = torch.tensor([[[1.0], [3.0], [100.0]]])
    g = gate(inputs(memory, torch.tensor([[7, EOS, PAD]])))
    assert g.item() == pytest.approx(1 / (1 + math.exp(-2)))
    g = gate(inputs(memory[:, 1:], torch.tensor([[EOS, PAD]])))
    assert g.item() == pytest.approx(1 / (1 + math.exp(-3)))
    g = gate(inputs(memory[:, 2:], torch.tensor([[PAD]])))
    assert g.item() == pytest.approx(0.5)


def test_gate_stays_within_its_bounds() -> None:
    gate = SentenceGate(1, SentenceGateConfig(floor=0.1))
    with torch.no_grad():
        gate.linear.weight.fill_(1000.0)
    g = gate(inputs(torch.tensor([[[1.0]], [[-1.0]]]), torch.tensor([[5], [5]])))
    assert g.tolist() == pytest.approx([0.9, 0.1])


def test_entropy_and_pull_by_hand() -> None:
    assert binary_entropy(torch.tensor([0.5, 0.0, 1.0])).tolist() == pytest.approx(
        [math.log(2), 0, 0]
    )
    config = SentenceGateConfig(prior_mean=0.5, prior_weight=2.0, entropy_weight=0.0)
    penalty = SentenceGate(4, config).penalty(torch.tensor([0.75, 0.75]))
    expected = 2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def test_entropy_is_a_bonus_and_the_pull_a_cost() -> None:
    """g of ½ has the most entropy, ln 2; a mean of ¼ is pulled to ¾ by ½ ln 3."""
    undecided = torch.tensor([0.5, 0.5])
    config = SentenceGateConfig(prior_mean=0.5, prior_weight=3.0, entropy_weight=2.0)
    assert SentenceGate(4, config).penalty(undecided).item() == pytest.approx(-2 * math.log(2))
    config = SentenceGateConfig(prior_mean=0.75, prior_weight=1.0, entropy_weight=0.0)
    pull = SentenceGate(4, config).penalty(torch.tensor([0.0, 0.5]))
    assert pull.item() == pytest.approx(0.5 * math.log(3), rel=1e-5)
    assert SentenceGate(4, config).penalty(torch.empty(0)).item() == 0
    both = SentenceGateConfig(prior_mean=0.75, prior_weight=1.0, entropy_weight=2.0)
    penalty = SentenceGate(4, both).penalty(torch.tensor([0.0, 0.5]))
    assert penalty.item() == pytest.approx(0.5 * math.log(3) - 2 * math.log(2) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", LEARNED)
def test_gate_gradient_reaches_neither_encoder_nor_decoder(kind: type[SentenceGateConfig]) -> None:
    """Of the penalty and of every gate's own output; the student's losses are not in it."""
    student, taught = model(), batch()
    objective = hybrid(kind())
    assert isinstance(objective, HybridLoss)
    side = taught.hypothesis
    assert side is not None
    memory, bias = student.encode(taught.src)
    states = student.decode(side.trg_in, memory, bias)[side.mask]
    gates = objective.gates(memory, taught.src, states, side)
    (gates.sum() + objective.gate.penalty(gates)).backward()
    assert all(p.grad is None for p in student.parameters())
    assert all(p.grad is not None for p in objective.gate.parameters())


@pytest.mark.parametrize("kind", LEARNED)
def test_student_gradient_is_that_of_fixed_weights(kind: type[SentenceGateConfig]) -> None:
    """A learned gate moves the student exactly as a constant one of the same value does."""
    learned, fixed = model(), model()
    gated = hybrid(kind(initial=0.6), scale="none")
    gated(learned, batch()).loss.backward()
    hybrid(ConstantGateConfig(value=0.6), scale="none")(fixed, batch()).loss.backward()
    for (name, one), two in zip(learned.named_parameters(), fixed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_losses_are_put_on_one_scale() -> None:
    """With each loss divided by its own running mean the first gated loss is about 1."""
    config = SentenceGateConfig(prior_weight=0, entropy_weight=0)
    objective = hybrid(config, scale="running-mean").train()
    output = objective(model(), batch())
    assert isinstance(objective, HybridLoss)
    assert output.loss.item() == pytest.approx(1.0, abs=1e-4)
    assert output.logs["sentence_loss"].item() == pytest.approx(objective.scale.running[0].item())
    assert output.logs["token_loss"].item() == pytest.approx(objective.scale.running[1].item())


def test_excess_takes_away_the_least_that_the_nll_can_be() -> None:
    """ε = 0.1 over 4 words: the target is (.925 .025 .025 .025), and its entropy is the least."""
    expected = -(0.925 * math.log(0.925) + 3 * 0.025 * math.log(0.025))
    assert smallest_nll(0.1, 4) == pytest.approx(expected)
    assert smallest_nll(0.0, 4) == 0
    plain, excess = (
        hybrid(SentenceGateConfig(initial=0.5, prior_weight=0, entropy_weight=0), scale=scale)
        for scale in ("none", "excess")
    )
    found = [objective(model(), batch()).loss.item() for objective in (plain, excess)]
    assert found[0] - found[1] == pytest.approx(0.5 * smallest_nll(0.1, 20), rel=1e-4)


def test_schedule_follows_the_progress_that_the_loop_sets() -> None:
    student, taught = model(), batch()
    objective = hybrid(ScheduleGateConfig(start=1.0, end=0.0))
    for progress, value in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        objective.progress = progress
        fixed = hybrid(ConstantGateConfig(value=value))(student, taught).loss
        assert objective(student, taught).loss.item() == pytest.approx(fixed.item(), rel=1e-6)


def test_prior_keeps_a_learned_gate_from_collapsing() -> None:
    """Trained alone on losses of very different size, the gate runs to the smaller; pulled, not."""
    ends = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        gate = SentenceGate(
            4, SentenceGateConfig(prior_weight=weight, entropy_weight=0, floor=0.01)
        )
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        memory, src = torch.randn(16, 3, 4), torch.ones(16, 3)
        for _ in range(300):
            optimizer.zero_grad()
            g = gate(inputs(memory, src))
            (g * 1.5 + (1 - g) * 0.5).mean().add(gate.penalty(g)).backward()
            optimizer.step()
        ends[weight] = gate(inputs(memory, src)).mean().item()
    assert ends[0.0] < 0.05
    assert 0.25 < ends[3.0] < 0.5
