"""Teachers, built from what a recipe says of them.

A new one is a file here with the methods of `Teacher`, a class in `training.config.model`, and a
case in `build_teacher`. One that also has the methods of `Member` can be in an ensemble.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from training.config.model import (
    CheckpointTeacher,
    CTranslate2Folder,
    GivenTeacher,
    HuggingFaceFolder,
    MarianFolder,
    TeacherConfig,
    TeacherEnsemble,
    TrainedTeacher,
)
from training.config.recipe import LabelsConfig
from training.distill.teachers.base import Distributions, Member, Teacher
from training.distill.teachers.compiled import EngineOpener
from training.distill.teachers.ctranslate2_teacher import CTranslate2Teacher, CTranslate2Texts
from training.distill.teachers.external import (
    ExtendedTeacher,
    RetokenisedTeacher,
    TextOfTokensTeacher,
    TextTeacher,
)
from training.distill.teachers.huggingface import HuggingFaceTeacher, HuggingFaceTexts
from training.distill.teachers.marian import MarianTeacher
from training.distill.teachers.native import (
    CTranslate2Converter,
    EnsembleTeacher,
    NativeTeacher,
)
from training.teacher_files import adopted_tokenizer

__all__ = ["Distributions", "NativeTeacher", "Teacher", "TeacherJob", "build_teacher"]


@dataclass(frozen=True)
class TeacherJob:
    """Everything that a teacher is built from; it can be sent to another process."""

    config: TeacherConfig
    labels: LabelsConfig
    tokenizer: Path
    """The student's."""
    adopted: bool
    """Whether that tokenizer is the given teacher's own, maybe with pieces added."""
    max_length: int
    """The student's, in tokens."""
    trained: Path
    """Checkpoint of the teacher that the run trained, where it did."""
    source_tokenizer: Path | None = None
    """The student's of the source side, where that has one of its own."""


def build_teacher(
    job: TeacherJob,
    converter: CTranslate2Converter | None = None,
    open_engine: EngineOpener | None = None,
) -> Teacher:
    """The teacher that a recipe names; a checkpoint translates in CTranslate2 if there is a
    `converter`, else in torch. With `open_engine` a `marian` teacher whose translations are int8
    makes them by the engine that it opens.

    Raises RecipeError where it cannot be loaded or needs something that is not installed.
    """
    if not job.labels.translates_in_int8:
        open_engine = None
    if isinstance(job.config, TrainedTeacher):
        return NativeTeacher(job.trained, job.labels.batch_tokens, job.labels.precision, converter)
    if job.adopted:
        return _by_adopted_pieces(job.config, job, converter, open_engine)
    teacher = _by_text(job.config, job, converter, open_engine)
    return RetokenisedTeacher(teacher, job.tokenizer, job.max_length, job.source_tokenizer)


def _by_adopted_pieces(
    config: GivenTeacher,
    job: TeacherJob,
    converter: CTranslate2Converter | None,
    open_engine: EngineOpener | None,
) -> Member:
    """A teacher that is asked by the student's ids, which are its own, or begin with them."""
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / "tokenizer.model"
        own.write_bytes(adopted_tokenizer(config))
        teacher = _by_pieces(config, own, job, converter, open_engine)
        if own.read_bytes() == job.tokenizer.read_bytes():
            return teacher
        return ExtendedTeacher(teacher, own, job.tokenizer)


def _by_pieces(
    config: GivenTeacher,
    tokenizer: Path,
    job: TeacherJob,
    converter: CTranslate2Converter | None,
    open_engine: EngineOpener | None = None,
) -> Member:
    """A teacher that is asked by the ids of `tokenizer`, its own SentencePiece model."""
    budget = job.labels.batch_tokens
    match config:
        case CheckpointTeacher():
            return NativeTeacher(Path(config.path), budget, job.labels.precision, converter)
        case CTranslate2Folder():
            return CTranslate2Teacher(config, tokenizer, job.max_length, budget)
        case HuggingFaceFolder():
            return HuggingFaceTeacher(config, tokenizer, job.max_length, budget)
        case MarianFolder():
            return _marian(config, job, open_engine)
        case TeacherEnsemble():
            members = [_by_pieces(member, tokenizer, job, converter) for member in config.members]
            return EnsembleTeacher(members, config.weights)
    raise ValueError(f"no teacher is registered for {config!r}")


def _by_text(
    config: GivenTeacher,
    job: TeacherJob,
    converter: CTranslate2Converter | None,
    open_engine: EngineOpener | None,
) -> TextTeacher:
    """A teacher that is asked by text."""
    budget = job.labels.batch_tokens
    match config:
        case CTranslate2Folder():
            return CTranslate2Texts(config, job.max_length, budget)
        case HuggingFaceFolder():
            return HuggingFaceTexts(config, job.max_length, budget)
        case MarianFolder():
            return _marian_by_text(_marian(config, job, open_engine))
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "tokenizer.model"
        tokenizer.write_bytes(adopted_tokenizer(config))
        teacher = _by_pieces(config, tokenizer, job, converter, open_engine)
        return TextOfTokensTeacher(teacher, tokenizer, teacher.max_length)


def _marian(
    config: MarianFolder, job: TeacherJob, open_engine: EngineOpener | None
) -> MarianTeacher:
    labels = job.labels
    return MarianTeacher(config, job.max_length, labels.batch_tokens, labels.shortlist, open_engine)


def _marian_by_text(teacher: MarianTeacher) -> TextTeacher:
    """A Marian model with one vocabulary, or one a side."""
    pretrained = teacher.pretrained
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source.model", Path(scratch) / "target.model"
        source.write_bytes(pretrained.source_tokenizer or pretrained.tokenizer)
        target.write_bytes(pretrained.tokenizer)
        return TextOfTokensTeacher(teacher, source, teacher.max_length, target)
