"""Standard input, or a file, translated to standard output as it comes.

A line that is typed is answered at once; lines that wait are translated together, and while they
are, the next ones are read. The thread that reads uses the file descriptor: Python, when it ends,
would wait for the lock of `sys.stdin`.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

from quickstudy.api import windows_of
from quickstudy.bulk.files import MAX_LINE_BYTES, LineFile
from quickstudy.bulk.records import LINES, Record, RecordFormat, read_record
from quickstudy.bulk.report import open_report, report_lines
from quickstudy.bulk.workers import Translate
from quickstudy.errors import QuickstudyError
from quickstudy.progress import Ticker

READ_BYTES = 1 << 18
"""Most that is read at a time: what is waiting there is translated together."""
STDIN = 0


def stream(
    translate: Translate,
    windows: Iterable[list[Record]],
    format: RecordFormat,
    report: Path | None,
    count: int | None,
) -> None:
    """Write the translations of windows of records to standard output, each as it is ready. With a
    `count` of records, progress is shown."""
    under_way: deque[list[Record]] = deque()

    def texts() -> Iterator[list[str]]:
        for window in windows:
            under_way.append(window)
            yield [record.text or "" for record in window]

    total = 0
    progress = nullcontext(None) if count is None else Ticker("translating", count, "lines")
    with open_report(report) as warnings, progress as tick:
        if tick is not None:
            tick(0)
        for lines in translate(texts()):
            for record, line in zip(under_way.popleft(), lines, strict=True):
                sys.stdout.write(format.render(record, line.text) + record.end)
            sys.stdout.flush()
            warnings.add(report_lines(total, lines))
            total += len(lines)
            if tick is not None:
                tick(total)
    if not os.isatty(STDIN):
        warnings.show(total)


def file_windows(file: LineFile) -> Iterator[list[Record]]:
    """Records of a file in windows."""
    records: deque[Record] = deque()

    def texts() -> Iterator[str]:
        for record in file.records():
            records.append(record)
            yield record.text or ""

    for window in windows_of(texts()):
        yield [records.popleft() for _ in window]


def count_input() -> int | None:
    """Lines of standard input if it is a file, read where it stands without moving on; None for a
    pipe or a terminal."""
    if not stat.S_ISREG(os.fstat(STDIN).st_mode):
        return None
    place = os.lseek(STDIN, 0, os.SEEK_CUR)
    count, last = 0, b"\n"
    while data := os.pread(STDIN, READ_BYTES, place):
        count += data.count(b"\n")
        place += len(data)
        last = data[-1:]
    return count + (last != b"\n")


def input_windows(format: RecordFormat) -> Iterator[list[Record]]:
    """Records of standard input, all that are waiting there at a time."""
    number = 0
    for lines in _waiting_lines():
        for window in windows_of(lines):
            records = []
            for line in window:
                number += 1
                records.append(read_record(format, line, f"standard input: line {number:,}"))
            yield records


def _waiting_lines() -> Iterator[list[str]]:
    """Lines of standard input with their ends, all that are waiting there at a time: one that is
    typed at a terminal or trickles through a pipe at once, those of a file in long lists."""
    rest = ""
    for text in waiting_text():
        lines = LINES.findall(rest + text)
        rest = lines.pop() if lines and lines[-1][-1] not in "\r\n" else ""
        if len(rest) > MAX_LINE_BYTES:
            raise QuickstudyError(
                f"standard input has a line longer than {MAX_LINE_BYTES >> 20} Mi characters: put "
                "line breaks between its paragraphs"
            )
        if lines:
            yield lines
    if rest:
        yield [rest]


def waiting_text() -> Iterator[str]:
    """Standard input as text, all that is waiting there at a time; no two-character line break is
    cut."""
    decoder = codecs.getincrementaldecoder(sys.stdin.encoding)()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=False)
    try:
        for data in _waiting_bytes():
            yield newlines.decode(data)
        yield newlines.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise QuickstudyError(
            f"standard input is not {error.encoding} text: convert it first, with iconv for example"
        ) from None


def _waiting_bytes() -> Iterator[bytes]:
    """What is waiting at standard input, READ_BYTES at most, each time the first of it has come."""
    while data := os.read(STDIN, READ_BYTES):
        parts, size = [data], len(data)
        while data and size < READ_BYTES and select.select([STDIN], [], [], 0)[0]:
            data = os.read(STDIN, READ_BYTES - size)
            parts.append(data)
            size += len(data)
        yield b"".join(parts)
        if not data:  # a terminal would have to be told twice
            return
