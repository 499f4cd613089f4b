"""The loop with a teacher's labels: resumed runs, weights of words, gates, gradients that fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from tests.training.test_trainer import STEPS, losses, make_run, train_and_kill
from training.checkpoint import average_states, load_checkpoint
from training.config.losses import (
    HybridObjective,
    NllObjective,
    ObjectiveConfig,
    RiskObjective,
    SelectiveGlobalObjective,
    SentenceGateConfig,
)
from training.data.batching import map_table, pad_rows, target_sequence
from training.data.prepare import read_pairs
from training.data.tokenizer import Tokenizer
from training.distill.losses.kd import CrossEntropyLoss
from training.distributed import TrainingError, launch
from training.model.transformer import EOS
from training.trainer import GATE, Trainer, TrainingRun, Validator, train

OBJECTIVES: dict[str, ObjectiveConfig] = {
    "hybrid": HybridObjective(gate=SentenceGateConfig()),
    "held-out": HybridObjective(gate=SentenceGateConfig(learns_from="held-out")),
    "selective": SelectiveGlobalObjective(queue_size=300),
    "risk": RiskObjective(samples=2),
}


def distilled(
    corpus: Path,
    labels: Path,
    folder: Path,
    objective: str,
    processes: int = 1,
    **training: Any,
) -> TrainingRun:
    run = make_run(corpus, folder, processes, **training)
    return dataclasses.replace(run, objective=OBJECTIVES[objective], labels=labels)


def assert_same(one: TrainingRun, other: TrainingRun) -> None:
    assert losses(one.folder) == losses(other.folder)
    assert len(losses(one.folder)) == STEPS
    mine, theirs = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    for left, right in (
        (mine.model.state_dict(), theirs.model.state_dict()),
        (mine.objective, theirs.objective),
    ):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stopped_run_goes_on_as_if_it_never_was(
    corpus: Path,
    labels: Path,
    tmp_path: Path,
    objective: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, broken = (distilled(corpus, labels, tmp_path / n, objective) for n in ("w", "b"))
    train(whole)
    step = Trainer._step

    def stop(self: Trainer, batches: Any) -> None:
        if self.state.step == STEPS // 2:
            raise Stopped
        step(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", stop)
        with pytest.raises(Stopped):
            train(broken)
    assert list(broken.folder.glob("resume-*"))
    train(broken)
    assert_same(whole, broken)


@pytest.mark.slow
def test_killed_and_resumed_with_two_processes(corpus: Path, labels: Path, tmp_path: Path) -> None:
    """Of the objectives the one that keeps the most: gate, its signal, scale and their moments."""
    whole, broken = (distilled(corpus, labels, tmp_path / n, "held-out", 2) for n in ("w", "b"))
    train(whole)
    train_and_kill(broken, kill_at=STEPS // 2)
    assert not broken.checkpoint.exists(), "it was killed too late to show anything"
    train(broken)
    assert_same(whole, broken)


def fit_whole_and_in_halves(fabric: Fabric, runs: list[tuple[TrainingRun, TrainingRun]]) -> None:
    """Train the first run of each pair at once; the second pauses, and another trainer goes on."""
    for whole, halves in runs:
        Trainer(fabric, whole).fit()
        Trainer(fabric, dataclasses.replace(halves, until=0.5)).fit()
        Trainer(fabric, halves).fit()


@pytest.mark.thorough
@pytest.mark.slow
def test_two_processes_go_on_as_if_they_never_paused(
    corpus: Path,
    labels: Path,
    tmp_path: Path,
) -> None:
    """The other objectives; in one pair of processes, since starting one takes longer than all of
    these runs."""

    def run_of(name: str, part: str) -> TrainingRun:
        folder = tmp_path / name / part
        folder.mkdir(parents=True)
        return distilled(corpus, labels, folder, name, 2, checkpoint_minutes=10)

    names = [name for name in OBJECTIVES if name != "held-out"]
    runs = [(run_of(name, "whole"), run_of(name, "halves")) for name in names]
    launch(runs[0][0].training, fit_whole_and_in_halves, runs)
    for whole, halves in runs:
        assert_same(whole, halves)


# --- gradients ---------------------------------------------------------------------------------


def without_dropout(run: TrainingRun) -> TrainingRun:
    model = run.model.model_copy(update={"dropout": 0.0})
    return dataclasses.replace(run, model=model)


def keep_gradient(fabric: Fabric, run: TrainingRun) -> None:
    """Take the first step; write its gradient, its weights before it and which pairs it read."""
    trainer = Trainer(fabric, run)
    trainer.module.train()
    weights = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    batches = next(iter(trainer._steps_of_epoch()))
    trainer.optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign]
    trainer.wrapped_optimizer.zero_grad = lambda *_, **__: None  # type: ignore[method-assign]
    trainer._step(batches)
    ids = [number for batch in batches for number in batch.ids.tolist()]
    gradients = {f"grad.{n}": p.grad.clone() for n, p in trainer.model.named_parameters()}
    save_file(
        {"ids": torch.tensor(ids), **weights, **gradients},
        run.folder / f"gradient-{fabric.global_rank}.safetensors",
    )


def gradient_of_all_words(corpus: Path, run: TrainingRun, ids: list[int]) -> dict[str, Any]:
    """Of the mean over the words of all these pairs in one batch."""
    written = load_file(run.folder / "gradient-0.safetensors")
    rows = pa.concat_tables(map_table(path) for path in run.token_shards).to_pylist()
    pairs = [rows[number] for number in ids]
    model = load_model(corpus, run, written)
    src = pad_rows([np.array(pair["src"]) for pair in pairs])
    target = target_sequence([np.array(pair["trg"]) for pair in pairs])
    logits = model.logits(model.decode(target.trg_in, *model.encode(src))[target.mask])
    torch.nn.functional.cross_entropy(logits, target.targets, label_smoothing=0.1).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def load_model(corpus: Path, run: TrainingRun, state: dict[str, torch.Tensor]) -> Any:
    from training.checkpoint import build_model

    model = build_model(run.model, len(Tokenizer(corpus / "tokenizer.model")))
    model.load_state_dict({n: v for n, v in state.items() if n in model.state_dict()})
    return model


@pytest.mark.parametrize(
    ("processes", "accumulate"),
    [(1, 3), pytest.param(2, 2, marks=[pytest.mark.slow, pytest.mark.thorough])],
)
def test_every_word_of_a_step_weighs_the_same(
    corpus: Path,
    tmp_path: Path,
    processes: int,
    accumulate: int,
) -> None:
    """The batches of a step, of unlike size, have the gradient of one batch of all their pairs."""
    run = make_run(
        corpus, tmp_path / "run", processes, accumulate=accumulate, clip_norm=1e6, batch_tokens=120
    )
    run = without_dropout(dataclasses.replace(run, objective=NllObjective()))
    run.folder.mkdir()
    launch(run.training, keep_gradient, run)
    files = sorted(run.folder.glob("gradient-*.safetensors"))
    assert len(files) == processes
    ids = [number for file in files for number in load_file(file)["ids"].tolist()]
    expected = gradient_of_all_words(corpus, run, ids)
    found = load_file(files[0])
    for name, gradient in expected.items():
        torch.testing.assert_close(found[f"grad.{name}"], gradient, atol=1e-6, rtol=1e-4)


def test_a_gradient_that_is_not_finite_changes_no_weights(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss is finite, its gradient is not: sqrt at 0."""
    forward = CrossEntropyLoss.forward
    seen: dict[str, Trainer] = {}
    step = Trainer._step

    def broken(self: Any, model: Any, batch: Any) -> Any:
        output = forward(self, model, batch)
        if seen["trainer"].state.step == 3:
            none = (model.output_bias - model.output_bias.detach()).abs().sum()
            return output._replace(loss=output.loss + none.sqrt())
        return output

    def watched(self: Trainer, batches: Any) -> None:
        seen["trainer"] = self
        step(self, batches)

    monkeypatch.setattr(CrossEntropyLoss, "forward", broken)
    monkeypatch.setattr(Trainer, "_step", watched)
    with pytest.raises(TrainingError, match=r"norm of the gradient is nan at step 4, in the batch"):
        train(make_run(corpus, tmp_path / "run"))
    weights = seen["trainer"].model.state_dict().values()
    assert all(torch.isfinite(value).all() for value in weights)


