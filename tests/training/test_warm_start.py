"""A student that goes on from a checkpoint: what it takes over, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from quickstudy.pipeline import build_stages
from tests.training.distill.tiny_teachers import make_checkpoint, our_tokenizer
from tests.training.test_pipeline import small_run
from training.checkpoint import load_checkpoint
from training.config.io import dump_recipe
from training.config.model import ModelConfig
from training.config.recipe import RecipeError
from training.run import Run, public_recipe
from training.stage import fingerprint, run_stage

NLL = ("student.objective={kind: nll}", "baselines={}")


def learn(run: Run) -> Run:
    stages = build_stages(run)
    for name in ("prepare", "tokenize", "student"):
        run_stage(stages[name], stages)
    return run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return learn(small_run(tmp_path_factory.mktemp("first"), "student.start=random", *NLL))


def going_on(folder: Path, start: Path, *more: str) -> Run:
    return small_run(folder, f"student.start={{checkpoint: {start}}}", *NLL, *more)


def test_a_student_goes_on_from_its_checkpoint(first: Run, tmp_path: Path) -> None:
    start = first.student_folder("student") / "checkpoint"
    shutil.copytree(first.folder / "corpus", tmp_path / "tiny" / "corpus")
    barely = ("student.training.max_steps=1", "student.training.learning_rate=1e-9")
    run = learn(going_on(tmp_path, start, *barely))
    before = load_checkpoint(start).model.state_dict()
    after = load_checkpoint(run.student_folder("student") / "checkpoint").model.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def test_the_content_of_the_checkpoint_counts_and_not_its_place(first: Run, tmp_path: Path) -> None:
    start = first.student_folder("student") / "checkpoint"
    copied = tmp_path / "copied"
    shutil.copytree(start, copied)

    def print_of(folder: Path) -> str:
        stages = build_stages(going_on(tmp_path, folder))
        return fingerprint(stages["student"], stages)

    assert print_of(start) == print_of(copied)
    shutil.rmtree(copied)
    make_checkpoint(copied, first.tokenizer)
    # Dimensions as in the recipe, other weights.
    assert print_of(start) != print_of(copied)
    shown = yaml.safe_load(public_recipe(dump_recipe(going_on(tmp_path, copied).recipe)))
    assert shown["student"]["start"]["checkpoint"] == "copied"


def test_a_checkpoint_that_does_not_fit_is_refused(first: Run, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"student\.start\.checkpoint: .*nowhere is no checkpoint"
    ):
        going_on(tmp_path, tmp_path / "nowhere")
    wide = ModelConfig(width=32, heads=2, ffn=32, encoder_layers=1, decoder_layers=1)
    make_checkpoint(tmp_path / "wide", first.tokenizer, config=wide)
    with pytest.raises(RecipeError, match=r"student\.model\.width to be that checkpoint's, 32"):
        going_on(tmp_path, tmp_path / "wide")
    (tmp_path / "wide" / "checkpoint.json").write_text("{}")
    with pytest.raises(RecipeError, match="is a damaged checkpoint"):
        going_on(tmp_path, tmp_path / "wide")


def test_a_checkpoint_of_other_tokens_is_refused(first: Run, tmp_path: Path) -> None:
    shutil.copytree(first.folder / "corpus", tmp_path / "tiny" / "corpus")
    other = make_checkpoint(tmp_path / "other", our_tokenizer(tmp_path / "spm.model", seed=9))
    with pytest.raises(RecipeError, match="has another tokenizer than this run"):
        learn(going_on(tmp_path, other))


def test_a_student_does_not_start_from_what_it_replaces(first: Run) -> None:
    start = first.student_folder("student") / "checkpoint"
    with pytest.raises(RecipeError, match="is what this run's student would replace"):
        build_stages(going_on(first.folder.parent, start))
    assert (start / "model.safetensors").exists()
