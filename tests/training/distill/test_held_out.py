"""A gate that learns from held-out text: inner products by hand, what it learns, when it rests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from tests.training.distill.test_gradient_scale import V, labelled, make_teacher
from tests.training.distill.test_losses import batch as small_batch
from tests.training.distill.test_losses import hybrid, model
from training.config.losses import (
    CorpusGateConfig,
    HybridObjective,
    LearnedGateConfig,
    SentenceGateConfig,
    TokenGateConfig,
)
from training.config.recipe import RecipeError, TokenizerConfig
from training.data.batching import Batch, pad_rows, target_from_outputs
from training.data.tokenizer import Tokenizer, train_tokenizer
from training.data.toy import make_toy
from training.distill.losses import build_loss
from training.distill.losses.held_out import EVERY, alignment, held_out_nll
from training.distill.losses.hybrid import HybridLoss
from training.model.decoding import sample
from training.model.transformer import EOS, PAD, Transformer
from training.validation import HeldOutText, split_validation


def inner_products(
    student: Transformer, held_out: Batch, losses: Callable[[], torch.Tensor]
) -> list[float]:
    """⟨∇ℓ, ∇L⟩, position by position."""
    learning = list(student.parameters())
    of_text = torch.autograd.grad(held_out_nll(student, held_out), learning, allow_unused=True)
    found = []
    for loss in losses():
        mine = torch.autograd.grad(loss, learning, retain_graph=True, allow_unused=True)
        pairs = [(a, b) for a, b in zip(mine, of_text, strict=True) if a is not None]
        found.append(sum(float((a * b).sum()) for a, b in pairs if b is not None))
    return found


@pytest.mark.parametrize("path", ["hypothesis", "reference"])
def test_alignment_is_the_inner_product_of_gradients(path: str) -> None:
    student, taught = model(), small_batch()
    objective = hybrid(CorpusGateConfig(learns_from="held-out"), path=path, scale="none")
    assert isinstance(objective, HybridLoss)
    before = [one.clone() for one in student.parameters()]

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        parts = objective.parts(student, taught)
        return parts.sentence, parts.token

    found = alignment(student, [taught], losses)
    for side in (0, 1):
        expected = inner_products(student.eval(), taught, lambda side=side: losses()[side])
        assert found[side].tolist() == pytest.approx(expected, rel=0.02, abs=2e-3)
    assert all(torch.equal(one, two) for one, two in zip(before, student.parameters(), strict=True))


# --- what it learns ------------------------------------------------------------------------------


def kinds(good_sentence: list[bool]) -> tuple[Batch, Batch]:
    """A training batch and held-out text of two kinds of sentences, told apart by their first word.

    The teacher's translations of a kind are right where `good_sentence` says so, and its
    distributions along them are of wrong words; of the other kind the translations are wrong and
    the distributions right.
    """
    teacher = make_teacher()
    generator = np.random.default_rng(5)

    def text(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [
            [4 + row % 2, *generator.integers(10, V, generator.integers(3, 7)), EOS]
            for row in range(count)
        ]
        src = pad_rows([np.array(row) for row in rows])
        return src, sample(teacher, src, 1, 0.3)[0][:, 0].clone()

    src, right = text(32)
    good = torch.tensor(good_sentence).repeat(16)
    written = torch.where(good[:, None], right, wrong(right))
    taught = labelled(teacher, src, target_from_outputs(written).trg_out)
    assert taught.top_ids is not None
    is_good = good[taught.mask.nonzero()[:, 0]][:, None]
    taught = taught._replace(top_ids=torch.where(is_good, wrong(taught.top_ids), taught.top_ids))
    held_out, reference = text(64)
    return (
        Batch(torch.arange(32), src, hypothesis=taught),
        Batch(torch.arange(64), held_out, reference=target_from_outputs(reference)),
    )


def wrong(ids: torch.Tensor) -> torch.Tensor:
    """Other words for these, EOS among them."""
    return torch.where(ids == PAD, PAD, 4 + (ids + 20) % (V - 4))


def learnt(gate: LearnedGateConfig, good_sentence: list[bool]) -> list[float]:
    """g of the two kinds of sentences after some steps."""
    torch.manual_seed(1)
    taught, text = kinds(good_sentence)
    student = Transformer(V, 16, 2, 32, 1, 1, dropout=0.1, max_length=40).train()
    objective = build_loss(HybridObjective(gate=gate), 16).train()  # type: ignore[arg-type]
    assert isinstance(objective, HybridLoss)
    objective.held_out = lambda _: text
    optimizer = torch.optim.Adam(
        [
            {"params": student.parameters(), "lr": 3e-3},
            {"params": objective.parameters(), "lr": 0.1},
        ]
    )
    for _ in range(10 * EVERY):
        optimizer.zero_grad()
        objective(student, taught).loss.backward()
        optimizer.step()
    with torch.no_grad():
        memory, _ = student.encode(taught.src)
        assert taught.hypothesis is not None
        g = objective.gates(memory, taught.src, memory[:, 0], taught.hypothesis)
    return [float(g[kind::2].mean()) for kind in (0, 1)]


@pytest.mark.parametrize("good", [True, False])
def test_one_g_for_all_goes_to_the_loss_that_helps_held_out_text(good: bool) -> None:
    gate = CorpusGateConfig(learns_from="held-out", prior_weight=0.1)
    g, _ = learnt(gate, [good, good])
    assert g > 0.65 if good else g < 0.35


def test_g_of_a_sentence_goes_to_the_loss_that_helps_there() -> None:
    gate = SentenceGateConfig(learns_from="held-out", prior_weight=0.1)
    first, second = learnt(gate, [True, False])
    assert first > second + 0.1
    first, second = learnt(gate, [False, True])
    assert second > first + 0.1


@pytest.mark.parametrize("kind", [CorpusGateConfig, SentenceGateConfig, TokenGateConfig])
def test_the_gate_rests_between(kind: type[LearnedGateConfig]) -> None:
    objective = hybrid(kind(learns_from="held-out", initial=0.4)).train()  # type: ignore[call-arg]
    assert isinstance(objective, HybridLoss)
    objective.held_out = lambda _: small_batch()
    student = model().train()
    moves = []
    for _ in range(2 * EVERY):
        objective.zero_grad()
        output = objective(student, small_batch())
        output.loss.backward()
        moves.append(any(one.grad.abs().max() > 0 for one in objective.gate.parameters()))
    assert moves == ([True] + [False] * (EVERY - 1)) * 2
    assert {"sentence_gain", "token_gain"} < set(output.logs)


def test_a_gate_without_held_out_text_says_so() -> None:
    objective = hybrid(CorpusGateConfig(learns_from="held-out")).train()
    with pytest.raises(ValueError, match="held-out text was given none"):
        objective(model(), small_batch())
    objective.eval()(model(), small_batch())


def test_a_corpus_gate_may_learn_from_held_out_text() -> None:
    with pytest.raises(ValidationError, match="learns_from: held-out"):
        HybridObjective(gate=CorpusGateConfig())
    assert HybridObjective(gate=CorpusGateConfig(learns_from="held-out")).scale == "gradient"


# --- the text ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "spm.model"
    train_tokenizer(iter(make_toy(300, 1)), TokenizerConfig(vocab_size=320), path)
    return Tokenizer(path)


@pytest.fixture
def text(tokenizer: Tokenizer) -> HeldOutText:
    return HeldOutText(make_toy(60, 2), tokenizer, None, 100, 120, seed=3)


def test_held_out_batches_go_through_the_text_again_and_again(text: HeldOutText) -> None:
    epochs = [
        [text(number).ids.tolist() for number in range(first, first + text.count)]
        for first in (0, text.count)
    ]
    for epoch in epochs:
        assert sorted(row for ids in epoch for row in ids) == list(range(60))
    assert epochs[0] != epochs[1]
    assert text(1).ids.tolist() == epochs[0][1], "the same whenever it is asked"
    one = text(0)
    assert one.reference is not None
    assert one.reference.trg_out.shape[0] == one.src.shape[0]


def test_text_that_is_too_long_teaches_no_gate(tokenizer: Tokenizer) -> None:
    with pytest.raises(RecipeError, match="none of 4 validation pairs is shorter than max_length"):
        HeldOutText(make_toy(4, 2), tokenizer, None, 2, 120, seed=3)


def validation(path: Path, pairs: list[tuple[str, str]]) -> Path:
    src, trg = ([pair[side] for pair in pairs] for side in (0, 1))
    table = pa.table({"id": range(len(pairs)), "src": src, "trg": trg})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def test_no_pair_teaches_a_gate_and_chooses_checkpoints(tmp_path: Path) -> None:
    pairs = [(f"source {number}", f"target {number}") for number in range(8)]
    path = validation(tmp_path / "validation.arrow", pairs)
    chooses, gate = split_validation(path, gate_learns=True)
    assert gate == [pairs[2], pairs[5]]
    assert chooses == [pairs[number] for number in (0, 1, 3, 4, 6, 7)]
    assert split_validation(path, gate_learns=False) == (pairs, [])
    with pytest.raises(RecipeError, match="there are 2: give more"):
        split_validation(validation(tmp_path / "two.arrow", pairs[:2]), gate_learns=True)
