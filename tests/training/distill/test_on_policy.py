"""The loss along the student's own words: both divergences by hand, and what it needs."""

from __future__ import annotations

import math

import pytest
import torch

from tests.training.distill.test_losses import V, batch, labelled, model
from training.config.losses import OnPolicyObjective, SentenceObjective
from training.distill.losses import build_loss
from training.distill.losses.base import StudentLogp, student_logp, token_mean
from training.distill.losses.kd import topk_kl
from training.distill.losses.on_policy import OnPolicyLoss, jensen_shannon
from training.model.transformer import EOS


def given(top: list[float], vocab_size: int) -> StudentLogp:
    """A student that gives the teacher's top words so much probability."""
    mass = torch.tensor([top])
    rest = (1 - mass.sum(1)).clamp(min=1e-30).log()
    nothing = torch.zeros(1)
    return StudentLogp(nothing, mass.log(), mass[:, :0], nothing, rest, vocab_size)


def by_hand(teacher: list[float], student: list[float]) -> float:
    pairs = [(t, s, (t + s) / 2) for t, s in zip(teacher, student, strict=True)]
    theirs = sum(t * math.log(t / m) for t, _, m in pairs if t)
    mine = sum(s * math.log(s / m) for _, s, m in pairs if s)
    return (theirs + mine) / 2


def test_jensen_shannon_by_hand() -> None:
    teacher, tail = torch.tensor([[0.6, 0.3]]).log(), torch.tensor([0.1])
    found = jensen_shannon(given([0.2, 0.1], 9), teacher, tail)
    assert found.item() == pytest.approx(by_hand([0.6, 0.3, 0.1], [0.2, 0.1, 0.7]), rel=1e-5)
    same = jensen_shannon(given([0.6, 0.3], 9), teacher, tail)
    assert same.item() == pytest.approx(0, abs=1e-6)
    swapped = jensen_shannon(given([0.6, 0.3], 9), torch.tensor([[0.2, 0.1]]).log(), 7 * tail)
    assert swapped.item() == pytest.approx(found.item(), rel=1e-5), "it is symmetric"


def test_jensen_shannon_is_bounded_and_needs_no_tail() -> None:
    sure, nothing = torch.tensor([[1.0, 1e-30]]).log(), torch.zeros(1)
    other = jensen_shannon(given([1e-30, 1.0], 2), sure, nothing)
    assert other.item() == pytest.approx(math.log(2), rel=1e-5)
    with_tail = jensen_shannon(given([1e-30, 1.0], 9), sure, nothing)
    assert with_tail.item() == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("divergence", ["kl", "jensen-shannon"])
def test_it_mixes_both_losses_by_weight(divergence: str) -> None:
    """Rows that the student did not translate are taught along the teacher's translation alone."""
    student, taught = model(), batch(5)
    loss = build_loss(
        OnPolicyObjective(weight=0.3, divergence=divergence, scale="none"),
        16,
    )
    sentence = build_loss(SentenceObjective(), 16)(student, taught).loss
    written = labelled([[18, 9, EOS]], 5)
    memory, bias = student.encode(taught.src[1:])
    logits = student.logits(student.decode(written.trg_in, memory, bias)[written.mask])
    assert written.top_logp is not None
    assert written.tail is not None
    read = student_logp(logits, written.targets, written.top_ids)
    measure = topk_kl if divergence == "kl" else jensen_shannon
    own = token_mean(measure(read, written.top_logp, written.tail))
    output = loss(student, taught)
    assert output.loss.item() == pytest.approx((0.7 * sentence + 0.3 * own).item(), rel=1e-5)
    assert output.logs["own_loss"].item() == pytest.approx(own.item(), rel=1e-5)


def test_before_the_first_round_it_is_sentence_level() -> None:
    student = model()
    expected = build_loss(SentenceObjective(), 16)(student, batch()).loss
    for none in (None, labelled([[], []], V)):
        output = OnPolicyLoss(weight=0.9)(student, batch()._replace(student=none))
        assert torch.equal(output.loss, expected)
        assert set(output.logs) == {"sentence_loss"}


def test_weight_is_the_share_of_the_gradient() -> None:
    student, taught = model(), batch()
    loss = OnPolicyLoss(weight=0.8)
    loss(student, taught)
    assert loss.scale.share.item() == pytest.approx(0.2, abs=1e-4)


def test_rounds_are_spread_over_the_rest_of_the_run() -> None:
    config = OnPolicyObjective(rounds=3, first_round=0.4)
    assert [config.begins(number) for number in (1, 2, 3)] == pytest.approx([0.4, 0.6, 0.8])
