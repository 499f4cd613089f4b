"""A file translated to a file, in shards, so that a run that was stopped goes on.

Beside the output lies a folder, its name and `.parts`, until it is complete:

    job.json             what the parts depend on: input, model, options
    00000, 00001, …      finished parts, in the output's format
    00000.warnings       their warnings, JSONL
    input                what came from standard input

Every file is written atomically, a part after its warnings; the output appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.api import windows_of
from quickstudy.atomic import DRAFT, atomic_file, atomic_write, sha256_of
from quickstudy.bulk.files import BulkFile, Shard, open_file
from quickstudy.bulk.report import open_report, report_lines
from quickstudy.bulk.workers import Translate, TranslatedLine
from quickstudy.errors import QuickstudyError
from quickstudy.progress import Ticker

JOB_FILE = "job.json"
JOB_FORMAT = 1
INPUT_FILE = "input"
LOCK_FILE = "lock"
SHARD_LINES = 5_000


@dataclass(frozen=True)
class JobConfig:
    """What to translate, and how it is cut.

    `input` None is standard input. `kind` is `lines`, `jsonl` or `parquet`, and for the latter two
    `field` holds the text and `output_field` its translation. `report` gets the warnings.
    """

    input: Path | None
    output: Path
    kind: str = "lines"
    field: str = "text"
    output_field: str = "translation"
    report: Path | None = None
    shard_lines: int = SHARD_LINES

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self.output.with_name(f"{self.output.name}.parts")


def run_job(
    config: JobConfig, identity: dict[str, Any], workers: Callable[[], Any], source_fd: int = 0
) -> None:
    """Translate what is not translated yet, and write the output and the report.

    `identity` is what translations depend on: model and options. `workers` makes a context that
    gives a `Translate`, and is called only if there is something to translate. Raises
    QuickstudyError where the parts there come from another input, model or options.
    """
    with _locked(config.parts):
        try:
            path = config.input or _spool(config.parts, source_fd)
            job = _Job(config, path)
            job.claim(identity)
        except BaseException:
            if not (config.parts / JOB_FILE).exists():  # nothing has begun
                shutil.rmtree(config.parts, ignore_errors=True)
            raise
        if job.pending:
            with workers() as translate:
                job.translate(translate)
        job.finish()
        shutil.rmtree(config.parts, ignore_errors=True)


@contextmanager
def _locked(parts: Path) -> Iterator[None]:
    """Hold the folder of parts, made where it is missing.

    Raises QuickstudyError if another process does, or the folder is something else.
    """
    parts.mkdir(parents=True, exist_ok=True)
    ours = {JOB_FILE, INPUT_FILE, LOCK_FILE}
    names = {entry.name for entry in parts.iterdir() if not entry.name.endswith(DRAFT)}
    if JOB_FILE not in names and not names <= ours:
        raise QuickstudyError(
            f"{parts} holds other files: move them away, or choose another --output"
        )
    descriptor = os.open(parts / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuickstudyError(
                f"{parts}: another process works on this output: wait for it, or choose another "
                "--output"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def _spool(parts: Path, source_fd: int) -> Path:
    """Standard input as a file: it is read twice, and compared when the job goes on."""
    path = parts / INPUT_FILE
    with atomic_file(path) as draft, draft.open("wb") as file:
        while data := os.read(source_fd, 1 << 20):
            file.write(data)
    return path


class _Job:
    """A job with its folder locked: counts the input, then translates what is pending."""

    def __init__(self, config: JobConfig, path: Path) -> None:
        self._config = config
        self._path = path
        self._file: BulkFile = open_file(
            path, config.kind, config.field, config.output_field, config.output
        )
        self._state = _state(path)
        self._sizes = self._count()
        self.pending = {
            number for number in range(len(self._sizes)) if not self._part(number).exists()
        }

    @property
    def lines(self) -> int:
        return sum(self._sizes)

    def _part(self, number: int) -> Path:
        return self._config.parts / f"{number:05d}"

    def _warnings(self, number: int) -> Path:
        return self._config.parts / f"{number:05d}.warnings"

    def _count(self) -> list[int]:
        """The lines of each shard; whatever cannot be translated is found here, before hours of
        work."""
        sizes = []
        with Ticker("reading", None, "lines") as tick:
            for shard in self._file.shards(self._config.shard_lines):
                sizes.append(len(shard.texts))
                tick(shard.first + len(shard.texts))
        return sizes

    def claim(self, identity: dict[str, Any]) -> None:
        """Write what the parts depend on, or compare it. Raises QuickstudyError."""
        config = self._config
        wanted = {
            "format": JOB_FORMAT,
            "input": sha256_of(self._path),
            "lines": self.lines,
            **identity,
            "kind": config.kind,
            "field": config.field,
            "output_field": config.output_field,
            "compression": config.output.suffix.lower(),
            "shard_lines": config.shard_lines,
        }
        path = config.parts / JOB_FILE
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            atomic_write(path, json.dumps(wanted, indent=2) + "\n")
            return
        except ValueError:
            begun = {}
        changed = [name for name in wanted if begun.get(name) != wanted[name]]
        if changed:
            raise QuickstudyError(
                f"{config.parts} was begun with other values of {', '.join(changed)}: repeat the "
                "command as it was, delete that folder to start over, or choose another --output"
            )

    def translate(self, translate: Translate) -> None:
        """Translate the pending shards; windows go on over the ends of shards."""
        done = self.lines - sum(self._sizes[number] for number in self.pending)
        if done:
            print(f"quickstudy: {done:,} of {self.lines:,} lines are done", file=sys.stderr)
        under_way: deque[Shard] = deque()
        lines: list[TranslatedLine] = []
        with Ticker("translating", self.lines, "lines") as tick:
            tick(done)
            for window in translate(self._windows(under_way)):
                lines += window
                done += len(window)
                tick(done)
                if len(lines) == len(under_way[0].texts):
                    self._write(under_way.popleft(), lines)
                    lines = []

    def _windows(self, under_way: deque[Shard]) -> Iterator[list[str]]:
        for shard in self._file.shards(self._config.shard_lines):
            if shard.number in self.pending:
                under_way.append(shard)
                yield from windows_of(text or "" for text in shard.texts)

    def _write(self, shard: Shard, lines: list[TranslatedLine]) -> None:
        if _state(self._path) != self._state:
            raise QuickstudyError(
                f"{self._path} has changed while it was translated: run the same command again"
            )
        atomic_write(self._warnings(shard.number), report_lines(shard.first, lines))
        self._file.write_part(shard, [line.text for line in lines], self._part(shard.number))

    def finish(self) -> None:
        """Join the parts, write the report, and show the warnings' counts."""
        numbers = range(len(self._sizes))
        with open_report(self._config.report) as warnings:
            for number in numbers:
                warnings.add(self._warnings(number).read_text(encoding="utf-8"))
        self._file.join([self._part(number) for number in numbers], self._config.output)
        warnings.show(self.lines)


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns
