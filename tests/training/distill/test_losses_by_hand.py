"""Objectives part by part: their defaults, scales, choices and logs, against values by hand."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.distill.test_losses import V, batch, hybrid, labelled, model
from training.config.losses import (
    ConstantGateConfig,
    GateConfig,
    HybridObjective,
    NllObjective,
    OnPolicyObjective,
    SelectiveBatchObjective,
    SelectiveGlobalObjective,
    SentenceGateConfig,
    SentenceInterpolatedObjective,
    SentenceNBestObjective,
    SentenceObjective,
    TieObjective,
    TokenGateConfig,
    TokenObjective,
)
from training.data.batching import Batch, target_sequence
from training.distill.gates import build_gate
from training.distill.losses import Loss, build_loss
from training.distill.losses.base import StudentLogp, student_logp, target_of, token_mean
from training.distill.losses.hybrid import HybridLoss, sentence_of_position
from training.distill.losses.kd import (
    CrossEntropyLoss,
    InterpolatedSentenceKDLoss,
    NBestSentenceKDLoss,
    SentenceKDLoss,
    TokenKDLoss,
    tempered_kl,
    token_level,
    token_nll,
    topk_kl,
)
from training.distill.losses.on_policy import OnPolicyLoss
from training.distill.losses.scale import LossScale, gradient_norm
from training.distill.losses.selective_kd import (
    SelectiveBatchKDLoss,
    SelectiveGlobalKDLoss,
    TieKDLoss,
)
from training.model.transformer import EOS
from training.stage import fingerprint_of


@pytest.mark.parametrize(
    ("objective", "config"),
    [
        (CrossEntropyLoss, NllObjective),
        (SentenceKDLoss, SentenceObjective),
        (InterpolatedSentenceKDLoss, SentenceInterpolatedObjective),
        (NBestSentenceKDLoss, SentenceNBestObjective),
        (TokenKDLoss, TokenObjective),
        (SelectiveBatchKDLoss, SelectiveBatchObjective),
        (SelectiveGlobalKDLoss, SelectiveGlobalObjective),
        (TieKDLoss, TieObjective),
        (HybridLoss, HybridObjective),
        (OnPolicyLoss, OnPolicyObjective),
    ],
)
def test_an_objective_has_the_defaults_of_its_recipe(objective: type, config: Any) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(objective).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    assert defaults
    assert {name: getattr(config(), name) for name in defaults} == defaults


# --- what all share --------------------------------------------------------------------------


def test_the_mean_of_tokens() -> None:
    assert token_mean(torch.tensor([1.0, 2.0, 6.0])).item() == 3
    assert token_mean(torch.tensor([5.0])).item() == 5
    assert token_mean(torch.empty(0)).item() == 0


def test_a_run_begins_with_nothing_done() -> None:
    assert build_loss(NllObjective(), 16).progress == 0
    assert Loss().paths == ("reference",)
    with pytest.raises(TypeError, match="Loss does not define forward"):
        Loss()(model(), batch())


def test_a_side_is_that_of_its_path() -> None:
    taught = batch()
    for path in ("reference", "hypothesis", "closest"):
        assert target_of(taught, path) is getattr(taught, path)


def test_what_is_read_of_the_student() -> None:
    """Probabilities (.5 .25 .125 .125): of its own word, of the teacher's two, of one more."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    ids = [torch.tensor([row]) for row in ([1], [0, 3], [2])]
    read = student_logp(logits, ids[0][0], ids[1], ids[2])
    half = math.log(0.5)
    assert read.target.tolist() == pytest.approx([2 * half])
    assert read.top[0].tolist() == pytest.approx([half, 3 * half])
    assert read.extra[0].tolist() == pytest.approx([3 * half])
    assert read.mean.tolist() == pytest.approx([9 * half / 4])
    assert read.rest.tolist() == pytest.approx([math.log(0.375)])
    assert read.vocab_size == 4
    bare = student_logp(logits, ids[0][0])
    assert (bare.top.shape, bare.extra.shape) == ((1, 0), (1, 0))
    more = student_logp(logits, ids[0][0], extra_ids=ids[2])
    assert (more.top.shape, more.extra.shape) == ((1, 0), (1, 1))


# --- token-level -----------------------------------------------------------------------------


def given(target: float, top: list[float], mean: float, vocab_size: int = 4) -> StudentLogp:
    left = max(1 - sum(map(math.exp, top)), 1e-30)
    return StudentLogp(
        torch.tensor([target]),
        torch.tensor([top]),
        torch.empty(1, 0),
        torch.tensor([mean]),
        torch.tensor([math.log(left)]),
        vocab_size,
    )


def test_token_level_mixes_the_kl_with_a_smoothed_nll() -> None:
    """KL of (.5 | tail .5) from (.25 | .75): ½ ln 2 + ½ ln ⅔; nll .9 · 2 + .1 · 3."""
    side = target_sequence([np.array([EOS])])._replace(
        top_ids=torch.tensor([[0]]),
        top_logp=torch.tensor([[0.5]]).log(),
        tail=torch.tensor([0.5]),
    )
    student = given(-2.0, [math.log(0.25)], -3.0)
    kl = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    nll = 0.9 * 2 + 0.1 * 3
    assert token_nll(student, 0.1).item() == pytest.approx(nll)
    logits = torch.zeros(1, 4)
    for kd_rate, smoothing, expected in (
        (1.0, 0.1, kl),
        (0.25, 0.1, 0.25 * kl + 0.75 * nll),
        (0.0, 0.1, nll),
        (0.5, 0.0, 0.5 * kl + 0.5 * 2),
    ):
        found = token_level(logits, student, side, 1.0, kd_rate, smoothing)
        assert found.item() == pytest.approx(expected, abs=1e-6)
    without = token_level(logits, student, side, 1.0, 0.5)
    assert without.item() == pytest.approx(0.5 * kl + 0.5 * 2, abs=1e-6)


def test_without_smoothing_words_that_cannot_be_cost_nothing() -> None:
    assert token_nll(given(-2.0, [], -math.inf), 0.0).item() == 2


def test_the_whole_vocabulary_has_no_tail() -> None:
    """What a store of float16 rounds off is no outcome of its own."""
    student = given(-1.0, [math.log(0.25)] * 2, -1.0, vocab_size=2)
    kl = topk_kl(student, torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0.001]))
    assert kl.item() == pytest.approx(math.log(2))


def test_a_temperature_needs_the_whole_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"labels\.top_k 0"):
        tempered_kl(torch.zeros(1, 4), torch.tensor([[0, 1, 2]]), torch.zeros(1, 3), 2.0)


def test_temperature_by_hand_for_three_words() -> None:
    """τ = 3 on teacher logits (3 ln 2, 0, 0): (½ ¼ ¼), against a uniform student."""
    teacher = torch.tensor([[3 * math.log(2), 0.0, 0.0]])
    kl = tempered_kl(torch.zeros(1, 3), torch.tensor([[0, 1, 2]]), teacher, 3.0)
    expected = 9 * (math.log(3) - 1.5 * math.log(2))
    assert kl.item() == pytest.approx(expected, rel=1e-5)


# --- hybrid ----------------------------------------------------------------------------------


def test_running_means_by_hand() -> None:
    """Means (2, 4), then (4, 8) at a momentum of ¾: (2.5, 5); not while evaluating."""
    scale = LossScale("running-mean", momentum=0.75).train()
    first = scale(torch.tensor([1.0, 3.0]), torch.tensor([4.0]), 9.0)
    assert (first.sentence.tolist(), first.token.tolist()) == ([0.5, 1.5], [1.0])
    assert (first.sentence_signal.tolist(), first.token_signal.tolist()) == ([0.5, 1.5], [1.0])
    second = scale(torch.tensor([4.0]), torch.tensor([8.0]), 9.0)
    assert scale.running.tolist() == [2.5, 5.0]
    assert (second.sentence.item(), second.token.item()) == pytest.approx((1.6, 1.6))
    scale(torch.empty(0), torch.tensor([100.0]), 9.0)
    scale(torch.tensor([100.0]), torch.empty(0), 9.0)
    evaluated = scale.eval()(torch.tensor([5.0]), torch.tensor([5.0]), 9.0)
    assert scale.running.tolist() == [2.5, 5.0]
    assert evaluated.sentence.tolist() == [2.0]


