"""Objectives on a model: the properties that distillation rests on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.distill.test_kd import nll_of, topk_kl
from training.config.losses import (
    ConstantGateConfig,
    CorpusGateConfig,
    GateConfig,
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    OnPolicyObjective,
    ScheduleGateConfig,
    SelectiveBatchObjective,
    SelectiveGlobalObjective,
    SentenceGateConfig,
    SentenceInterpolatedObjective,
    SentenceObjective,
    TieObjective,
    TokenGateConfig,
    TokenObjective,
)
from training.data.batching import Batch, TargetSequence, pad_rows, target_sequence
from training.distill.losses import Loss, build_loss
from training.model.transformer import EOS, PAD, Transformer

V = 20


def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(V, 16, 2, 32, 1, 1, dropout=0.0, max_length=32)


def labelled(rows: list[list[int]], top_k: int) -> TargetSequence:
    """A target side with a random teacher's distributions."""
    side = target_sequence([np.array(row, dtype=np.int64) for row in rows])
    torch.manual_seed(9)
    logp = torch.log_softmax(2 * torch.randn(int(side.mask.sum()), V), -1)
    values, ids = logp.topk(top_k, -1)
    return TargetSequence(
        side.trg_in, side.trg_out, ids, values, (1 - values.exp().sum(1)).clamp(min=0)
    )


def batch(top_k: int = V) -> Batch:
    src = pad_rows([np.array([5, 6, 7, EOS]), np.array([8, EOS])])
    return Batch(
        torch.arange(2),
        src,
        reference=labelled([[9, 10, EOS], [11, 12, 13, EOS]], top_k),
        hypothesis=labelled([[14, EOS], [15, 16, EOS]], top_k),
        closest=labelled([[17, EOS], [15, 16, 9, EOS]], top_k),
        student=labelled([[], [18, 9, EOS]], top_k),
    )


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
    HybridObjective(gate=ConstantGateConfig(), reference_weight=0.5),
    OnPolicyObjective(),
    OnPolicyObjective(divergence="jensen-shannon", scale="none"),
    *(
        HybridObjective(
            gate=gate, path=path, scale="excess" if gate.kind == "corpus" else "gradient"
        )
        for gate, path in (
            (ConstantGateConfig(), "hypothesis"),
            (ScheduleGateConfig(), "reference"),
            (CorpusGateConfig(prior_weight=0, entropy_weight=0), "hypothesis"),
            (SentenceGateConfig(prior_weight=0, entropy_weight=0), "reference"),
            (TokenGateConfig(prior_weight=0, entropy_weight=0), "hypothesis"),
        )
    ),
]


def named(config: ObjectiveConfig) -> str:
    gate = getattr(config, "gate", None)
    return config.kind if gate is None else f"{config.kind}-{gate.kind}"


def hybrid(gate: GateConfig, **options: object) -> Loss:
    if gate.kind == "corpus":
        options.setdefault("scale", "excess")
    return build_loss(HybridObjective(gate=gate, **options), 16)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
def test_hybrid_ends_are_its_parts_to_the_last_bit(path: str) -> None:
    student, taught = model(), batch(top_k=4)
    sentence = build_loss(SentenceObjective(), 16)(student, taught).loss
    token = build_loss(TokenObjective(path=path), 16)(student, taught).loss  # type: ignore[arg-type]
    assert hybrid(ConstantGateConfig(value=1), path=path)(student, taught).loss.equal(sentence)
    assert hybrid(ConstantGateConfig(value=0), path=path)(student, taught).loss.equal(token)


def test_constant_gate_weighs_both() -> None:
    student, taught = model(), batch()
    sentence = build_loss(SentenceObjective(), 16)(student, taught).loss
    token = build_loss(TokenObjective(path="hypothesis"), 16)(student, taught).loss
    mixed = hybrid(ConstantGateConfig(value=0.3), scale="none")(student, taught).loss
    assert mixed.item() == pytest.approx(0.3 * sentence.item() + 0.7 * token.item(), rel=1e-5)


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
def test_plain_cross_entropy_may_stand_beside_the_gated_loss(path: str) -> None:
    student, taught = model(), batch()
    alone = hybrid(ConstantGateConfig(), path=path)(student, taught)
    beside = hybrid(ConstantGateConfig(), path=path, reference_weight=0.4)(student, taught)
    plain = build_loss(NllObjective(), 16)(student, taught).loss.item()
    assert beside.loss.item() == pytest.approx(alone.loss.item() + 0.4 * plain, rel=1e-5)
    assert beside.logs["reference_loss"].item() == pytest.approx(plain, rel=1e-5)
    assert "reference_loss" not in alone.logs