# --- what is kept ------------------------------------------------------------------------------


def test_the_gate_is_averaged_as_the_weights_are(
    corpus: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever is kept, average or best: the gate is the one of those weights."""
    run = distilled(corpus, labels, tmp_path / "run", "hybrid", validate_every=6, average=3)
    kept: list[dict[str, torch.Tensor]] = []
    original = Trainer._finish

    def finish(self: Trainer) -> None:
        if not any(step == self.state.step for _, step in self.state.kept or []):
            self._validate()
        kept.extend(load_file(self._weights(step)) for _, step in self.state.kept or [])
        original(self)

    monkeypatch.setattr(Trainer, "_finish", finish)
    train(run)
    checkpoint = load_checkpoint(run.checkpoint)
    name = "gate.linear.bias"
    assert len(kept) == 3
    assert len({float(state[f"{GATE}{name}"]) for state in kept}) == 3
    weights = checkpoint.model.state_dict()
    for state in (average_states(kept), kept[0]):
        if torch.equal(state["output_bias"], weights["output_bias"]):
            assert torch.equal(checkpoint.objective[name], state[f"{GATE}{name}"])
            break
    else:
        pytest.fail("the checkpoint's weights are neither the average nor the best")


def keep_validation_text(fabric: Fabric, found: dict[str, Any]) -> None:
    trainer = Trainer(fabric, found["run"])
    found["chooses"] = trainer.validator.references
    held_out = trainer.loss.held_out
    if held_out is not None:
        batches = [held_out(number).reference for number in range(20)]
        rows = [row for batch in batches if batch is not None for row in batch.trg_out.tolist()]
        found["gate"] = set(trainer.tokenizer.decode([[id for id in row if id] for row in rows]))


@pytest.mark.parametrize("objective", ["held-out", "hybrid"])
def test_a_gate_learns_from_text_that_chooses_no_checkpoint(
    corpus: Path,
    labels: Path,
    tmp_path: Path,
    objective: str,
) -> None:
    run = distilled(corpus, labels, tmp_path / "run", objective, validation_pairs=20)
    run.folder.mkdir()
    found: dict[str, Any] = {"run": run}
    launch(run.training, keep_validation_text, found)
    everything = [trg for _, trg in read_pairs(corpus / "validation.arrow")]
    if objective == "hybrid":
        assert found["chooses"] == everything
        return
    assert found["gate"] == set(everything[2::3])
    assert found["gate"].isdisjoint(found["chooses"])
    assert len(found["chooses"]) == 14


def test_sources_too_long_for_the_model_keep_their_end(corpus: Path) -> None:
    tokenizer = Tokenizer(corpus / "tokenizer.model")
    validator = Validator(list(read_pairs(corpus / "validation.arrow")), tokenizer, 7)
    assert max(map(len, validator.rows)) == 6
    assert all(row[-1] == EOS for row in validator.rows)