def test_running_means_at_their_ends() -> None:
    assert LossScale("running-mean").momentum == 0.99
    unseen = LossScale("running-mean").eval()(torch.tensor([3.0]), torch.tensor([5.0]), 9.0)
    assert (unseen.sentence.item(), unseen.token.item()) == (3, 5)
    scale = LossScale("running-mean").train()
    scale(torch.tensor([0.0]), torch.tensor([0.0]), 9.0)
    assert scale.running.tolist() == pytest.approx([1e-3, 1e-3])


def test_other_scales_by_hand() -> None:
    losses = torch.tensor([5.0]), torch.tensor([7.0])
    for kind, sentence in (("none", 5), ("excess", 3)):
        scaled = LossScale(kind)(*losses, 2.0)  # type: ignore[arg-type]
        assert (scaled.sentence.item(), scaled.token.item()) == (sentence, 7)
        assert (scaled.sentence_signal.item(), scaled.token_signal.item()) == (sentence, 7)


def test_the_scale_of_gradients_by_hand() -> None:
    """Gradients 5 and 2 long: at g = ¼ both are to be ¼ · 5 + ¾ · 2 = 2.75 long. A gate compares
    the excess over 1, (2, 4) of mean 3, with (2) of mean 2."""
    scale = LossScale("gradient", norm_momentum=0.75).train()
    losses = torch.tensor([3.0, 5.0]), torch.tensor([2.0])
    scaled = scale(*losses, 1.0, 0.25, torch.tensor([5.0, 2.0]))
    assert scaled.sentence.tolist() == pytest.approx([3 * 2.75 / 5, 5 * 2.75 / 5])
    assert scaled.token.tolist() == pytest.approx([2.75])
    assert scaled.sentence_signal.tolist() == pytest.approx([2 / 3, 4 / 3])
    assert scaled.token_signal.tolist() == pytest.approx([1.0])
    assert scale.share.item() == pytest.approx(0.25)
    scale(*losses, 1.0, torch.tensor(0.25), torch.tensor([1.0, 4.0]))
    sizes = [(0.75 * 25 + 0.25 * 1) ** 0.5, (0.75 * 4 + 0.25 * 16) ** 0.5]
    assert scale.norms.tolist() == pytest.approx(sizes)
    reached = [0.25 * 1 / sizes[0], 0.75 * 4 / sizes[1]]
    assert scale.share.item() == pytest.approx(reached[0] / sum(reached))
    scale.eval()(*losses, 1.0, 0.25)
    assert scale.norms.tolist() == pytest.approx(sizes)
    for gate, whole in ((1.0, 0), (0.0, 1)):
        assert scale(*losses, 1.0, gate)[whole].tolist() == losses[whole].tolist()


def test_gradients_are_measured_often_at_first() -> None:
    scale = LossScale("gradient").train()
    asked = []
    for batch_number in range(300):
        if scale.asks_for_norms:
            asked.append(batch_number)
        scale(torch.ones(1), torch.ones(1), 0.0)
    assert asked == [*range(0, 256, 4), 256, 288]
    with torch.no_grad():
        assert not LossScale("gradient").train().asks_for_norms
    assert not LossScale("gradient").eval().asks_for_norms
    assert not LossScale("running-mean").train().asks_for_norms


