"""The files of a given teacher, and whether they fit the recipe; needs no torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.config.model import (
    AdoptedTokenizer,
    CheckpointTeacher,
    CTranslate2Folder,
    GivenTeacher,
    HuggingFaceFolder,
    MarianFolder,
    MemberConfig,
    ModelConfig,
    TeacherEnsemble,
    length_faults,
    members_of,
    start_faults,
)
from training.config.recipe import Recipe, RecipeError
from training.data.adopted_tokenizer import adopt, segmentation_of
from training.pretrained.coverage import extend
from training.pretrained.files import PretrainedError
from training.pretrained.marian_folder import DECODING, LEXICONS, MODELS, VOCABULARIES
from training.pretrained.reader import read_pretrained

HUGGINGFACE_FILES = ("*.json", "*.safetensors", "*.spm", "*.model", "*.txt")
CTRANSLATE2_FILES = ("model.bin", "*.json", "*.txt")
SOURCE_TOKENIZER = "source_tokenizer.model"
"""The source's SentencePiece model where it has one of its own, beside `tokenizer.model`."""
MARIAN_FILES = (*MODELS, *VOCABULARIES, *LEXICONS, *DECODING, "*.json", "*.safetensors")
MARIAN_VOCABULARY_FILES = (*VOCABULARIES, "*vocab*.json", "*vocab*.yml", "*vocab*.yaml")
CHECKPOINT_FILES = ("model.safetensors", "checkpoint.json", "tokenizer.model")


def teacher_files(teacher: GivenTeacher) -> list[Path]:
    """Every file that a given teacher's answers depend on, member by member, sorted by name."""
    return [path for _, member in members_of(teacher) for path in _member_files(member)]


def _member_files(member: MemberConfig) -> list[Path]:
    folder = Path(member.path)
    if isinstance(member, CheckpointTeacher):
        return [folder / name for name in CHECKPOINT_FILES]
    if isinstance(member, MarianFolder):
        return _matching(folder, MARIAN_FILES)
    if isinstance(member, CTranslate2Folder):
        return _matching(folder, CTRANSLATE2_FILES) + sentencepiece_files(member)
    return _matching(folder, HUGGINGFACE_FILES)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


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


def marian_tokenizers(member: MarianFolder) -> tuple[bytes, bytes | None]:
    """A Marian model's SentencePiece model of the target, with our ids, and of the source where it
    is another one. The whole model is checked.

    Raises RecipeError where it cannot be read.
    """
    stamps = [(path.name, *_stamp(path)) for path in _matching(Path(member.path), MARIAN_FILES)]
    return _marian_tokenizers(member.path, tuple(member.source_prefix), tuple(stamps))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=8)
def _marian_tokenizers(
    path: str, source_prefix: tuple[str, ...], stamps: tuple[Any, ...]
) -> tuple[bytes, bytes | None]:
    """`stamps` are what tells a changed folder, which is read again."""
    try:
        pretrained = read_pretrained(Path(path), source_prefix)
    except PretrainedError as error:
        raise RecipeError(str(error)) from None
    return pretrained.tokenizer, pretrained.source_tokenizer


def adopted_tokenizer(teacher: GivenTeacher, tokenizer: AdoptedTokenizer | None = None) -> bytes:
    """The SentencePiece model, with our ids, that a student takes over from a teacher, or from an
    ensemble's first member; with the pieces that `tokenizer` adds.

    Raises RecipeError where the teacher has not exactly one, or a piece cannot be added.
    """
    own = _own_tokenizer(members_of(teacher)[0][1])
    if tokenizer is None or not tokenizer.extended:
        return own
    try:
        return extend(own, tokenizer.add, tokenizer.byte_fallback)
    except PretrainedError as error:
        raise RecipeError(f"tokenizer.add: {error}") from None


def _own_tokenizer(member: MemberConfig) -> bytes:
    if not isinstance(member, MarianFolder):
        return adopt(adopted_file(member))
    target, source = marian_tokenizers(member)
    if source is not None:
        raise RecipeError(f"{member.path}: 2 SentencePiece models instead of one")
    return target


def adopted_tokenizer_files(teacher: GivenTeacher) -> list[Path]:
    """The files that an adopted tokenizer is made of."""
    member = members_of(teacher)[0][1]
    if isinstance(member, MarianFolder):
        return _matching(Path(member.path), MARIAN_VOCABULARY_FILES)
    return [adopted_file(teacher)]


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


FAMILIES = {"marian": "Marian", "m2m_100": "M2M100 or NLLB", "mbart": "mBART"}
"""Hugging Face `model_type`s that are known to work."""
LEAST_KNOWN = 0.9
"""Share of the pieces that a CTranslate2 model must know to be taken for theirs."""


def teacher_faults(recipe: Recipe) -> list[str]:
    """Every fault of a given teacher's files, each with its field; empty where there is none or
    the run trains its teacher."""
    teacher = recipe.teacher
    if teacher is None or teacher.kind == "train":
        return []
    adopted = isinstance(recipe.tokenizer, AdoptedTokenizer)
    places = members_of(teacher)
    faults = [fault for place, member in places for fault in _missing(place, member)]
    if not faults and needs_one_vocabulary(teacher, adopted):
        faults = [fault for place, member in places for fault in _vocabulary(place, member)]
        if not faults:
            faults = _different_vocabularies(teacher)
    if not faults and isinstance(recipe.tokenizer, AdoptedTokenizer):
        faults = _extension_faults(teacher, recipe.tokenizer)
    if not faults and isinstance(teacher, CheckpointTeacher) and adopted:
        faults = _student_faults(recipe, Path(teacher.path))
    return faults


def _extension_faults(teacher: GivenTeacher, tokenizer: AdoptedTokenizer) -> list[str]:
    try:
        adopted_tokenizer(teacher, tokenizer)
    except RecipeError as error:
        return [str(error)]
    return []


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
        case MarianFolder():
            try:
                marian_tokenizers(member)
            except RecipeError as error:
                return [f"{place}.path: {error}"]
            return []


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
    joint = len(files) == 1
    if isinstance(member, MarianFolder):
        joint = marian_tokenizers(member)[1] is None
    if not joint:
        names = ", ".join(path.name for path in files) or "none"
        return [
            f"{place}.path: distributions over the student's vocabulary (and ensembles) need one "
            f"SentencePiece model of both sides; this teacher has {names}. Use tokenizer.kind "
            "train with sentence-level objectives"
        ]
    try:
        pieces, _ = segmentation_of(_own_tokenizer(member))
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
    expected = segmentation_of(_own_tokenizer(first))
    return [
        f"{place}: its SentencePiece model differs from the first member's; an ensemble needs "
        "teachers of one vocabulary"
        for place, member in others
        if segmentation_of(_own_tokenizer(member)) != expected
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
