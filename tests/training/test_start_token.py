"""Distillation by the model that a student starts from: what it teaches, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.test_pruning import batches, model
from tests.training.test_trainer import losses
from tests.training.test_transfer import STEPS, pretrained, tokenized, training_run
from tests.training.tiny_pretrained import FFN
from training.checkpoint import load_checkpoint
from training.config.losses import StartTokenObjective
from training.data.batching import Batch
from training.distill.losses import build_loss
from training.model.transformer import Transformer
from training.run import Run
from training.trainer import DistillationModule, Trainer, TrainingRun, train

__all__ = ["pretrained", "tokenized"]


def loss_of(student: Transformer, teacher: Transformer, batch: Batch, **options: float) -> float:
    loss = build_loss(StartTokenObjective(**options), student.width)  # type: ignore[arg-type]
    loss.teach_by(teacher)
    return DistillationModule(student, loss)(batch).loss.item()


def other() -> Transformer:
    torch.manual_seed(5)
    changed = model()
    with torch.no_grad():
        for weight in changed.parameters():
            weight.add_(0.3 * weight.std() * torch.randn_like(weight))
    return changed


def test_it_is_half_the_divergence_from_the_whole_model_and_half_the_nll() -> None:
    teacher, student, batch = model(), other(), batches(count=1)[0]
    target = batch.reference
    assert target is not None
    with torch.no_grad():
        goal, mine = (
            F.log_softmax(m(batch.src, target.trg_in)[target.mask], -1) for m in (teacher, student)
        )
    divergence = float((goal.exp() * (goal - mine)).sum(1).mean())
    nll = float(-mine.gather(1, target.targets[:, None]).mean())
    assert divergence > 0.05
    found = loss_of(student, teacher, batch, kd_rate=0.5, top_k=50)
    assert found == pytest.approx(0.5 * divergence + 0.5 * nll, rel=1e-4)


def test_with_fewer_words_told_apart_it_is_a_lower_bound() -> None:
    teacher, student, batch = model(), other(), batches(count=1)[0]
    few, all_of_them = (loss_of(student, teacher, batch, kd_rate=1.0, top_k=k) for k in (3, 1000))
    assert 0 < few < all_of_them


def test_the_whole_model_has_nothing_to_learn_from_itself() -> None:
    batch = batches(count=1)[0]
    assert loss_of(model(), model(), batch, kd_rate=1.0) == pytest.approx(0, abs=1e-5)


def test_the_reference_alone_teaches_where_the_whole_model_lacks_a_piece() -> None:
    teacher, student, batch = model(), other(), batches(count=1)[0]
    target = batch.reference
    assert target is not None
    known = torch.ones(len(student.embedding.weight), dtype=torch.bool)
    rare = int(batch.src[0, 0])
    known[rare] = False
    unknown = (batch.src == rare).any(1) | (target.trg_out == rare).any(1)
    assert 0 < int(unknown.sum()) < len(unknown)
    here = unknown[target.mask.nonzero()[:, 0]]
    with torch.no_grad():
        goal, mine = (
            F.log_softmax(m(batch.src, target.trg_in)[target.mask], -1) for m in (teacher, student)
        )
    nll = -mine.gather(1, target.targets[:, None])[:, 0]
    divergence = (goal.exp() * (goal - mine)).sum(1)
    expected = float(torch.where(here, nll, divergence).mean())
    loss = build_loss(StartTokenObjective(kd_rate=1.0, top_k=len(known)), student.width)
    loss.teach_by(teacher, (known, known))
    found = DistillationModule(student, loss)(batch).loss.item()
    assert found == pytest.approx(expected, rel=1e-4)
    few = build_loss(StartTokenObjective(kd_rate=1.0, top_k=3), student.width)
    few.teach_by(teacher, (known, known))
    assert 0 < DistillationModule(student, few)(batch).loss.item() < found


def cut_run(corpus: Run, folder: Path, pretrained: Path) -> TrainingRun:
    run = training_run(corpus, folder, pretrained)
    return replace(
        run,
        model=run.model.model_copy(update={"ffn": FFN // 2, "dropout": 0.0}),
        objective=StartTokenObjective(kd_rate=1.0),
        training=run.training.model_copy(update={"sampled_softmax": 40, "learning_rate": 2e-3}),
        freeze=None,
    )


def test_stopped_it_resumes_with_the_same_teacher(
    tokenized: Run, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (
        cut_run(tokenized, tmp_path / name, pretrained) for name in ("whole", "broken")
    )
    train(whole)
    found = losses(whole.folder)
    assert found[STEPS] < 0.9 * found[1]  # most pairs have pieces that the whole model lacks
    step = Trainer._step

    def stops(self: Trainer, given: list[Batch]) -> None:
        if self.state.step == STEPS // 2:
            raise KeyboardInterrupt
        step(self, given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert not broken.checkpoint.exists()
    train(broken)
    assert losses(broken.folder) == found
    left, right = (load_checkpoint(run.checkpoint).model.state_dict() for run in (whole, broken))
    assert all(torch.equal(left[name], right[name]) for name in left)