def test_the_norm_of_a_gradient_by_hand() -> None:
    """Of ½ (w · x)² at x = 1 and 2, w = 3: 3 and 12. Weighed 1 : 3 over their mean that is
    ¼ · 3 + ¾ · 12."""
    w, fixed = torch.nn.Parameter(torch.tensor(3.0)), torch.nn.Parameter(torch.tensor(1.0), False)
    losses = (w * fixed * torch.tensor([1.0, 2.0])).square() / 2
    for weights, expected in (([1.0, 1.0], 7.5), ([0.2, 0.6], 9.75), ([0.0, 0.0], 7.5)):
        norm = gradient_norm(losses, torch.tensor(weights), [w, fixed])
        assert norm.item() == pytest.approx(expected)
    assert w.grad is None


def test_positions_know_their_sentence() -> None:
    side = target_sequence([np.array([7, EOS]), np.array([8, 9, EOS])])
    assert sentence_of_position(side).tolist() == [0, 0, 1, 1, 1]


def test_a_gate_of_positions_needs_one_path() -> None:
    with pytest.raises(ValueError, match="along the hypothesis"):
        HybridLoss(build_gate(TokenGateConfig(), 8), path="reference")
    assert HybridLoss(build_gate(TokenGateConfig(), 8), path="hypothesis").paths == ("hypothesis",)
    apart = HybridLoss(build_gate(SentenceGateConfig(), 8), path="reference")
    assert (apart.paths, apart.needs_distributions) == (("hypothesis", "reference"), ("reference",))
    assert apart.scale.kind == "gradient"


@pytest.mark.parametrize(
    ("gate", "former"), [(ConstantGateConfig(), "none"), (SentenceGateConfig(), "running-mean")]
)
def test_recipes_of_earlier_versions_keep_their_scale(gate: GateConfig, former: str) -> None:
    assert hybrid(gate).scale.kind == "gradient"  # type: ignore[union-attr]
    assert hybrid(gate, scale="auto").scale.kind == former  # type: ignore[union-attr]
    changed, kept = HybridObjective(gate=gate), HybridObjective(gate=gate, scale="auto")
    assert fingerprint_of(changed)["scale"] == "gradient"
    assert "scale" not in fingerprint_of(kept)


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
def test_a_learned_gate_pays_its_penalty(path: str) -> None:
    """At g = ¾ everywhere: 2 KL(¾ ‖ ½) − 3 H(¾) more than a given gate of ¾."""
    student, taught = model(), batch()
    config = SentenceGateConfig(initial=0.75, prior_mean=0.5, prior_weight=2.0, entropy_weight=3.0)
    learned = hybrid(config, path=path, scale="none")(student, taught).loss.item()
    fixed = hybrid(ConstantGateConfig(value=0.75), path=path, scale="none")(
        student, taught
    ).loss.item()
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert learned - fixed == pytest.approx(2 * (math.log(2) - entropy) - 3 * entropy, rel=1e-4)


def test_what_a_hybrid_logs() -> None:
    student, taught = model(), batch()
    objective = hybrid(SentenceGateConfig(floor=0.0))
    with torch.no_grad():
        objective.gate.linear.weight.copy_(torch.linspace(-1, 1, 16)[None])  # type: ignore[union-attr]
    memory, bias = student.encode(taught.src)
    side = taught.hypothesis
    assert side is not None
    states = student.decode(side.trg_in, memory, bias)[side.mask]
    first, second = objective.gates(memory, taught.src, states, side).tolist()  # type: ignore[operator]
    logs = objective(student, taught).logs
    assert first != pytest.approx(second, abs=1e-3)
    assert logs["gate"].item() == pytest.approx((first + second) / 2)
    assert logs["gate_spread"].item() == pytest.approx(abs(first - second) / 2)
    one = build_loss(SentenceObjective(), 16)(student, taught).loss
    two = build_loss(TokenObjective(path="hypothesis"), 16)(student, taught).loss
    assert logs["sentence_loss"].item() == pytest.approx(one.item(), rel=1e-5)
    assert logs["token_loss"].item() == pytest.approx(two.item(), rel=1e-5)


# --- selective and tie -----------------------------------------------------------------------


