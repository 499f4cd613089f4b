"""What `quickstudy translate` does with its options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quickstudy.api import Model
from quickstudy.atomic import atomic_write, check_replaceable
from quickstudy.bulk.files import LineFile, kind_of, open_file, record_format
from quickstudy.bulk.job import JobConfig, run_job
from quickstudy.bulk.stream import (
    count_input,
    file_windows,
    input_windows,
    stream,
    waiting_text,
)
from quickstudy.bulk.workers import Translate, TranslateConfig, ray_workers, translate_here
from quickstudy.errors import QuickstudyError


@dataclass(frozen=True)
class BulkCommand:
    """Where text comes from and goes to, see `quickstudy translate --help`."""

    config: TranslateConfig
    input: Path | None
    output: Path | None
    records: Literal["auto", "lines", "jsonl", "parquet"]
    field: str
    output_field: str
    report: Path | None
    shard_lines: int
    workers: str | None

    @property
    def kind(self) -> str:
        """`lines`, `jsonl` or `parquet`."""
        if self.records != "auto":
            return self.records
        return "lines" if self.input is None else kind_of(self.input)

    @property
    def is_document(self) -> bool:
        """Whether the input is one document of HTML or Markdown."""
        return self.kind == "lines" and self.config.format != "text"

    @property
    def is_resumable(self) -> bool:
        """Whether the same command goes on where it was stopped."""
        return self.output is not None and not self.is_document

    def run(self) -> None:
        """Translate everything. Raises QuickstudyError."""
        self._check()
        with closing(self.config.load()) as model:
            if self.is_document:
                self._translate_document(model)
            elif self.output is not None:
                self._run_job(model, self.output)
            else:
                self._stream(model)

    def _check(self) -> None:
        """Raises QuickstudyError for options that contradict each other, and for what is no file
        to write to."""
        if self.workers not in (None, "ray"):
            raise QuickstudyError(
                f"--workers takes `ray`, not {self.workers!r}; without it all cores are used, or "
                "as many as --threads says"
            )
        if self.kind == "parquet" and (self.output is None or self.input is None):
            raise QuickstudyError("Parquet is translated from --input FILE to --output FILE")
        if self.is_document and (self.report or self.workers):
            raise QuickstudyError(
                f"--report and --workers are for lines, and {self.config.format} is one document: "
                "leave them out"
            )
        for path in filter(None, (self.output, self.report)):
            check_replaceable(path)
            if path.is_dir():
                raise QuickstudyError(f"{path} is a folder: name a file to write")
            if self.input is not None and _same(path, self.input):
                raise QuickstudyError(f"{path} is the input: choose another file to write")

    def _translate_document(self, model: Model) -> None:
        document = "".join(waiting_text()) if self.input is None else _read_document(self.input)
        translated = model.translate(
            document,
            format=self.config.format,
            beam_size=self.config.beam_size,
            formality=self.config.formality,
            translate_attributes=True,
        )
        if self.output is None:
            print(translated, end="")
        else:
            atomic_write(self.output, translated)

    def _run_job(self, model: Model, output: Path) -> None:
        identity = {
            "model": model.identity,
            "markup": self.config.format,
            "beam_size": self.config.beam_size,
            "formality": self.config.formality,
            "fallback": self.config.fallback_decoding,
        }
        job = JobConfig(
            self.input,
            output,
            self.kind,
            self.field,
            self.output_field,
            self.report,
            self.shard_lines,
        )
        run_job(job, identity, lambda: self._workers(model))

    def _stream(self, model: Model) -> None:
        format = record_format(self.kind, self.field, self.output_field)
        count: int | None = None
        if self.input is None:
            windows = input_windows(format)
            count = None if sys.stdout.isatty() else count_input()
        else:
            file = open_file(self.input, self.kind, self.field, self.output_field)
            assert isinstance(file, LineFile)  # Parquet is refused
            windows = file_windows(file)
            count = None if sys.stdout.isatty() else sum(1 for _ in file.records())
        with self._workers(model) as translate:
            stream(translate, windows, format, self.report, count)

    @contextmanager
    def _workers(self, model: Model) -> Iterator[Translate]:
        if self.workers == "ray":
            with ray_workers(self.config, model.identity) as translate:
                yield translate
        else:
            yield translate_here(model, self.config)


def _read_document(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise QuickstudyError(
            f"{path} is not UTF-8: convert it first, with iconv for example"
        ) from None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
