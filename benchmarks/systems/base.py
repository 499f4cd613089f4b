"""What a benchmark measures: systems that translate, each behind one small adapter.

A system is made in the process that plans the run, and made again in a process of its own, where
it is loaded and timed. So it is a dataclass whose fields are plain data (paths, names, numbers),
sent as JSON (`message.py`); what `load` fills has a name with an underscore. It imports the
libraries it needs inside `load`: their memory and time are then counted as its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

Role = Literal["teacher", "student", "baseline", "peer"]
WHOLE = 0
"""The batch size of a whole file at once."""
PLAIN_BATCH = 64


@dataclass(frozen=True)
class SystemInfo:
    """What a system is; all that a table needs to name it.

    `name` is unique in a run. `engine` is the program that computes (torch, CTranslate2, Marian),
    `precision` its numbers, `beam_size` 1 for greedy. `source` and `target` are language codes: a
    system of another pair than the run's is compared in source words a second only. `bytes` counts
    the files on disk that it loads. `versions` are those of the packages that its speed depends on.
    `note` says what a reader must know, such as another model. `scored` is False where translations
    are not the model's, so that only speed counts.
    """

    name: str
    role: Role
    engine: str
    precision: str
    beam_size: int
    source: str
    target: str
    parameters: int | None
    bytes: int
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    scored: bool = True


class System(Protocol):
    """One way to translate: a dataclass of plain data until it is loaded."""

    @property
    def info(self) -> SystemInfo:
        """What it is."""
        ...

    def load(self, threads: int) -> None:
        """Get ready to translate on so many threads; timed. Raises Unavailable where it cannot."""
        ...

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Texts in, texts out, in order, `batch_size` sentences a call of the engine; WHOLE: all of
        them at once, batched as the system does best by itself."""
        ...

    def close(self) -> None:
        """Let go of processes and files, loaded or not."""
        ...


class Unavailable(Exception):
    """A system that cannot run here; the message says why, or which command installs it."""


@dataclass(frozen=True)
class Subject:
    """The model that a run measures, for adapters that run the same weights elsewhere.

    `student` and `teacher` are checkpoint folders, None where the run has none. `folder` is where
    an adapter may write converted models, in a folder of its own name; it is kept for the run only.
    """

    source: str
    target: str
    bundle: Path | None
    student: Path | None
    teacher: Path | None
    folder: Path


Peer = Callable[[Subject], list[System]]
"""What an adapter file exports as `systems`: its systems of a subject, none if the subject lacks
what they need. Raises Unavailable where a package or program is not installed."""


def missing(install: str, packages: Sequence[str] = (), programs: Sequence[str] = ()) -> str | None:
    """What is not there of some importable modules and programs, and the command `install` that
    brings them; None if nothing is missing."""
    absent = [name for name in packages if find_spec(name) is None]
    absent += [name for name in programs if shutil.which(name) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed: {install}"


def versions_of(*distributions: str) -> dict[str, str]:
    """Installed versions by distribution name; those not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def bytes_on_disk(*paths: Path) -> int:
    """Size of files, and of all files below folders."""
    files = [path for path in paths if path.is_file()]
    files += [one for path in paths if path.is_dir() for one in path.rglob("*") if one.is_file()]
    return sum(path.stat().st_size for path in files)


def side_by_side(
    calls: Sequence[Sequence[str]],
    translate: Callable[[Sequence[str]], list[str]],
    threads: int,
) -> list[str]:
    """Translations of all calls, in order, of which as many as threads run at the same time."""
    if threads == 1 or len(calls) == 1:
        return [text for call in calls for text in translate(call)]
    with ThreadPoolExecutor(threads) as pool:
        return [text for texts in pool.map(translate, calls) for text in texts]


def batches(sentences: Sequence[str], batch_size: int) -> list[Sequence[str]]:
    """Sentences in order, `batch_size` at a time; for WHOLE, which an adapter may treat better,
    PLAIN_BATCH at a time. Raises ValueError for a negative size."""
    if batch_size < 0:
        raise ValueError(f"batch_size is {batch_size}: set it to 1 or more")
    size = batch_size or PLAIN_BATCH
    return [sentences[i : i + size] for i in range(0, len(sentences), size)]