def test_the_least_of_the_hard_words_is_in_the_queue_s_share() -> None:
    """Share ¼ of 1 … 8: above the ¾ quantile lie 7 and 8, which a batch is held against."""
    objective = SelectiveGlobalKDLoss(queue_size=8, share=0.25).train()
    assert objective.select(torch.arange(1.0, 9.0)).tolist() == [False] * 6 + [True] * 2
    objective.eval()
    assert objective.select(torch.tensor([6.9, 7.0])).tolist() == [False, True]
    assert objective.queue.tolist() == list(range(1, 9))


def test_words_before_the_queue_has_any_are_chosen_by_the_batch() -> None:
    objective = SelectiveGlobalKDLoss(queue_size=4, share=0.5).eval()
    assert objective.select(torch.tensor([1.0, 3.0, 2.0, 0.0])).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert int(objective.seen) == 0


@pytest.mark.parametrize(("share", "expected"), [(1.0, [True] * 4), (1e-20, [False] * 3 + [True])])
def test_shares_at_their_ends(share: float, expected: list[bool]) -> None:
    objective = SelectiveGlobalKDLoss(queue_size=4, share=share).train()
    assert objective.select(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == expected


def test_a_queue_in_use_is_overwritten_from_its_oldest_word_on() -> None:
    objective = SelectiveGlobalKDLoss(queue_size=4).train()
    for nll, queue in (
        ([1.0, 2.0, 3.0], [1, 2, 3, 0]),
        ([4.0, 5.0], [5, 2, 3, 4]),
        ([6.0, 7.0, 8.0, 9.0, 10.0], [9, 10, 7, 8]),
    ):
        objective.select(torch.tensor(nll))
        assert objective.queue.tolist() == queue
    assert int(objective.seen) == 10


def test_a_batch_of_one_word_has_it_chosen() -> None:
    student = model()
    alone = Batch(torch.arange(1), torch.tensor([[5, EOS]]), reference=labelled([[EOS]], 4))
    output = build_loss(SelectiveBatchObjective(share=0.5, kd_rate=1.0), 16)(student, alone)
    assert output.logs["selected"].item() == 1
    assert output.loss.equal(build_loss(TokenObjective(), 16)(student, alone).loss)


@pytest.mark.parametrize("rank_top_k", [2, 50])
def test_tie_by_hand(rank_top_k: int) -> None:
    """The loss is the token-level one, and twice what rivals stand above the teacher's top-1."""
    student, taught = model(), batch(top_k=4)
    side = taught.reference
    assert side is not None
    assert side.top_ids is not None
    assert side.top_logp is not None
    objective = build_loss(TieObjective(rank_weight=2.0, rank_top_k=rank_top_k, margin=0.05), 16)
    output = objective(student, taught)
    token = build_loss(TokenObjective(), 16)(student, taught).loss.item()
    with torch.no_grad():
        probabilities = student(taught.src, side.trg_in)[side.mask].softmax(-1)
    ranks = []
    for row, best in zip(probabilities, side.top_ids[:, 0].tolist(), strict=True):
        rivals = row.topk(min(rank_top_k, V))
        ranks.append(
            sum(
                max(0.0, 0.05 + p - row[best].item())
                for p, word in zip(rivals.values.tolist(), rivals.indices.tolist(), strict=True)
                if word != best
            )
        )
    rank = sum(ranks) / len(ranks)
    assert rank > 0
    assert output.logs["token_loss"].item() == pytest.approx(token, rel=1e-5)
    assert output.logs["rank_loss"].item() == pytest.approx(rank, rel=1e-4)
    assert output.loss.item() == pytest.approx(token + 2 * rank, rel=1e-4)


def test_a_loss_needs_no_more_than_its_own_side() -> None:
    student, taught = model(), batch()
    alone = Batch(taught.ids, taught.src, reference=taught.reference)
    found = build_loss(TieObjective(), 16)(student, alone).loss
    assert found.equal(build_loss(TieObjective(), 16)(student, taught).loss)
