"""Losses at a position: hand-computed values and the properties of the divergence."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from training.distill.losses.base import select_logp, student_logp
from training.distill.losses.kd import tempered_kl, token_nll
from training.distill.losses.kd import topk_kl as kl_of_logp
from training.distill.losses.selective_kd import SelectiveGlobalKDLoss, hardest, ranking


def topk_kl(
    student_logits: torch.Tensor, ids: torch.Tensor, logp: torch.Tensor, tail: torch.Tensor
) -> torch.Tensor:
    """The divergence as an objective computes it, from the student's logits."""
    student = student_logp(student_logits, ids[:, 0], ids)
    return kl_of_logp(student, logp, tail)


def nll_of(logits: torch.Tensor, target: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    return token_nll(student_logp(logits, target), label_smoothing)


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


def test_hardest_words_by_hand() -> None:
    nll = torch.tensor([0.1, 3.0, 0.5, 3.0, 2.0])
    assert hardest(nll, 0.5).tolist() == [False, True, False, True, True]
    assert hardest(nll, 0.2).tolist() == [False, True, False, False, False]
    assert hardest(nll, 1.0).all()
    assert hardest(nll[:0], 0.5).tolist() == []


def test_queue_is_first_in_first_out() -> None:
    """Q = 4, share ½: after 1 2 3 | 9 8 the queue holds 2 3 9 8; 8 is the least of its half."""
    objective = SelectiveGlobalKDLoss(queue_size=4).train()
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
    selected, mean, _ = select_logp(logits, ids)
    torch.testing.assert_close(selected, plain.gather(1, ids))
    torch.testing.assert_close(mean, plain.mean(1))


def test_gradient_of_selected_logp_by_finite_differences() -> None:
    torch.manual_seed(5)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 0, 3], [1, 2, 3], [5, 5, 5], [4, 0, 4]])
    assert torch.autograd.gradcheck(lambda x: select_logp(x, ids), (logits,))
    ids = torch.tensor([[0, 0, 3], [1, 2, 3], [5, 5, 1], [4, 0, 4]])
    assert torch.autograd.gradcheck(lambda x: select_logp(x, ids, (1, 3)), (logits,))


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


@pytest.mark.parametrize("lead", [2.0, 12.0, 17.0, 30.0, 80.0])
def test_the_tail_of_a_sure_student_keeps_its_digits(lead: float) -> None:
    """Held to float64 where the student leaves the tail 0.3 to 1e-35 of its probability: 1 − Σ in
    float32 has no digit left from 1e-7 on."""
    torch.manual_seed(7)
    ids = torch.tensor([[0, 1], [2, 5]])
    logits = torch.randn(2, 40)
    logits.scatter_add_(1, ids, torch.full((2, 2), lead))
    logp, tail = torch.tensor([[0.6, 0.3], [0.5, 0.1]]).log(), torch.tensor([0.1, 0.4])
    student = logits.clone().requires_grad_()
    kl = topk_kl(student, ids, logp, tail)
    kl.sum().backward()
    exact = logits.double().requires_grad_()
    everything = exact.log_softmax(1)
    others = torch.ones_like(exact).scatter(1, ids, 0).log() + everything
    expected = (logp.double().exp() * (logp.double() - everything.gather(1, ids))).sum(1)
    expected = expected + tail.double() * (tail.double().log() - others.logsumexp(1))
    expected.sum().backward()
    assert student.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(kl.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(student.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


def test_a_tail_below_what_float32_holds_costs_a_finite_price() -> None:
    logits = torch.tensor([[300.0, 0.0, 0.0]]).requires_grad_()
    kl = topk_kl(logits, torch.tensor([[0]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]))
    kl.sum().backward()
    assert 20 < kl.item() < 100
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
