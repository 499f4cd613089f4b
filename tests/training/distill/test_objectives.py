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
    CorpusGate,
    GateConfig,
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    ScheduleGate,
    SelectiveBatchObjective,
    SelectiveGlobalObjective,
    SentenceGate,
    SentenceInterpolatedObjective,
    SentenceObjective,
    TieObjective,
    TokenGate,
    TokenObjective,
)
from training.distill.objectives import Objective, build_objective
from training.distill.objectives.logp import select_logp, student_logp
from training.distill.objectives.nll import token_nll
from training.distill.objectives.selective import SelectiveGlobal, hardest
from training.distill.objectives.tie import ranking
from training.distill.objectives.token import log1mexp, tempered_kl
from training.distill.objectives.token import topk_kl as kl_of_logp
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


def topk_kl(
    student_logits: torch.Tensor, ids: torch.Tensor, logp: torch.Tensor, tail: torch.Tensor
) -> torch.Tensor:
    """The divergence as an objective computes it, from the student's logits."""
    student = student_logp(student_logits, ids[:, 0], ids)
    return kl_of_logp(student, logp, tail)


def nll_of(logits: torch.Tensor, target: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    return token_nll(student_logp(logits, target), label_smoothing)


def batch(top_k: int = V) -> Batch:
    src = pad_rows([np.array([5, 6, 7, EOS]), np.array([8, EOS])])
    return Batch(
        torch.arange(2),
        src,
        reference=labelled([[9, 10, EOS], [11, 12, 13, EOS]], top_k),
        hypothesis=labelled([[14, EOS], [15, 16, EOS]], top_k),
        closest=labelled([[17, EOS], [15, 16, 9, EOS]], top_k),
    )


# --- hand-computed ---------------------------------------------------------------------------


def test_nll_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    nll = nll_of(logits, torch.tensor([0, 1]), 0.0)
    assert nll.tolist() == pytest.approx([math.log(2), math.log(10)])


def test_label_smoothing_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    expected = 0.9 * math.log(2) + 0.1 / 3 * (math.log(2) + 2 * math.log(4))
    assert nll_of(logits, torch.tensor([0]), 0.1).item() == pytest.approx(expected)


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


def test_hardest_words_by_hand() -> None:
    nll = torch.tensor([0.1, 3.0, 0.5, 3.0, 2.0])
    assert hardest(nll, 0.5).tolist() == [False, True, False, True, True]
    assert hardest(nll, 0.2).tolist() == [False, True, False, False, False]
    assert hardest(nll, 1.0).all()
    assert hardest(nll[:0], 0.5).tolist() == []


def test_queue_is_first_in_first_out() -> None:
    """Q = 4, share ½: after 1 2 3 | 9 8 the queue holds 2 3 9 8; 8 is the least of its half."""
    objective = SelectiveGlobal(queue_size=4).train()
    assert objective.select(torch.tensor([1.0, 2.0, 3.0])).tolist() == [False, True, True]
    assert objective.select(torch.tensor([9.0, 8.0])).tolist() == [True, True]
    assert sorted(objective.queue.tolist()) == [2, 3, 8, 9]
    objective.eval()
    assert objective.select(torch.tensor([7.9, 8.0])).tolist() == [False, True]
    assert int(objective.seen) == 5
    objective.train()
    objective.select(torch.arange(10.0))
    assert sorted(objective.queue.tolist()) == [6, 7, 8, 9]


def test_ranking_by_hand() -> None:
    """Top-1 at .3 against .4 and .25 with margin .1: .2 + .05; the top-1 itself is no rival."""
    loss = ranking(
        torch.tensor([0.3]),
        torch.tensor([[0.4, 0.3, 0.25, 0.01]]),
        torch.tensor([[True, False, True, True]]),
        0.1,
    )
    assert loss.item() == pytest.approx(0.2 + 0.05)


def test_selected_logp_is_torch_s() -> None:
    torch.manual_seed(4)
    logits, ids = torch.randn(5, 9), torch.randint(9, (5, 3))
    ids[:, 2] = ids[:, 0]
    plain = torch.log_softmax(logits, -1)
    selected, mean = select_logp(logits, ids)
    torch.testing.assert_close(selected, plain.gather(1, ids))
    torch.testing.assert_close(mean, plain.mean(1))


def test_gradient_of_selected_logp_by_finite_differences() -> None:
    torch.manual_seed(5)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 0, 3], [1, 2, 3], [5, 5, 5], [4, 0, 4]])
    assert torch.autograd.gradcheck(lambda x: select_logp(x, ids), (logits,))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_nll_and_its_gradient_are_torch_s(label_smoothing: float) -> None:
    torch.manual_seed(6)
    target = torch.randint(9, (5,))
    mine, theirs = (torch.randn(5, 9).requires_grad_() for _ in range(2))
    with torch.no_grad():
        theirs.copy_(mine)
    nll_of(mine, target, label_smoothing).sum().backward()
    cross_entropy = torch.nn.functional.cross_entropy
    cross_entropy(theirs, target, reduction="sum", label_smoothing=label_smoothing).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


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