@pytest.mark.parametrize("config", EVERY_OBJECTIVE, ids=named)
def test_a_batch_of_padding_gives_zero_and_no_nan(config: ObjectiveConfig) -> None:
    student = model()
    rows = torch.full((2, 3), PAD)
    empty = torch.empty(0, 4)
    side = TargetSequence(rows, rows, empty.long(), empty, torch.empty(0))
    # One source token keeps attention defined; there is no target to learn.
    src = torch.tensor([[EOS, PAD], [EOS, PAD]])
    output = build_loss(config, 16)(student, Batch(torch.arange(2), src, side, side, side))
    assert output.loss.item() == 0
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_token_level_loss_mixes_nll_by_kd_rate() -> None:
    student, taught = model(), batch()
    token = build_loss(TokenObjective(), 16)(student, taught).loss.item()
    nll = build_loss(NllObjective(label_smoothing=0), 16)(student, taught).loss.item()
    mixed = build_loss(TokenObjective(kd_rate=0.25), 16)(student, taught).loss.item()
    assert mixed == pytest.approx(0.25 * token + 0.75 * nll, rel=1e-5)


@pytest.mark.parametrize("config", EVERY_OBJECTIVE, ids=named)
def test_student_gradient_by_finite_differences(config: ObjectiveConfig) -> None:
    """The whole path from a weight of the student to the loss."""
    student, taught = model(), batch(top_k=5)
    objective = build_loss(config, 16).eval()
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
    objective = build_loss(config, 16).train()
    objective.progress = 0.5
    distance = build_loss(YARDSTICKS.get(config.kind, config), 16)
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=1e-2)
    before = distance(student, taught).loss.item()
    for _ in range(12):
        optimizer.zero_grad()
        objective(student, taught).loss.backward()
        optimizer.step()
    assert distance(student, taught).loss.item() < before


def test_interpolated_is_the_nll_of_the_closest_translation() -> None:
    student, taught = model(), batch()
    found = build_loss(SentenceInterpolatedObjective(), 16)(student, taught).loss
    as_hypothesis = taught._replace(hypothesis=taught.closest)
    assert found.equal(build_loss(SentenceObjective(), 16)(student, as_hypothesis).loss)


def test_selective_is_token_for_the_chosen_words_and_nll_for_the_others() -> None:
    student, taught = model(), batch(top_k=4)
    every = SelectiveBatchObjective(share=1.0, label_smoothing=0.0, kd_rate=0.4)
    token = build_loss(TokenObjective(kd_rate=0.4), 16)(student, taught).loss
    assert build_loss(every, 16)(student, taught).loss.item() == pytest.approx(token.item())
    one = SelectiveBatchObjective(share=1 / 7, kd_rate=1.0, label_smoothing=0.0)
    output = build_loss(one, 16)(student, taught)
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
    token = build_loss(TokenObjective(), 16)(student, taught).loss
    assert build_loss(TieObjective(rank_weight=0), 16)(student, taught).loss.equal(token)


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
    own = TargetSequence(
        side.trg_in,
        side.trg_out,
        ids,
        values.gather(1, order),
        1 - values.exp().sum(1).clamp(max=1),
    )
    config = TieObjective(margin=0, rank_top_k=1)
    output = build_loss(config, 16)(student, taught._replace(reference=own))
    assert output.logs["rank_loss"].item() == 0
    assert output.loss.item() == pytest.approx(0, abs=1e-5)


def test_missing_side_and_distributions_say_what_is_missing() -> None:
    student, taught = model(), batch()
    with pytest.raises(ValueError, match="needs the hypothesis"):
        build_loss(SentenceObjective(), 16)(student, taught._replace(hypothesis=None))
    bare = target_sequence([np.array([9, EOS]), np.array([9, EOS])])
    with pytest.raises(ValueError, match="teacher's distributions"):
        build_loss(TokenObjective(), 16)(student, taught._replace(reference=bare))
