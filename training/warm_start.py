"""Models that a student starts from, or takes its source tokenizer from: their files, and whether
they fit. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.config.model import ModelConfig, SeparateTokenizers, StartTokenizers, start_faults
from training.config.recipe import CheckpointStart, PretrainedStart, Recipe, RecipeError
from training.pretrained.base import PretrainedModel
from training.pretrained.coverage import extend
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained
from training.pretrained.trimmed import trim
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


def whole_start(recipe: Recipe) -> Path | None:
    """Folder of the pretrained model that what the student starts from was cut out of, or is."""
    start = recipe.student.start
    if isinstance(start, CheckpointStart):
        return None if start.whole is None else Path(start.whole)
    return pretrained_start(recipe)


def source_tokenizer(model: PretrainedModel) -> bytes:
    """The SentencePiece model that cuts a pretrained model's sources."""
    return model.source_tokenizer or model.tokenizer


Lines = Callable[[], Iterable[str]]


def own_tokenizers(start: Path) -> tuple[bytes, bytes | None]:
    """The SentencePiece model of a checkpoint or pretrained model, and that of its source side
    where it is another one. Raises RecipeError where they cannot be read."""
    if (start / "checkpoint.json").is_file():
        source = start / SOURCE_TOKENIZER
        target = (start / "tokenizer.model").read_bytes()
        return target, source.read_bytes() if source.is_file() else None
    stamps = tuple(sorted((p.name, p.stat().st_mtime_ns) for p in start.iterdir()))
    try:
        return _pretrained_tokenizers(start, stamps)
    except PretrainedError as error:
        raise RecipeError(f"student.start.pretrained: {error}") from None


@lru_cache(maxsize=4)
def _pretrained_tokenizers(folder: Path, stamps: tuple[Any, ...]) -> tuple[bytes, bytes | None]:
    """`stamps` are what tells a changed folder, which is read again."""
    model = read_pretrained(folder)
    return model.tokenizer, model.source_tokenizer


def lent_start(recipe: Recipe) -> Path:
    """What a recipe of tokenizer.kind start takes its tokenizers from."""
    folder = pretrained_start(recipe) or start_folder(recipe, None)
    assert folder is not None, "a checked recipe names a start"
    return folder


def lent_tokenizers(
    recipe: Recipe, config: StartTokenizers, sources: Lines, targets: Lines
) -> tuple[bytes, bytes | None]:
    """The SentencePiece models of what the student starts from, of the target or of both sides and
    of the source, cut down to what these lines need. Raises RecipeError where they cannot be."""
    target, source = own_tokenizers(lent_start(recipe))

    def fitted(model: bytes, lines: Iterable[str], size: int | None) -> bytes:
        whole = extend(model, config.add, config.byte_fallback)
        return whole if size is None else trim(whole, lines, size, config.add)

    def both() -> Iterable[str]:
        yield from sources()
        yield from targets()

    try:
        if source is None:
            if config.source_size is not None:
                raise PretrainedError("source_size: one model is of both sides, set `size` alone")
            return fitted(target, both(), config.size), None
        return fitted(target, targets(), config.size), fitted(source, sources(), config.source_size)
    except PretrainedError as error:
        raise RecipeError(f"tokenizer: {error}") from None


def start_identity(recipe: Recipe) -> list[Any]:
    """What a model to start from is, for a fingerprint: its files' content. Else empty."""
    from training.stage import file_digest

    start = recipe.student.start
    if isinstance(start, PretrainedStart):
        return sorted(read_pretrained(Path(start.pretrained)).files.items())
    if not isinstance(start, CheckpointStart):
        return []
    digests = [file_digest(Path(start.checkpoint) / name) for name in CHECKPOINT_FILES]
    if start.whole is None:
        return digests
    return [*digests, sorted(read_pretrained(Path(start.whole)).files.items())]


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
    elif (folder := whole_start(recipe)) is not None:
        named["student.start.whole"] = folder
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
    whole = models.get("student.start.whole")
    by_states = recipe.student.objective.kind == "start-states"
    if whole is not None and by_states and whole.config.width != recipe.student.model.width:
        faults.append(
            f"student.start.whole: start-states needs a model as wide as the student, "
            f"{recipe.student.model.width}; that one is {whole.config.width} wide"
        )
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
