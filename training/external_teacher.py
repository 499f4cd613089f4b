"""What the stages need to know of a given teacher: its identity, its tokenizer, its lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quickstudy.atomic import atomic_write
from training.config.model import (
    CheckpointTeacher,
    TeacherConfig,
    TokenizerConfig,
    TrainedTeacher,
    members_of,
    with_paths,
)
from training.config.recipe import Recipe
from training.stage import file_digest, fingerprint_of
from training.teacher_files import adopted_file, read_json, teacher_files


def teacher_identity(teacher: TeacherConfig) -> list[Any]:
    """What a given teacher is, for a fingerprint: its settings and the content of its files,
    wherever they lie. Empty for a teacher that the run trains."""
    if isinstance(teacher, TrainedTeacher):
        return []
    settings = with_paths(fingerprint_of(teacher), lambda _: "")
    return [settings, [[path.name, file_digest(path)] for path in teacher_files(teacher)]]


def adopted_identity(recipe: Recipe) -> list[str]:
    """Hash of the SentencePiece model that the student takes over, if it does."""
    if isinstance(recipe.teacher, TrainedTeacher) or isinstance(recipe.tokenizer, TokenizerConfig):
        return []
    return [file_digest(adopted_file(recipe.teacher))]


def adopt_tokenizer(recipe: Recipe, path: Path) -> None:
    """Write the given teacher's SentencePiece model with our special ids."""
    from training.data.adopted_tokenizer import adopt

    assert not isinstance(recipe.teacher, TrainedTeacher), "a checked recipe adopts given ones only"
    atomic_write(path, adopt(adopted_file(recipe.teacher)))


def max_pair_length(recipe: Recipe) -> int:
    """Positions that both sides of every pair must fit, BOS counted."""
    teacher, student = recipe.teacher, recipe.student.model.max_length
    if isinstance(teacher, TrainedTeacher):
        return min(teacher.model.max_length, student)
    if isinstance(recipe.tokenizer, TokenizerConfig):
        return student
    lengths = [
        read_json(Path(member.path) / "checkpoint.json")["model"]["max_length"]
        for _, member in members_of(teacher)
        if isinstance(member, CheckpointTeacher)
    ]
    return min([student, *map(int, lengths)])
