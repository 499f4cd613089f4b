"""The training loop: it learns, stops where it should, and resumes to the same losses."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.checkpoint import EVENLY, chosen_layers, copy_layers, load_checkpoint
from training.config.losses import NllObjective
from training.config.recipe import ModelConfig, RecipeError, TrainingConfig
from training.distributed import TrainingError, launch
from training.model.transformer import Transformer
from training.trainer import Trainer, TrainingRun, train
from training.transfer import Pieces, copy_words

ROOT = Path(__file__).parents[2]
MODEL = {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1}
STEPS = 24


def make_run(corpus: Path, folder: Path, processes: int = 1, **training: object) -> TrainingRun:
    settings = {
        "batch_tokens": 200,
        "learning_rate": 5e-3,
        "warmup_steps": 5,
        "max_steps": STEPS,
        "log_every": 1,
        "validate_every": 10,
        "validation_pairs": 10,
        "checkpoint_minutes": 1e-6,
        "processes": processes,
        "precision": "32-true",
        **training,
    }
    return TrainingRun(
        name="test",
        folder=folder,
        model=ModelConfig(**MODEL, dropout=0.2, max_length=100),  # type: ignore[arg-type]
        training=TrainingConfig(**settings),  # type: ignore[arg-type]
        objective=NllObjective(),
        token_shards=[corpus / "00000.arrow", corpus / "00001.arrow"],
        labels=None,
        tokenizer=corpus / "tokenizer.model",
        validation=corpus / "validation.arrow",
        seed=4,
        recipe_text="name: test\n",
    )


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def training_command(run: TrainingRun) -> list[str]:
    """What trains `run` in a process of its own, from the root of the project."""
    code = (
        "import sys; from pathlib import Path; from tests.training.test_trainer import make_run; "
        "from training.trainer import train\n"
        "if __name__ == '__main__': train(make_run(Path(sys.argv[1]), Path(sys.argv[2]), "
        "int(sys.argv[3])))"
    )
    script = run.folder.with_name("train_it.py")
    script.write_text(code)
    arguments = [str(run.tokenizer.parent), str(run.folder), str(run.training.processes)]
    return [sys.executable, str(script), *arguments]


def train_and_kill(run: TrainingRun, kill_at: int) -> None:
    """Train in a process of its own; SIGKILL it (and nothing else) once it logged `kill_at` lines.

    Returns when its orphans have ended too: their log stops growing.
    """
    process = multiprocessing.get_context("spawn").Process(target=train, args=(run,))
    process.start()
    log = run.folder / "log.jsonl"
    deadline = time.monotonic() + 180
    while not log.exists() or log.read_text().count('"loss"') < kill_at:
        assert process.is_alive(), "the training ended before it could be killed"
        assert time.monotonic() < deadline, "the training does not get going"
        time.sleep(0.005)
    process.kill()
    process.join()
    size = -1
    while size != (size := log.stat().st_size):
        assert time.monotonic() < deadline, "the killed run goes on training"
        time.sleep(1)


def test_it_learns_and_writes_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    run = make_run(corpus, tmp_path / "run", max_steps=60, checkpoint_minutes=10)
    train(run)
    found = losses(run.folder)
    assert found[60] < found[1] - 1
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint.recipe_text == "name: test\n"
    assert checkpoint.metrics["steps"] == 60
    assert checkpoint.tokenizer.read_bytes() == run.tokenizer.read_bytes()
    assert not list(run.checkpoint.rglob("*.p*t*h")), "weights are safetensors, never pickles"
    assert list((run.folder / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("sampled", [None, 40])
def test_killed_and_resumed_is_the_uninterrupted_run(
    corpus: Path, tmp_path: Path, sampled: int | None
) -> None:
    """With several processes: see test_trainer_distilled.py."""
    whole, broken = (
        make_run(corpus, tmp_path / name, sampled_softmax=sampled) for name in ("whole", "broken")
    )
    train(whole)
    train_and_kill(broken, kill_at=STEPS // 2)
    assert not broken.checkpoint.exists(), "it was killed too late to show anything"
    train(broken)
    assert losses(broken.folder) == losses(whole.folder)
    assert len(losses(whole.folder)) == STEPS
    left, right = (load_checkpoint(run.checkpoint).model.state_dict() for run in (whole, broken))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_training_outlives_the_shell_that_started_it(corpus: Path, tmp_path: Path) -> None:
    run = make_run(corpus, tmp_path / "run")
    begun = shlex.quote(str(run.folder / "tensorboard"))
    shell = f"{shlex.join(training_command(run))} & until [ -e {begun} ]; do sleep 0.01; done"
    subprocess.run(
        ["sh", "-c", shell],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=180,
    )
    deadline = time.monotonic() + 60
    while not (run.checkpoint / "checkpoint.json").exists():
        assert time.monotonic() < deadline, "the training ended with its shell"
        time.sleep(0.1)
    assert len(losses(run.folder)) == STEPS


def test_patience_ends_a_run_early(corpus: Path, tmp_path: Path) -> None:
    run = make_run(
        corpus, tmp_path / "run", max_steps=500, validate_every=2, patience=2, learning_rate=1e-9
    )
    train(run)
    assert load_checkpoint(run.checkpoint).metrics["steps"] <= 12


def test_epochs_and_minutes_are_limits(corpus: Path, tmp_path: Path) -> None:
    rarely = {"max_steps": None, "checkpoint_minutes": 10, "validate_every": 100}
    by_epochs = make_run(corpus, tmp_path / "epochs", max_epochs=1, **rarely)
    train(by_epochs)
    steps = load_checkpoint(by_epochs.checkpoint).metrics["steps"]
    by_minutes = make_run(corpus, tmp_path / "minutes", max_minutes=0.02, **rarely)
    train(by_minutes)
    seconds = load_checkpoint(by_minutes.checkpoint).metrics["seconds"]
    assert 10 < steps < 200
    assert 1.2 <= seconds < 20


def test_minutes_may_count_cpu_time(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: Trainer, batches: list, step: Callable = Trainer._step) -> None:
        time.sleep(0.1)
        step(self, batches)

    monkeypatch.setattr(Trainer, "_step", slow)
    rarely = {"max_steps": None, "max_minutes": 0.005, "checkpoint_minutes": 10}
    run = make_run(corpus, tmp_path / "run", clock="cpu", validate_every=1000, **rarely)
    train(run)
    metrics = load_checkpoint(run.checkpoint).metrics
    assert 0.3 <= metrics["seconds"] < 5
    assert metrics["steps"] >= 10  # By the other clock 0.3 s are over before.


def test_non_finite_loss_names_the_batch(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(corpus, tmp_path / "run")
    original = Trainer._step

    def poisoned(self: Trainer, batches: list) -> None:
        if self.state.step == 3:
            with torch.no_grad():
                self.model.output_bias[5] = float("nan")
        original(self, batches)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 4, in the batch of pairs \["):
        train(run)


def narrow(encoder_layers: int, decoder_layers: int) -> Transformer:
    return Transformer(
        50,
        width=16,
        heads=2,
        ffn=32,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        dropout=0.0,
    )


def start_from(student: Transformer, other: Transformer) -> None:
    words = [str(index) for index in range(other.vocab_size)]
    copy_layers(student, other, EVENLY)
    copy_words(student, other, Pieces(words, words), Pieces(words, words))


def test_a_student_starts_from_the_teachers_layers() -> None:
    torch.manual_seed(0)
    teacher, student = narrow(4, 2), narrow(2, 1)
    start_from(student, teacher)
    for mine, theirs in (
        (student.encoder[0], teacher.encoder[0]),
        (student.encoder[1], teacher.encoder[3]),
        (student.decoder[0], teacher.decoder[0]),
        (student.embedding, teacher.embedding),
    ):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


def test_a_deeper_student_starts_by_computing_what_the_other_computes() -> None:
    torch.manual_seed(0)
    small, deep = narrow(2, 1), narrow(4, 2)
    start_from(deep, small)
    src, trg = torch.randint(4, 50, (3, 7)), torch.randint(4, 50, (3, 5))

    def logits(model: Transformer) -> torch.Tensor:
        return model.logits(model.decode(trg, *model.encode(src)))

    assert torch.equal(logits(deep), logits(small))
    logits(deep).square().mean().backward()
    for layer in (deep.encoder[3], deep.decoder[1]):
        assert layer.ffn.outer.weight.grad.abs().max() > 0  # it can learn from there


def test_chosen_layers_are_evenly_spaced() -> None:
    assert chosen_layers(1, 6) == [0]
    assert chosen_layers(2, 6) == [0, 5]
    assert chosen_layers(4, 6) == [0, 2, 3, 5]
    assert chosen_layers(6, 6) == [0, 1, 2, 3, 4, 5]
    assert chosen_layers(6, 4) == [0, 1, 2, 3, 3, 3]


def test_the_first_line_comes_before_the_processes(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ""

    def launch(*_: object) -> None:
        nonlocal said
        said = capsys.readouterr().err

    monkeypatch.setattr("training.trainer.launch", launch)
    train(make_run(corpus, tmp_path / "run", processes=2))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    assert said == (
        f"test: training on 500 pairs, validated on 10; 2 process(es) on {device}, starting\n"
    )


def test_slow_steps_say_when_the_next_line_comes(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("training.trainer.SOON", 0.0)
    train(make_run(corpus, tmp_path / "run", max_steps=12, log_every=10))
    lines = capsys.readouterr().err.splitlines()
    (pace,) = [line for line in lines if "the next line comes in about" in line]
    assert pace.startswith("test: step 2 took ")


def test_a_killed_process_is_told_without_a_traceback(corpus: Path, tmp_path: Path) -> None:
    run = make_run(corpus, tmp_path / "run", processes=2)
    with pytest.raises(TrainingError, match=r"SIGKILL; out of memory.*run the same command again"):
        launch(run.training, kill_this_process)


def kill_this_process(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_an_error_in_a_spawned_process_keeps_its_words(corpus: Path, tmp_path: Path) -> None:
    run = make_run(corpus, tmp_path / "run", processes=2, batch_tokens=1_000_000)
    with pytest.raises(RecipeError, match="too few batches for 2 process"):
        train(run)
