"""The files of a given teacher: which ones count, which SentencePiece models are among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.recipe import RecipeError
from training.teacher_config import (
    CheckpointTeacher,
    CTranslate2Folder,
    GivenTeacher,
    MemberConfig,
    TeacherEnsemble,
    members_of,
)

HUGGINGFACE_FILES = ("*.json", "*.safetensors", "*.spm", "*.model", "*.txt")
CTRANSLATE2_FILES = ("model.bin", "*.json", "*.txt")
CHECKPOINT_FILES = ("model.safetensors", "checkpoint.json", "tokenizer.model")


def teacher_files(teacher: GivenTeacher) -> list[Path]:
    """Every file that a given teacher's answers depend on, member by member, sorted by name."""
    return [path for _, member in members_of(teacher) for path in _member_files(member)]


def _member_files(member: MemberConfig) -> list[Path]:
    folder = Path(member.path)
    if isinstance(member, CheckpointTeacher):
        return [folder / name for name in CHECKPOINT_FILES]
    patterns = CTRANSLATE2_FILES if member.kind == "ctranslate2" else HUGGINGFACE_FILES
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return found + (sentencepiece_files(member) if member.kind == "ctranslate2" else [])


def sentencepiece_files(member: MemberConfig) -> list[Path]:
    """The SentencePiece models of a single teacher; one of both sides, or one of each."""
    folder = Path(member.path)
    if isinstance(member, CheckpointTeacher):
        return [folder / "tokenizer.model"]
    if isinstance(member, CTranslate2Folder):
        names = (member.sentencepiece, member.target_sentencepiece)
        return [Path(name) for name in names if name is not None]
    found = [path for pattern in ("*.spm", "*.model") for path in sorted(folder.glob(pattern))]
    same = len({path.read_bytes() for path in found}) == 1
    return found[:1] if same else found


def adopted_file(teacher: GivenTeacher) -> Path:
    """The SentencePiece model that a student takes over from a teacher: its only one, or that of
    an ensemble's first member. Raises RecipeError where there is not exactly one."""
    _, member = members_of(teacher)[0]
    found = sentencepiece_files(member)
    if len(found) != 1:
        raise RecipeError(f"{member.path}: {len(found)} SentencePiece models instead of one")
    return found[0]


def read_json(path: Path) -> Any:
    """A JSON file of a teacher. Raises RecipeError where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from None


def target_vocabulary(folder: Path) -> list[str]:
    """The target tokens of a CTranslate2 folder in the order of its logits.

    Raises RecipeError where the folder has no vocabulary.
    """
    for name in ("shared_vocabulary", "target_vocabulary"):
        if (path := folder / f"{name}.json").exists():
            return [str(token) for token in read_json(path)]
        if (path := folder / f"{name}.txt").exists():
            return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    raise RecipeError(f"{folder}: no shared_vocabulary or target_vocabulary there")


def needs_one_vocabulary(teacher: GivenTeacher, adopted: bool) -> bool:
    """Whether the teacher is asked by the pieces of a single SentencePiece model."""
    return adopted or isinstance(teacher, TeacherEnsemble)