EVERY_OBJECTIVE: list[ObjectiveConfig] = [
    NllObjective(),
    SentenceObjective(),
    SentenceInterpolatedObjective(),
    TokenObjective(),
    TokenObjective(path="closest", kd_rate=0.5),
    SelectiveBatchObjective(),
    SelectiveGlobalObjective(queue_size=50),
    TieObjective(),
    *(
        HybridObjective(gate=gate, path=path)
        for gate, path in (
            (ConstantGate(), "hypothesis"),
            (ScheduleGate(), "reference"),
            (CorpusGate(prior_weight=0, entropy_weight=0), "hypothesis"),
            (SentenceGate(prior_weight=0, entropy_weight=0), "reference"),
            (TokenGate(prior_weight=0, entropy_weight=0), "hypothesis"),
        )
    ),
]


def named(config: ObjectiveConfig) -> str:
    gate = getattr(config, "gate", None)
    return config.kind if gate is None else f"{config.kind}-{gate.kind}"


def hybrid(gate: GateConfig, **options: object) -> Objective:
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


@pytest.mark.parametrize("config", EVERY_OBJECTIVE, ids=named)
def test_a_batch_of_padding_gives_zero_and_no_nan(config: ObjectiveConfig) -> None:
    student = model()
    rows = torch.full((2, 3), PAD)
    empty = torch.empty(0, 4)
    side = TargetSide(rows, rows, empty.long(), empty, torch.empty(0))
    # One source token keeps attention defined; there is no target to learn.
    src = torch.tensor([[EOS, PAD], [EOS, PAD]])
    output = build_objective(config, 16)(student, Batch(torch.arange(2), src, side, side, side))
    assert output.loss.item() == 0
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_token_level_loss_mixes_nll_by_kd_rate() -> None:
    student, taught = model(), batch()
    token = build_objective(TokenObjective(), 16)(student, taught).loss.item()
    nll = build_objective(NllObjective(label_smoothing=0), 16)(student, taught).loss.item()
    mixed = build_objective(TokenObjective(kd_rate=0.25), 16)(student, taught).loss.item()
    assert mixed == pytest.approx(0.25 * token + 0.75 * nll, rel=1e-5)


@pytest.mark.parametrize("config", EVERY_OBJECTIVE, ids=named)
def test_student_gradient_by_finite_differences(config: ObjectiveConfig) -> None:
    """The whole path from a weight of the student to the loss."""
    student, taught = model(), batch(top_k=5)
    objective = build_objective(config, 16).eval()
    objective(student, taught).loss.backward()
    parameter, index, step = student.encoder[0].ffn.outer.bias, 3, 1e-2
    assert parameter.grad is not None
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[index] += sign * step
            values.append(objective(student, taught).loss.item())
            parameter[index] -= sign * step
    slope = (values[0] - values[1]) / (2 * step)
    assert parameter.grad[index].item() == pytest.approx(slope, abs=1e-3)


