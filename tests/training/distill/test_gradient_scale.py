"""g is the sentence-level share of the gradient of the student's weights: measured while a small
student learns from a small teacher, with and without label smoothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from training.config.losses import (
    ConstantGateConfig,
    CorpusGateConfig,
    GateConfig,
    HybridObjective,
    ScheduleGateConfig,
    SentenceGateConfig,
    TokenGateConfig,
)
from training.data.batching import Batch, TargetSequence, pad_rows, target_from_outputs
from training.distill.losses import build_loss
from training.distill.losses.base import token_mean
from training.distill.losses.hybrid import HybridLoss
from training.distill.losses.scale import LossScale, Scaled
from training.distill.teachers.base import top_k_of
from training.model.decoding import sample
from training.model.transformer import EOS, Transformer
from training.trainer import DistillationModule

V = 60
STEPS = 100


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    """Random sources, each with two translations by a random teacher that is rather sure: one as
    hypothesis, one as reference, and its eight likeliest words along both."""
    teacher = make_teacher()
    generator = np.random.default_rng(5)
    made = []
    for _ in range(3):
        rows = [
            np.append(generator.integers(4, V, generator.integers(3, 9)), EOS) for _ in range(24)
        ]
        src = pad_rows(rows)
        drawn, _ = sample(teacher, src, 2, 0.7)
        made.append(
            Batch(
                torch.arange(len(rows)),
                src,
                reference=labelled(teacher, src, drawn[:, 0].clone()),
                hypothesis=labelled(teacher, src, drawn[:, 1].clone()),
            )
        )
    return made


def make_teacher() -> Transformer:
    torch.manual_seed(3)
    teacher = Transformer(V, 16, 2, 32, 1, 1, dropout=0.0, max_length=40).eval()
    with torch.no_grad():
        teacher.embedding.weight.mul_(3)
        teacher.output_bias[EOS] = 2.0
    return teacher


def make_student() -> Transformer:
    """The teacher, disturbed: near it, a KL is small and a cross-entropy still its entropy."""
    student = make_teacher()
    with torch.no_grad():
        for weights in student.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return student


@torch.no_grad()
def labelled(teacher: Transformer, src: torch.Tensor, trg_out: torch.Tensor) -> TargetSequence:
    target = target_from_outputs(trg_out)
    memory, bias = teacher.encode(src)
    logits = teacher.logits(teacher.decode(target.trg_in, memory, bias)[target.mask])
    ids, logp, tail = top_k_of(logits.log_softmax(1), 8)
    return target._replace(top_ids=ids, top_logp=logp, tail=tail)


class Shares:
    """A scale that keeps what it scaled, so that the gradients of both losses can be told apart."""

    def __init__(self, objective: HybridLoss) -> None:
        self.scale, self.scaled = objective.scale, None
        objective.scale.register_forward_hook(self._keep)

    def _keep(self, _: Any, __: Any, scaled: Scaled) -> None:
        self.scaled = scaled

    def of_parameters(self, student: Transformer, gate: float) -> float:
        """The sentence-level share of the norm of the weights' gradient."""
        assert self.scaled is not None
        parts = gate * token_mean(self.scaled.sentence), (1 - gate) * token_mean(self.scaled.token)
        sizes = [norm_of(part, student) for part in parts]
        return sizes[0] / sum(sizes)


def norm_of(loss: torch.Tensor, student: Transformer) -> float:
    gradients = torch.autograd.grad(
        loss, list(student.parameters()), retain_graph=True, allow_unused=True
    )
    return sum(float(one.square().sum()) for one in gradients if one is not None) ** 0.5


