"""A stage: when it is done, when it is skipped, and how it runs again.

A stage has a folder with a `stage.json`: a hash of its inputs (the recipe's part, the text's
content, the results of the stages before it) and of its outputs. It is skipped while those are
unchanged. A killed stage resumes; one whose inputs changed starts anew, and its former folder is
kept beside it as `*.previous`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from quickstudy.atomic import atomic_write, sha256_of
from quickstudy.errors import writing
from training.config.recipe import RecipeError
from training.distributed import is_first_process, is_other_process, only_one

METADATA_FILE = "stage.json"
WAIT = 0.2


def say(message: str) -> None:
    """Print a line to standard error, from the first process only."""
    if not is_first_process() or is_other_process():
        return
    print(message, file=sys.stderr, flush=True)


def digest(value: Any) -> str:
    """Short hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def fingerprint_of(value: Any, leave_out: tuple[str, ...] = ()) -> Any:
    """What of a recipe's section a result depends on, as JSON: what differs from the defaults.

    A later version with one more option thus makes nothing again that was made without it. Where a
    default has changed, what counts is the former one (`FORMER_DEFAULTS`).
    """
    if isinstance(value, BaseModel):
        former = getattr(type(value), "FORMER_DEFAULTS", {})
        defaults = {
            name: former.get(name, _default(field))
            for name, field in type(value).model_fields.items()
        }
        return {
            name: fingerprint_of(getattr(value, name))
            for name, default in defaults.items()
            if name not in leave_out and (name == "kind" or getattr(value, name) != default)
        }
    if isinstance(value, dict):
        return {key: fingerprint_of(item) for key, item in value.items()}
    return [fingerprint_of(item) for item in value] if isinstance(value, list | tuple) else value


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def file_digest(path: Path) -> str:
    """Hash of a file's content. Raises RecipeError where it is missing."""
    try:
        about = path.stat()
        return _file_digest(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        why = error.strerror
        raise RecipeError(f"{path}: cannot be read ({why}); set corpus.root or --data") from None


@functools.cache
def _file_digest(path: Path, _size: int, _changed: int) -> str:
    """Read once in a process while size and time of change stay."""
    return sha256_of(path)[:20]


def result_digest(paths: list[Path]) -> str:
    """Hash of a stage's outputs: files, and every file below folders."""
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]
    return digest([[file.name, file_digest(file)] for file in files])


@dataclass(frozen=True)
class Stage:
    """One step: what its result depends on, where that lies, and how to make it."""

    name: str
    folder: Path
    inputs: Callable[[], Any]
    run: Callable[[], None]
    outputs: Callable[[], list[Path]]
    depends_on: tuple[str, ...] = ()
    join: Callable[[], None] | None = None
    """What the other processes of a run on several machines do meanwhile; None: they wait."""

    def metadata(self) -> dict[str, Any]:
        path = self.folder / METADATA_FILE
        return json.loads(path.read_text()) if path.exists() else {}


def fingerprint(stage: Stage, stages: dict[str, Stage]) -> str:
    """Hash of a stage's inputs and of the results of the stages before it."""
    return digest(
        [stage.inputs(), *(stages[name].metadata().get("result") for name in stage.depends_on)]
    )


def run_stage(stage: Stage, stages: dict[str, Stage], force: bool = False) -> bool:
    """Make a stage unless it is done; → whether anything was done.

    Raises RecipeError where a stage that it needs is not done with the same recipe, and where
    another process is at work on the stage.
    """
    for name in stage.depends_on:
        if not is_done(stages[name], stages):
            raise RecipeError(
                f"{stage.name} needs the stage `{name}`, which is not done with this recipe: run "
                f"it first, or `quickstudy run`"
            )
    if is_done(stage, stages) and not force:
        say(f"{stage.name}: already done with the same inputs, skipped ({stage.folder})")
        return False
    if not is_first_process():
        return _follow(stage, stages, force)
    with only_one(stage.folder):
        _execute(stage, fingerprint(stage, stages), force)
    return True


def _follow(stage: Stage, stages: dict[str, Stage], force: bool) -> bool:
    """Another process's part in a stage: join the training that the first process has begun, and
    wait until it is done. The launcher ends this process where the first one fails."""
    if force:
        raise RecipeError("--force is for one process: start it without the launcher")
    wanted = fingerprint(stage, stages)
    joined = stage.join is None
    while not is_done(stage, stages):
        if stage.join is not None and not joined and stage.metadata().get("fingerprint") == wanted:
            joined = True
            stage.join()
        time.sleep(WAIT)
    return True


def _execute(stage: Stage, now: str, force: bool) -> None:
    before = stage.metadata().get("fingerprint", now)
    if stage.folder.exists() and (before != now or force):
        _set_aside(stage.folder, "its inputs changed" if before != now else "made again")
    stage.folder.mkdir(parents=True, exist_ok=True)
    atomic_write(stage.folder / METADATA_FILE, json.dumps({"fingerprint": now, "done": False}))
    say(f"{stage.name}: → {stage.folder}")
    with writing(stage.folder):
        stage.run()
    metadata = {"fingerprint": now, "done": True, "result": result_digest(stage.outputs())}
    atomic_write(stage.folder / METADATA_FILE, json.dumps(metadata))


def is_done(stage: Stage, stages: dict[str, Stage]) -> bool:
    """Whether a stage's results exist and match its current inputs and the stages before it."""
    metadata = stage.metadata()
    return (
        bool(metadata.get("done"))
        and all(is_done(stages[name], stages) for name in stage.depends_on)
        and metadata.get("fingerprint") == fingerprint(stage, stages)
        and all(path.exists() for path in stage.outputs())
    )


def _set_aside(folder: Path, why: str) -> None:
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    folder.rename(previous)
    say(f"{folder.name}: {why}; the former results are in {previous}")
