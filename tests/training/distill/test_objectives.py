"""Objectives: hand-computed values and the properties that distillation rests on."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from training.batching import Batch, TargetSide, pad_rows, target_side
from training.distill.config import (
    ConstantGate,
    HybridObjective,
    NllObjective,
    SentenceGate,
    SentenceObjective,
    TokenObjective,
)
from training.distill.objectives import Objective, build_objective
from training.distill.objectives.nll import token_nll
from training.distill.objectives.token import log1mexp, tempered_kl, topk_kl
from training.model import EOS, PAD, Transformer

V = 20


def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(V, 16, 2, 32, 1, 1, dropout=0.0, max_length=32)


def labelled(rows: list[list[int]], top_k: int) -> TargetSide:
    """A target side with a random teacher's distributions."""
    side = target_side([np.array(row) for row in rows])
    torch.manual_seed(9)
    logp = torch.log_softmax(2 * torch.randn(int(side.mask.sum()), V), -1)
    values, ids = logp.topk(top_k, -1)
    return TargetSide(
        side.trg_in, side.trg_out, ids, values, (1 - values.exp().sum(1)).clamp(min=0)
    )


def batch(top_k: int = V) -> Batch:
    src = pad_rows([np.array([5, 6, 7, EOS]), np.array([8, EOS])])
    return Batch(
        torch.arange(2),
        src,
        reference=labelled([[9, 10, EOS], [11, 12, 13, EOS]], top_k),
        hypothesis=labelled([[14, EOS], [15, 16, EOS]], top_k),
    )


# --- hand-computed ---------------------------------------------------------------------------


def test_nll_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    nll = token_nll(logits, torch.tensor([0, 1]), 0.0)
    assert nll.tolist() == pytest.approx([math.log(2), math.log(10)])


def test_label_smoothing_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    expected = 0.9 * math.log(2) + 0.1 / 3 * (math.log(2) + 2 * math.log(4))
    assert token_nll(logits, torch.tensor([0]), 0.1).item() == pytest.approx(expected)


def test_topk_kl_by_hand() -> None:
    """Teacher (.5 .25 .125 .125), student (.25 .25 .25 .25), k = 2: the tail is one outcome."""
    teacher = torch.tensor([[0.5, 0.25]])
    kl = topk_kl(torch.zeros(1, 4), torch.tensor([[0, 1]]), teacher.log(), torch.tensor([0.25]))
    expected = 0.5 * math.log(0.5 / 0.25) + 0.25 * math.log(1) + 0.25 * math.log(0.25 / 0.5)
    assert kl.item() == pytest.approx(expected, abs=1e-6)