def shares(
    batches: list[Batch], steps: int, gate: float, **options: Any
) -> tuple[list[float], list[float]]:
    """Train a student at a constant g; → the share of its weights' gradient, measured, and the one
    that the run logs, after every fifth step of the second half."""
    student = make_student().train()
    config = HybridObjective(gate=ConstantGateConfig(value=gate), **options)
    objective = build_loss(config, 16).train()
    assert isinstance(objective, HybridLoss)
    watch = Shares(objective)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    measured, logged = [], []
    for step in range(steps):
        output = objective(student, batches[step % len(batches)])
        if step >= steps // 2 and step % 5 == 0:
            measured.append(watch.of_parameters(student, gate))
            logged.append(float(output.logs.get("gradient_share", 0.0)))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    return measured, logged


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_g_is_the_share_of_the_gradient(
    batches: list[Batch], path: str, label_smoothing: float
) -> None:
    measured, logged = shares(batches, STEPS, 0.5, path=path, label_smoothing=label_smoothing)
    assert np.mean(measured) == pytest.approx(0.5, abs=0.08)
    assert np.mean(logged) == pytest.approx(0.5, abs=0.08)


def test_another_g_is_its_own_share(batches: list[Batch]) -> None:
    measured, logged = shares(batches, STEPS, 0.2)
    assert np.mean(measured) == pytest.approx(0.2, abs=0.08)
    assert np.mean(logged) == pytest.approx(0.2, abs=0.08)


def test_over_running_means_it_is_not(batches: list[Batch]) -> None:
    """What the scale is for: at g = ½ most of the gradient is token-level."""
    measured, _ = shares(batches, STEPS, 0.5, scale="running-mean")
    assert np.mean(measured) < 0.38


@pytest.mark.parametrize(
    "gate", [ScheduleGateConfig(start=0.0, end=1.0), SentenceGateConfig(), TokenGateConfig()]
)
def test_every_gate_says_which_share_it_reached(batches: list[Batch], gate: GateConfig) -> None:
    student, objective = make_student().train(), build_loss(HybridObjective(gate=gate), 16).train()
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=3e-3)
    logged = []
    for step in range(40):
        objective.progress = step / 39
        output = objective(student, batches[step % len(batches)])
        logged.append((output.logs["gate"].item(), float(output.logs["gradient_share"])))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    wanted, reached = np.array(logged[::4]).T
    assert np.mean(reached) == pytest.approx(np.mean(wanted), abs=0.1)
    if gate.kind == "schedule":
        assert reached[0] == 0
        assert reached[-1] > 0.8


def test_a_corpus_gate_learns_nothing_where_losses_are_held_to_their_own_means() -> None:
    """What is compared with its own mean is above it as often as below: there is nothing that one
    g for all could learn, so a recipe that asks for it is refused."""
    with pytest.raises(ValidationError, match=r"corpus learns nothing .*scale: excess"):
        HybridObjective(gate=CorpusGateConfig())
    preferred = {}
    for kind in ("excess", "running-mean", "gradient"):
        torch.manual_seed(2)
        scale = LossScale(kind).train()  # type: ignore[arg-type]
        signals = []
        for _ in range(500):
            scaled = scale(2 + 2 * torch.rand(50), torch.rand(50), 1.0)
            signals.append((scaled.sentence_signal.mean() - scaled.token_signal.mean()).item())
        preferred[kind] = abs(np.mean(signals[100:]))
    assert preferred["excess"] == pytest.approx(1.5, abs=0.05)
    assert preferred["running-mean"] < 0.02
    assert preferred["gradient"] < 0.02


def test_a_sampled_softmax_is_measured_too(batches: list[Batch]) -> None:
    """The weights of the narrowed model are the student's own, and no gradient is left in them."""
    student = make_student().train()
    objective = build_loss(HybridObjective(gate=ConstantGateConfig(value=0.3)), 16).train()
    assert isinstance(objective, HybridLoss)
    module = DistillationModule(student, objective, sampled=8)
    output = module(batches[0])
    assert all(weights.grad is None for weights in student.parameters())
    assert output.logs["gradient_share"].item() == pytest.approx(0.3, abs=1e-5)
    assert objective.scale.norms.min() > 0
    output.loss.backward()
    assert student.embedding.weight.grad is not None
