"""What of a given teacher's files does not fit its recipe, found before anything runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from training.adopted_tokenizer import segmentation
from training.model_config import AdoptedTokenizer, ModelConfig
from training.recipe import Recipe, RecipeError
from training.teacher_config import (
    CheckpointTeacher,
    CTranslate2Folder,
    GivenTeacher,
    HuggingFaceFolder,
    MemberConfig,
    length_faults,
    members_of,
    start_faults,
)
from training.teacher_files import (
    CHECKPOINT_FILES,
    needs_one_vocabulary,
    read_json,
    sentencepiece_files,
    target_vocabulary,
)

FAMILIES = {"marian": "Marian", "m2m_100": "M2M100 or NLLB", "mbart": "mBART"}
"""Hugging Face `model_type`s that are known to work."""
LEAST_KNOWN = 0.9
"""Share of the pieces that a CTranslate2 model must know to be taken for theirs."""


def teacher_faults(recipe: Recipe) -> list[str]:
    """Every fault of a given teacher's files, each with its field; empty where there is none or
    the run trains its teacher."""
    teacher = recipe.teacher
    if teacher.kind == "train":
        return []
    adopted = isinstance(recipe.tokenizer, AdoptedTokenizer)
    places = members_of(teacher)
    faults = [fault for place, member in places for fault in _missing(place, member)]
    if not faults and needs_one_vocabulary(teacher, adopted):
        faults = [fault for place, member in places for fault in _vocabulary(place, member)]
        if not faults:
            faults = _different_vocabularies(teacher)
    if not faults and isinstance(teacher, CheckpointTeacher) and adopted:
        faults = _student_faults(recipe, Path(teacher.path))
    return faults


def _missing(place: str, member: MemberConfig) -> list[str]:
    folder = Path(member.path)
    if not folder.is_dir():
        return [f"{place}.path: {folder} is no folder"]
    match member:
        case CheckpointTeacher():
            return [
                f"{place}.path: {folder} is no checkpoint, {name} is missing"
                for name in CHECKPOINT_FILES
                if not (folder / name).is_file()
            ]
        case CTranslate2Folder():
            return _ctranslate2_missing(place, member)
        case HuggingFaceFolder():
            return _huggingface_missing(place, member)


def _ctranslate2_missing(place: str, member: CTranslate2Folder) -> list[str]:
    faults = []
    if not (Path(member.path) / "model.bin").is_file():
        faults.append(f"{place}.path: {member.path} is no CTranslate2 model, model.bin is missing")
    for field in ("sentencepiece", "target_sentencepiece"):
        name = getattr(member, field)
        if name is not None and not Path(name).is_file():
            faults.append(f"{place}.{field}: {name} is no file")
    return faults


def _huggingface_missing(place: str, member: HuggingFaceFolder) -> list[str]:
    folder = Path(member.path)
    try:
        family = read_json(folder / "config.json").get("model_type")
    except (RecipeError, AttributeError) as error:
        return [f"{place}.path: no Hugging Face model: {error}"]
    faults = []
    if family not in FAMILIES:
        faults.append(
            f"{place}.path: a model of type {family!r}; known are {', '.join(FAMILIES.values())}"
        )
    if not any(folder.glob("*.safetensors")):
        faults.append(
            f"{place}.path: no *.safetensors in {folder}: other weights are not read, since "
            "loading them can run code; save the model with safetensors first"
        )
    if family in ("m2m_100", "mbart"):
        faults += [
            f"{place}.{field}: {FAMILIES[family]} needs it"
            for field in ("src_lang", "trg_lang")
            if getattr(member, field) is None
        ]
    return faults


def _vocabulary(place: str, member: MemberConfig) -> list[str]:
    """Why a teacher cannot be asked by the pieces of one SentencePiece model."""
    files = sentencepiece_files(member)
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        return [
            f"{place}.path: distributions over the student's vocabulary (and ensembles) need one "
            f"SentencePiece model of both sides; this teacher has {names}. Use tokenizer.kind "
            "train with sentence-level objectives"
        ]
    try:
        pieces, _ = segmentation(files[0])
        if isinstance(member, CTranslate2Folder):
            known = set(target_vocabulary(Path(member.path)))
            words = [piece for piece, _, _ in pieces if not piece.startswith("<")]
            share = sum(piece in known for piece in words) / max(len(words), 1)
            if share < LEAST_KNOWN:
                return [
                    f"{place}.sentencepiece: the model in {member.path} knows {share:.0%} of its "
                    "pieces: it is another model's"
                ]
    except RecipeError as error:
        return [f"{place}: {error}"]
    return []


def _different_vocabularies(teacher: GivenTeacher) -> list[str]:
    (_, first), *others = members_of(teacher)
    expected = segmentation(sentencepiece_files(first)[0])
    return [
        f"{place}: its SentencePiece model differs from the first member's; an ensemble needs "
        "teachers of one vocabulary"
        for place, member in others
        if segmentation(sentencepiece_files(member)[0]) != expected
    ]


def _student_faults(recipe: Recipe, folder: Path) -> list[str]:
    """What a student that shares a checkpoint's tokens must have of its dimensions."""
    try:
        model = ModelConfig.model_validate(read_json(folder / "checkpoint.json")["model"])
    except (RecipeError, ValidationError, KeyError, TypeError) as error:
        return [f"teacher.path: {folder} is a damaged checkpoint: {error}"]
    faults = length_faults(recipe.student.model, model)
    if recipe.student.start == "teacher":
        faults += start_faults(recipe.student.model, model)
    return faults