YARDSTICKS: dict[str, ObjectiveConfig] = {
    "selective-batch": NllObjective(),
    "selective-global": NllObjective(),
    "tie": TokenObjective(),
    "hybrid": SentenceObjective(),
}


@pytest.mark.parametrize("config", EVERY_OBJECTIVE, ids=named)
def test_every_objective_teaches(config: ObjectiveConfig) -> None:
    """A dozen steps bring the student nearer to what it is taught along."""
    student, taught = model(), batch(top_k=5)
    objective = build_objective(config, 16).train()
    objective.progress = 0.5
    distance = build_objective(YARDSTICKS.get(config.kind, config), 16)
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=1e-2)
    before = distance(student, taught).loss.item()
    for _ in range(12):
        optimizer.zero_grad()
        objective(student, taught).loss.backward()
        optimizer.step()
    assert distance(student, taught).loss.item() < before


def test_interpolated_is_the_nll_of_the_closest_translation() -> None:
    student, taught = model(), batch()
    found = build_objective(SentenceInterpolatedObjective(), 16)(student, taught).loss
    as_hypothesis = taught._replace(hypothesis=taught.closest)
    assert found.equal(build_objective(SentenceObjective(), 16)(student, as_hypothesis).loss)


def test_selective_is_token_for_the_chosen_words_and_nll_for_the_others() -> None:
    student, taught = model(), batch(top_k=4)
    every = SelectiveBatchObjective(share=1.0, label_smoothing=0.0, kd_rate=0.4)
    token = build_objective(TokenObjective(kd_rate=0.4), 16)(student, taught).loss
    assert build_objective(every, 16)(student, taught).loss.item() == pytest.approx(token.item())
    one = SelectiveBatchObjective(share=1 / 7, kd_rate=1.0, label_smoothing=0.0)
    output = build_objective(one, 16)(student, taught)
    assert output.logs["selected"].item() == pytest.approx(1 / 7)
    side = taught.reference
    assert side is not None
    assert side.top_ids is not None
    assert side.top_logp is not None
    assert side.tail is not None
    with torch.no_grad():
        logits = student(taught.src, side.trg_in)[side.mask]
        nll = nll_of(logits, side.targets, 0.0)
        kl = topk_kl(logits, side.top_ids, side.top_logp, side.tail)
    hard = int(nll.argmax())
    expected = (nll.sum() - nll[hard] + kl[hard]) / 7
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_tie_without_weight_is_token() -> None:
    student, taught = model(), batch(top_k=4)
    token = build_objective(TokenObjective(), 16)(student, taught).loss
    assert build_objective(TieObjective(rank_weight=0), 16)(student, taught).loss.equal(token)


@pytest.mark.parametrize("top_k", [4, V])
def test_tie_has_no_ranking_loss_where_the_student_leads_as_the_teacher_does(top_k: int) -> None:
    """With margin 0 and one rival, none stands above the teacher's top-1 but itself."""
    student, taught = model(), batch(top_k)
    side = taught.reference
    assert side is not None
    with torch.no_grad():
        logits = student(taught.src, side.trg_in)[side.mask]
    values, ids = torch.log_softmax(logits, -1).topk(top_k, -1)
    ids, order = ids.sort(dim=1)
    own = TargetSide(
        side.trg_in,
        side.trg_out,
        ids,
        values.gather(1, order),
        1 - values.exp().sum(1).clamp(max=1),
    )
    config = TieObjective(margin=0, rank_top_k=1)
    output = build_objective(config, 16)(student, taught._replace(reference=own))
    assert output.logs["rank_loss"].item() == 0
    assert output.loss.item() == pytest.approx(0, abs=1e-5)


def test_missing_side_and_distributions_say_what_is_missing() -> None:
    student, taught = model(), batch()
    with pytest.raises(ValueError, match="needs the hypothesis"):
        build_objective(SentenceObjective(), 16)(student, taught._replace(hypothesis=None))
    bare = target_side([np.array([9, EOS]), np.array([9, EOS])])
    with pytest.raises(ValueError, match="teacher's distributions"):
        build_objective(TokenObjective(), 16)(student, taught._replace(reference=bare))
