"""Distillation of states by the model that a student is cut out of: what it asks for, and whole
runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.test_pruning import batches, model
from tests.training.test_start_token import other
from tests.training.test_trainer import losses
from tests.training.test_transfer import STEPS, pretrained, tokenized, training_run
from tests.training.tiny_pretrained import FFN
from training.checkpoint import load_checkpoint
from training.config.losses import StartStatesObjective
from training.config.model import FreezeConfig, LayerSizes
from training.data.batching import Batch
from training.distill.losses import build_loss
from training.distill.losses.start_states import layer_states
from training.model.transformer import PAD, LayerSize, Transformer
from training.pruning import prune
from training.run import Run
from training.trainer import DistillationModule, TrainingRun, train

__all__ = ["pretrained", "tokenized"]


def loss_of(
    student: Transformer,
    teacher: Transformer,
    batch: Batch,
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
    **options: float,
) -> torch.Tensor:
    loss = build_loss(StartStatesObjective(**options), student.width)  # type: ignore[arg-type]
    loss.teach_by(teacher, known)
    found: torch.Tensor = DistillationModule(student, loss)(batch).loss
    return found


def test_the_whole_model_has_nothing_to_learn_from_itself() -> None:
    assert loss_of(model(), model(), batches(count=1)[0]).item() == 0


def test_the_last_layers_say_what_the_models_do() -> None:
    """The states are those that `encode` and `decode` give, and the decoder's count by the logits
    that they make, each less its mean."""
    teacher, student, batch = model(), other(), batches(count=1)[0]
    target = batch.reference
    assert target is not None
    source, ends = batch.src != PAD, []
    with torch.no_grad():
        for one in (student, teacher):
            memory, bias = one.encode(batch.src)
            states = one.decode(target.trg_in, memory, bias)[target.mask]
            logits = states @ teacher.embedding.weight.T
            ends.append((memory[source], logits - logits.mean(1, keepdim=True)))
        (mine, my_logits), (goal, logits) = ends
        expected = (mine - goal).square().mean() / (goal - goal.mean(0)).square().mean()
        spread = (logits - logits.mean(0)).square().mean()
        expected = expected + (my_logits - logits).square().mean() / spread
    found = loss_of(student, teacher, batch, layer_weight=0.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    assert loss_of(student, teacher, batch).item() > found.item()


def test_padding_changes_nothing() -> None:
    teacher, student, batch = model(), other(), batches(count=1)[0]
    target = batch.reference
    assert target is not None
    padded = batch._replace(
        src=torch.cat([batch.src, torch.zeros_like(batch.src)], dim=1),
        reference=target._replace(
            trg_in=torch.cat([target.trg_in, torch.zeros_like(target.trg_in)], dim=1),
            trg_out=torch.cat([target.trg_out, torch.zeros_like(target.trg_out)], dim=1),
        ),
    )
    one, two = (loss_of(student, teacher, each).item() for each in (batch, padded))
    assert one == pytest.approx(two, rel=1e-4)


def test_pairs_with_pieces_that_the_whole_model_lacks_do_not_count() -> None:
    teacher, student, batch = model(), other(), batches(count=1)[0]
    target = batch.reference
    assert target is not None
    known = torch.ones(len(student.embedding.weight), dtype=torch.bool)
    rare = int(batch.src[0, 0])
    known[rare] = False
    stay = ~((batch.src == rare).any(1) | (target.trg_out == rare).any(1))
    assert 0 < int(stay.sum()) < len(stay)
    rest = batch._replace(
        src=batch.src[stay],
        reference=target._replace(trg_in=target.trg_in[stay], trg_out=target.trg_out[stay]),
    )
    found = loss_of(student, teacher, batch, (known, known)).item()
    assert found == pytest.approx(loss_of(student, teacher, rest).item(), rel=1e-4)
    none = torch.zeros_like(known)
    empty = loss_of(student, teacher, batch, (none, none))
    empty.backward()  # type: ignore[no-untyped-call]
    assert empty.item() == 0


def test_a_cut_student_comes_back_to_the_whole_model() -> None:
    whole, student = model(), model()
    sizes = [
        [LayerSize.of(layer)._replace(ffn=16) for layer in side]
        for side in (student.encoder, student.decoder)
    ]
    text = batches(count=4)
    prune(student, *sizes, text)
    loss = build_loss(StartStatesObjective(), student.width)
    loss.teach_by(whole)
    step = torch.optim.Adam(student.parameters(), lr=1e-3)
    found = []
    for turn in range(60):
        step.zero_grad()
        output = loss(student, text[turn % 4])
        output.loss.backward()
        step.step()
        found.append(output.loss.item())
    assert sum(found[-4:]) < 0.5 * sum(found[:4])
    encoder, decoder = layer_states(student, text[0].src, text[0].src)
    assert (len(encoder), len(decoder)) == (len(whole.encoder), len(whole.decoder))


@pytest.mark.thorough
@pytest.mark.slow
def test_two_processes_teach_a_student_all_of_which_learns(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    run = training_run(tokenized, tmp_path / "run", pretrained)
    two = {"processes": 2, "max_steps": 4, "sampled_softmax": None}
    train(
        replace(
            run,
            model=run.model.model_copy(update={"ffn": FFN // 2}),
            objective=StartStatesObjective(),
            training=run.training.model_copy(update=two),
            freeze=None,
        )
    )
    assert load_checkpoint(run.checkpoint).config.ffn == FFN // 2


def test_a_run_leaves_the_embeddings_as_they_are(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    def cut_run(name: str, steps: int) -> TrainingRun:
        run = training_run(tokenized, tmp_path / name, pretrained)
        cut = {
            "dropout": 0.0,
            "sizes": LayerSizes(encoder_ffn=[FFN // 2] * run.model.encoder_layers),
        }
        return replace(
            run,
            model=run.model.model_copy(update=cut),
            objective=StartStatesObjective(),
            training=run.training.model_copy(
                update={"max_steps": steps, "learning_rate": 2e-3, "average": 1}
            ),
            freeze=FreezeConfig(embedding=1.0),
        )

    short, long = cut_run("short", 1), cut_run("long", STEPS)
    train(short)
    train(long)
    first, last = (load_checkpoint(run.checkpoint).model for run in (short, long))
    assert torch.equal(first.embedding.weight, last.embedding.weight)
    assert torch.equal(first.output_bias, last.output_bias)
    assert not torch.equal(first.encoder[0].ffn.inner.weight, last.encoder[0].ffn.inner.weight)
    assert max(losses(long.folder).values()) > 0  # of the few pairs whose pieces are all known
