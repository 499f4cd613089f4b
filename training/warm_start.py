"""Models that a student starts from, or takes its source tokenizer from: their files, and whether
they fit. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.config.model import ModelConfig, SeparateTokenizers, start_faults
from training.config.recipe import CheckpointStart, PretrainedStart, Recipe, RecipeError
from training.pretrained.base import PretrainedModel
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained
from training.teacher_files import CHECKPOINT_FILES, SOURCE_TOKENIZER, read_json


def start_folder(recipe: Recipe, teacher: Path | None) -> Path | None:
    """Checkpoint that the recipe's student starts from, given the teacher's; None: at random."""
    start = recipe.student.start
    if isinstance(start, CheckpointStart):
        return Path(start.checkpoint)
    return teacher if start == "teacher" else None


def pretrained_start(recipe: Recipe) -> Path | None:
    """Folder of the pretrained model that the recipe's student starts from, if it does."""
    start = recipe.student.start
    return Path(start.pretrained) if isinstance(start, PretrainedStart) else None


def source_tokenizer(model: PretrainedModel) -> bytes:
    """The SentencePiece model that cuts a pretrained model's sources."""
    return model.source_tokenizer or model.tokenizer


def start_identity(recipe: Recipe) -> list[Any]:
    """What a model to start from is, for a fingerprint: its files' content. Else empty."""
    from training.stage import file_digest

    start = recipe.student.start
    if isinstance(start, PretrainedStart):
        return sorted(read_pretrained(Path(start.pretrained)).files.items())
    if not isinstance(start, CheckpointStart):
        return []
    return [file_digest(Path(start.checkpoint) / name) for name in CHECKPOINT_FILES]


def checkpoint_faults(recipe: Recipe) -> list[str]:
    """Why the student cannot start from the checkpoint that its recipe names; empty where it can,
    and where it names none."""
    start = recipe.student.start
    if not isinstance(start, CheckpointStart):
        return []
    folder = Path(start.checkpoint)
    missing = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
    if missing:
        return [f"student.start.checkpoint: {folder} is no checkpoint: no {', '.join(missing)}"]
    try:
        model = ModelConfig.model_validate(read_json(folder / "checkpoint.json")["model"])
    except (RecipeError, ValidationError, KeyError, TypeError) as error:
        return [f"student.start.checkpoint: {folder} is a damaged checkpoint: {error}"]
    return start_faults(recipe.student.model, model, "that checkpoint")


def pretrained_faults(recipe: Recipe) -> list[str]:
    """What is wrong with the pretrained models that a recipe names; empty where nothing is."""
    named, faults = {}, []
    if isinstance(recipe.tokenizer, SeparateTokenizers):
        named["tokenizer.source.pretrained"] = Path(recipe.tokenizer.source.pretrained)
    if (folder := pretrained_start(recipe)) is not None:
        named["student.start.pretrained"] = folder
    models: dict[str, PretrainedModel] = {}
    for field, folder in named.items():
        if not folder.is_dir():
            faults.append(f"{field}: {folder} is no folder")
            continue
        try:
            models[field] = read_pretrained(folder)
        except PretrainedError as error:
            faults.append(f"{field}: {error}")
    if (model := models.get("student.start.pretrained")) is not None:
        faults += start_faults(recipe.student.model, model.config, "that model")
    if len({source_tokenizer(model) for model in models.values()}) > 1:
        faults.append(
            "student.start.pretrained and tokenizer.source.pretrained have different source "
            "tokenizers: name the same model"
        )
    return faults


def check_tokens(start: Path, tokenizer: Path, source_tokenizer: Path | None) -> None:
    """Raises RecipeError where a checkpoint to start from has another tokenizer than the run, of
    either side."""
    own = start / SOURCE_TOKENIZER
    theirs = [start / "tokenizer.model", *([own] if own.exists() else [])]
    ours = [tokenizer, *([source_tokenizer] if source_tokenizer else [])]
    if [path.read_bytes() for path in theirs] != [path.read_bytes() for path in ours]:
        raise RecipeError(
            f"student.start: {start} has another tokenizer than this run, so its embeddings are of "
            "other words. Start from a checkpoint of a run on the same text with the same "
            "`tokenizer`, or at random"
        )
