"""What may be wrong with translations, counted and by line."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from quickstudy.atomic import atomic_file
from quickstudy.bulk.workers import TranslatedLine


def report_lines(first: int, lines: Sequence[TranslatedLine]) -> str:
    """JSONL, a line for each warning: `line` (from 1; `first` is the number before it), `code`,
    `message`."""
    return "".join(
        json.dumps({"line": number, "code": code, "message": message}, ensure_ascii=False) + "\n"
        for number, line in enumerate(lines, first + 1)
        for code, message in line.warnings
    )


@contextmanager
def open_report(path: Path | None) -> Iterator[WarningReport]:
    """A report, written to a file atomically, or only counted."""
    if path is None:
        yield WarningReport()
    else:
        with atomic_file(path) as draft, draft.open("w", encoding="utf-8") as file:
            yield WarningReport(file)


class WarningReport:
    """Counts warnings by their codes, and the lines that have some; writes them to a file."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = file
        self.codes: Counter[str] = Counter()
        self.lines = 0
        self._last = 0

    def add(self, report: str) -> None:
        """Add some lines of `report_lines`; they come in the order of their numbers."""
        if self._file is not None:
            self._file.write(report)
        for line in report.splitlines():
            warning = json.loads(line)
            self.codes[warning["code"]] += 1
            self.lines += warning["line"] != self._last
            self._last = warning["line"]

    def show(self, total: int) -> None:
        """One line on standard error, unless there were no warnings."""
        if self.lines:
            counts = ", ".join(f"{code} {count:,}" for code, count in self.codes.most_common())
            print(
                f"quickstudy: {self.lines:,} of {total:,} lines have warnings: {counts}",
                file=sys.stderr,
                flush=True,
            )
