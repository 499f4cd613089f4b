"""Checkpoints that a student starts from: their files, and whether they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.config.model import ModelConfig, start_faults
from training.config.recipe import CheckpointStart, Recipe, RecipeError
from training.teacher_files import CHECKPOINT_FILES, read_json


def start_folder(recipe: Recipe, teacher: Path | None) -> Path | None:
    """Checkpoint that the recipe's student starts from, given the teacher's; None: at random."""
    start = recipe.student.start
    if isinstance(start, CheckpointStart):
        return Path(start.checkpoint)
    return teacher if start == "teacher" else None


def start_identity(recipe: Recipe) -> list[Any]:
    """What a checkpoint to start from is, for a fingerprint: its files' content. Else empty."""
    from training.stage import file_digest

    start = recipe.student.start
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


def check_tokens(start: Path, tokenizer: Path) -> None:
    """Raises RecipeError where a checkpoint to start from has another tokenizer than the run."""
    if (start / "tokenizer.model").read_bytes() != tokenizer.read_bytes():
        raise RecipeError(
            f"student.start: {start} has another tokenizer than this run, so its embeddings are of "
            "other words. Start from a checkpoint of a run on the same text with the same "
            "`tokenizer`, or at random"
        )
