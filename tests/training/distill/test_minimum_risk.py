"""Minimum risk training: its reward, its draw and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from training.config.losses import (
    NllObjective,
    RiskObjective,
    SentenceObjective,
    needs_labels,
)
from training.data.batching import Batch, pad_rows, target_sequence
from training.distill.losses import Loss, build_loss
from training.distill.losses.minimum_risk import MinimumRiskLoss, sentence_bleu
from training.model.decoding import greedy
from training.model.transformer import EOS, PAD, Transformer

Ids = tuple[int, ...]

V = 20
REFERENCES = [[9, 10, 11, EOS], [12, 13, 14, 15, EOS]]


def model(dropout: float = 0.0) -> Transformer:
    torch.manual_seed(0)
    return Transformer(V, 16, 2, 32, 1, 1, dropout=dropout, max_length=32)


def batch(references: list[list[int]] = REFERENCES) -> Batch:
    src = pad_rows([np.array([5, 6, 7, EOS]), np.array([8, EOS])])
    sides = (target_sequence([np.array(row) for row in rows]) for rows in (references, REFERENCES))
    return Batch(torch.arange(2), src, *sides)


def objective(**options: object) -> Loss:
    return build_loss(RiskObjective(**options), 16)  # type: ignore[arg-type]


class GivenCandidates(MinimumRiskLoss):
    """Risk over candidates that a test gives."""

    candidates: list[list[Ids]]

    def _draw(self, model: Transformer, src: torch.Tensor) -> torch.Tensor:
        """As the student would: as many a sentence, here by repetition, EOS last."""
        rows = [[*some, *some, *some][: self.samples] for some in self.candidates]
        flat = pad_rows([np.array([*ids, EOS]) for some in rows for ids in some])
        return flat.view(len(rows), self.samples, -1)


def bleu_of(candidate: Ids, reference: Ids) -> float:
    rows = (torch.tensor([ids], dtype=torch.long) for ids in (candidate, reference))
    return float(sentence_bleu(*rows))


def given(
    candidates: list[list[Ids]], sharpness: float, nll_weight: float = 0.0
) -> MinimumRiskLoss:
    risk = GivenCandidates(3, 1.0, sharpness, nll_weight, "hypothesis", label_smoothing=0.1)
    risk.candidates = candidates
    return risk


@torch.no_grad()
def log_probability(student: Transformer, src: list[int], ids: Ids) -> float:
    side = target_sequence([np.array([*ids, EOS])])
    logp = student(torch.tensor([src]), side.trg_in).log_softmax(-1)
    return float(logp.gather(2, side.trg_out[:, :, None]).sum())


def test_reward_is_sacrebleus_sentence_bleu() -> None:
    metric = BLEU(tokenize="none", smooth_method="add-k", smooth_value=1, effective_order=False)
    generator = np.random.default_rng(3)
    rows = [
        [generator.integers(1, 7, generator.integers(1, 9)) for _ in range(300)] for _ in range(2)
    ]
    found = sentence_bleu(*(pad_rows(some) for some in rows))
    for score, candidate, reference in zip(found.tolist(), *rows, strict=True):
        theirs = metric.sentence_score(
            " ".join(map(str, candidate)), [" ".join(map(str, reference))]
        )
        assert 100 * score == pytest.approx(theirs.score, abs=1e-3)
    assert len({round(score, 3) for score in found.tolist()}) > 50


@pytest.mark.parametrize(
    ("candidate", "reference", "expected"),
    [((4, 5, 6), (4, 5, 6), 1), ((7, 8), (4, 5), 0), ((), (4, 5), 0), ((4,), (4,), 1)],
)
def test_reward_at_its_ends(candidate: Ids, reference: Ids, expected: float) -> None:
    assert bleu_of(candidate, reference) == pytest.approx(expected)


def test_risk_by_hand() -> None:
    student, taught = model(), batch()
    candidates: list[list[Ids]] = [[(9, 10, 11), (9, 4)], [(12, 13), (13, 12, 15), (4,)]]
    loss = given(candidates, sharpness=0.7)(student, taught).loss.item()
    expected = 0.0
    for src, some, reference in zip(
        ([5, 6, 7, EOS], [8, EOS]), candidates, REFERENCES, strict=True
    ):
        scores = torch.tensor([0.7 * log_probability(student, src, ids) for ids in some])
        cost = torch.tensor([1 - bleu_of(ids, tuple(reference[:-1])) for ids in some])
        expected += float((scores.softmax(0) * cost).sum()) / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_gradient_by_finite_differences() -> None:
    student, taught = model(), batch()
    risk = given([[(9, 10, 11), (9, 4)], [(12, 13), (13, 12, 15), (4,)]], 0.7, nll_weight=0.3)
    risk(student, taught).loss.backward()
    parameter, step = student.encoder[0].ffn.outer.bias, 1e-2
    gradient = parameter.grad[3].item()
    found = []
    for change in (step, -2 * step):
        with torch.no_grad():
            parameter[3] += change
            found.append(risk(student, taught).loss.item())
    assert gradient == pytest.approx((found[0] - found[1]) / (2 * step), rel=2e-2, abs=1e-5)


def test_all_weight_on_the_nll_is_sentence_level_distillation() -> None:
    student, taught = model(), batch()
    sentence = build_loss(SentenceObjective(), 16)(student, taught).loss
    assert objective(nll_weight=1)(student, taught).loss.equal(sentence)


def test_along_references_no_teacher_is_needed() -> None:
    config = RiskObjective(nll_weight=1, nll_path="reference", label_smoothing=0.0)
    assert not needs_labels(config)
    assert needs_labels(RiskObjective())
    loss = build_loss(config, 16)
    assert loss.paths == ("reference",)
    student, taught = model(), batch()._replace(hypothesis=None)
    nll = build_loss(NllObjective(label_smoothing=0.0), 16)(student, taught).loss
    assert loss(student, taught).loss.equal(nll)


def test_under_mixed_precision_drawing_takes_no_gradient_away() -> None:
    """What autocast keeps of the weights while drawing, without a gradient, is not learnt with."""
    found = []
    for config in (SentenceObjective(), RiskObjective(nll_weight=1)):
        student = model()
        with torch.autocast("cpu", torch.bfloat16):
            loss = build_loss(config, 16)(student, batch()).loss
        loss.backward()
        found.append({name: weight.grad for name, weight in student.named_parameters()})
    sentence, risk = found
    for name, gradient in sentence.items():
        assert gradient.abs().max() > 0
        assert torch.allclose(risk[name], gradient, rtol=1e-2, atol=1e-5), name


def test_a_candidate_cut_at_its_limit_is_learnt_from_as_if_it_ended() -> None:
    student = model()
    whole = given([[(9, 10, 11), (9, 4)], [(12, 13), (4,)]], 0.5)
    cut = given(whole.candidates, 0.5)
    drawn = whole._draw(student, batch().src)
    cut._draw = lambda *_: drawn.masked_fill(drawn == EOS, PAD)[:, :, :3]  # type: ignore[method-assign]
    assert cut(student, batch()).loss.equal(whole(student, batch()).loss)


def test_one_candidate_teaches_nothing() -> None:
    student = model()
    given([[(9, 4)], [(4,)]], 0.5)(student, batch()).loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-7 for p in student.parameters())


def test_a_sentence_without_a_reference_counts_for_nothing() -> None:
    student = model()
    candidates: list[list[Ids]] = [[(9, 4), (9, 10)], [(12, 13), (4,)]]
    both = given(candidates, 0.5)(student, batch()).loss.item()
    first = given(candidates, 0.5)(student, batch([REFERENCES[0], [EOS]])).loss.item()
    second = given(candidates, 0.5)(student, batch([[EOS], REFERENCES[1]])).loss.item()
    assert both == pytest.approx(first + second)
    neither = given(candidates, 0.5)(student, batch([[EOS], [EOS]])).loss
    assert neither.item() == 0


def test_it_draws_without_dropout_and_goes_on_with_it() -> None:
    student = model(dropout=0.9).train()
    seen = []
    for module in (student.encoder[0].dropout, student.decoder[0].dropout):
        module.register_forward_hook(lambda module, *_: seen.append(module.training))
    objective()._draw(student, batch().src)
    assert seen
    assert not any(seen)
    assert student.encoder[0].dropout.training
    student.eval()
    objective()._draw(student, batch().src)
    assert not student.training


def test_reward_turns_a_student_from_the_likelier_to_the_better() -> None:
    """A student that writes another translation more often than the reference comes to write the
    reference, by nothing but the BLEU of what it draws."""
    student, taught = model(), batch()
    rivals = target_sequence([np.array([16, 17, EOS]), np.array([18, EOS])])
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)

    def teach(loss_of: Callable[[], torch.Tensor], steps: int) -> list[list[int]]:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of().backward()
            optimizer.step()
        return [hypothesis.ids for hypothesis in greedy(student, taught.src)]

    def of_both() -> torch.Tensor:
        nll = build_loss(NllObjective(label_smoothing=0), 16)
        rival, reference = (
            nll(student, taught._replace(reference=side)).loss
            for side in (rivals, taught.reference)
        )
        return 0.7 * rival + 0.3 * reference

    assert teach(of_both, 150) == [[16, 17], [18]]
    risk = objective(nll_weight=0)
    written = teach(lambda: risk(student, taught).loss, 60)
    assert written == [row[:-1] for row in REFERENCES]


def test_what_it_logs_by_hand() -> None:
    """Mean risk, mean BLEU of the distinct candidates, the nll of the teacher's translation."""
    student, taught = model(), batch()
    candidates: list[list[Ids]] = [[(9, 10, 11), (9, 4)], [(12, 13)]]
    risk = given(candidates, 0.7, nll_weight=0.25)
    output = risk(student, taught)
    rewards = [
        bleu_of(ids, tuple(reference[:-1]))
        for some, reference in zip(candidates, REFERENCES, strict=True)
        for ids in some
    ]
    nll = build_loss(SentenceObjective(), 16)(student, taught).loss.item()
    alone = given(candidates, 0.7)(student, taught).loss.item()
    assert output.logs["reward"].item() == pytest.approx(sum(rewards) / 3)
    assert output.logs["sentence_loss"].item() == pytest.approx(nll)
    assert output.logs["risk"].item() == pytest.approx(alone)
    assert output.loss.item() == pytest.approx(0.75 * alone + 0.25 * nll)
    assert not any(log.requires_grad for log in output.logs.values())


def test_reward_of_few_words_by_hand() -> None:
    """`a b c` of `a b c d`: all n-grams there, (1 · 3/3 · 2/2 · 1/1)^¼ · e^(1 − 4/3)."""
    assert bleu_of((4, 5, 6), (4, 5, 6, 7)) == pytest.approx(np.exp(-1 / 3))
    # `a a b` of `a b`: 2 of 3 words, 2 of 3 pairs (one added), 1 of 2 triples, 1 of 1.
    assert bleu_of((4, 4, 5), (4, 5)) == pytest.approx((2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25)
    assert bleu_of((), ()) == 0
    assert bleu_of((4,), ()) == 0


def test_it_draws_as_many_as_it_is_told() -> None:
    drawn = objective(samples=7)._draw(model(), batch().src)  # type: ignore[operator]
    assert drawn.shape[:2] == (2, 7)