def test_temperature_by_hand() -> None:
    """τ = 2 on teacher logits (2 ln 3, 0): its distribution becomes (3/4, 1/4)."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    kl = tempered_kl(torch.zeros(1, 2), torch.tensor([[0, 1]]), teacher, 2.0)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl.item() == pytest.approx(expected, rel=1e-5)


def test_log1mexp_is_exact_and_finite() -> None:
    x = torch.tensor([-1e-3, -0.5, -1.0, -20.0])
    expected = [math.log(1 - math.exp(v)) for v in x.tolist()]
    assert log1mexp(x).tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(log1mexp(torch.zeros(1))).all()


# --- properties of the divergence ------------------------------------------------------------


def full(count: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.log_softmax(2 * torch.randn(count, width, generator=generator), -1)
    return teacher, 2 * torch.randn(count, width, generator=generator)


def cut(teacher: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logp, ids = teacher.topk(k, -1)
    return ids, logp, (1 - logp.exp().sum(1)).clamp(min=0)


def test_kl_of_a_distribution_with_itself_is_zero() -> None:
    teacher, _ = full(6, 30)
    for k in (1, 5, 30):
        assert topk_kl(teacher, *cut(teacher, k)).abs().max() < 1e-5


def test_whole_vocabulary_is_the_exact_kl() -> None:
    teacher, student = full(6, 30)
    exact = (teacher.exp() * (teacher - torch.log_softmax(student, -1))).sum(1)
    torch.testing.assert_close(topk_kl(student, *cut(teacher, 30)), exact, atol=1e-5, rtol=0)


def test_smaller_k_is_a_lower_bound_that_rises() -> None:
    teacher, student = full(50, 30)
    values = [topk_kl(student, *cut(teacher, k)) for k in (1, 2, 4, 8, 16, 30)]
    for smaller, larger in pairwise(values):
        assert (smaller <= larger + 1e-5).all()
        assert (smaller >= -1e-6).all()


def test_gradient_of_the_kl_by_finite_differences() -> None:
    teacher, student = full(3, 7)
    ids, logp, tail = cut(teacher.double(), 3)
    student = student.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: topk_kl(s, ids, logp, tail).sum(), (student,))


# --- objectives on a model -------------------------------------------------------------------


def hybrid(gate: ConstantGate | SentenceGate, **options: object) -> Objective:
    return build_objective(HybridObjective(gate=gate, **options), 16)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
def test_hybrid_ends_are_its_parts_to_the_last_bit(path: str) -> None:
    student, taught = model(), batch(top_k=4)
    sentence = build_objective(SentenceObjective(), 16)(student, taught).loss
    token = build_objective(TokenObjective(path=path), 16)(student, taught).loss  # type: ignore[arg-type]
    assert hybrid(ConstantGate(value=1), path=path)(student, taught).loss.equal(sentence)
    assert hybrid(ConstantGate(value=0), path=path)(student, taught).loss.equal(token)


def test_constant_gate_weighs_both() -> None:
    student, taught = model(), batch()
    sentence = build_objective(SentenceObjective(), 16)(student, taught).loss
    token = build_objective(TokenObjective(path="hypothesis"), 16)(student, taught).loss
    mixed = hybrid(ConstantGate(value=0.3))(student, taught).loss
    assert mixed.item() == pytest.approx(0.3 * sentence.item() + 0.7 * token.item(), rel=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        NllObjective(),
        SentenceObjective(),
        TokenObjective(),
        HybridObjective(gate=ConstantGate()),
        HybridObjective(gate=SentenceGate(prior_weight=0, entropy_weight=0), path="reference"),
    ],
    ids=["nll", "sentence", "token", "hybrid-constant", "hybrid-sentence"],
)
def test_a_batch_of_padding_gives_zero_and_no_nan(config: NllObjective) -> None:
    student = model()
    rows = torch.full((2, 3), PAD)
    empty = torch.empty(0, 4)
    side = TargetSide(rows, rows, empty.long(), empty, torch.empty(0))
    # One source token keeps attention defined; there is no target to learn.
    src = torch.tensor([[EOS, PAD], [EOS, PAD]])
    output = build_objective(config, 16)(student, Batch(torch.arange(2), src, side, side))
    assert output.loss.item() == 0
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_token_level_loss_mixes_nll_by_kd_rate() -> None:
    student, taught = model(), batch()
    token = build_objective(TokenObjective(), 16)(student, taught).loss.item()
    nll = build_objective(NllObjective(label_smoothing=0), 16)(student, taught).loss.item()
    mixed = build_objective(TokenObjective(kd_rate=0.25), 16)(student, taught).loss.item()
    assert mixed == pytest.approx(0.25 * token + 0.75 * nll, rel=1e-5)


def test_student_gradient_by_finite_differences() -> None:
    """The whole path from the output bias to the hybrid loss, in float64 steps."""
    student, taught = model(), batch(top_k=5)
    objective = hybrid(ConstantGate(value=0.4))
    objective(student, taught).loss.backward()
    assert student.output_bias.grad is not None
    index, step = 15, 1e-2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            student.output_bias[index] += sign * step
            values.append(objective(student, taught).loss.item())
            student.output_bias[index] -= sign * step
    slope = (values[0] - values[1]) / (2 * step)
    assert student.output_bias.grad[index].item() == pytest.approx(slope, abs=1e-3)


def test_missing_side_and_distributions_say_what_is_missing() -> None:
    student, taught = model(), batch()
    with pytest.raises(ValueError, match="needs the hypothesis"):
        build_objective(SentenceObjective(), 16)(student, taught._replace(hypothesis=None))
    bare = target_side([np.array([9, EOS]), np.array([9, EOS])])
    with pytest.raises(ValueError, match="teacher's distributions"):
        build_objective(TokenObjective(), 16)(student, taught._replace(reference=bare))
