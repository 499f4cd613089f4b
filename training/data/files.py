"""The files of a corpus: found, unpacked, and read as lines of UTF-8.

What is text of another kind than it should be (UTF-16, Latin-1, old Macintosh lines, an archive) is
refused, with what to do.
"""

from __future__ import annotations

import difflib
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa

from quickstudy.atomic import atomic_write, check_replaceable
from training.config.recipe import CorpusConfig, RecipeError, SourceConfig

INVALID_UTF8 = "invalid_utf8"
MALFORMED = "malformed"
BUFFER_BYTES = 1 << 18
MAX_LINE_BYTES = 16 << 20
LOOK_BYTES = 1 << 16
"""Of a file's start, by which it is told what it is."""
NULL_SHARE = 0.2
"""Share of null bytes from which text is UTF-16."""
CHECK_LINES = 10_000
MANY_INVALID = 100
INVALID_SHARE = 0.05
"""Share of lines that are not UTF-8 from which a file is refused; a fifth of it where no line of
the file has anything but ASCII in UTF-8."""
ARCHIVES = ("tar", "tgz", "7z", "rar", "bz2", "xz", "xlsx", "xls", "ods")


class CorpusError(RecipeError):
    """Text that cannot be used; the message says where and what to do."""


class RawPair(NamedTuple):
    """A pair as it stands in a file; `trg` is None in monolingual text. With a `fault` (a rule's
    name), the texts mean nothing."""

    src: str
    trg: str | None
    fault: str | None = None


def source_name(source: SourceConfig) -> str:
    """How messages and reports call a source: by its files, as the recipe names them."""
    if source.path is not None:
        return source.path
    return str(source.src) if source.monolingual else f"{source.src} | {source.trg}"


def locate(name: str | None, field: str, corpus: CorpusConfig) -> Path:
    path = Path(corpus.root) / str(name)
    if not path.is_file():
        raise CorpusError(
            f"{field}: no file {path}{_nearest(path)}; correct the path, or set corpus.root "
            f"(`--data`) to the folder that it starts from"
        )
    return path


def unpacked(name: str) -> Path:
    return Path(name.removesuffix(".gz").removesuffix(".zst"))


def _nearest(path: Path) -> str:
    """A file of the same ending beside a missing one, packed or not, that may be meant."""
    beside = [
        entry.name
        for entry in (path.parent.iterdir() if path.parent.is_dir() else ())
        if unpacked(entry.name).suffix == unpacked(path.name).suffix
    ]
    nearest = difflib.get_close_matches(path.name, beside, n=1)
    return f" (there is {nearest[0]})" if nearest else ""


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz or .zst; cut-off files raise."""
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    return io.BufferedReader(pa.input_stream(str(path), compression), BUFFER_BYTES)


def read_lines(path: Path) -> Iterator[str | None]:
    r"""Lines, split at "\n" alone, without it; None for one that is not UTF-8.

    Raises CorpusError for UTF-16, for lines that end with carriage returns alone, for archives, and
    where so many lines are not UTF-8 that the file is in another encoding.
    """
    for line in read_byte_lines(path):
        yield decode(line.removesuffix(b"\n"))


def read_whole(path: Path) -> list[str]:
    """The lines of a file, an empty one for each that is not UTF-8. Raises CorpusError where it
    cannot be read."""
    try:
        return [line or "" for line in read_lines(path)]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from None


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines whole or not at all, packed where the name ends in .gz."""
    content = "".join(f"{line}\n" for line in lines).encode("utf-8")
    atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def check_output(out: Path, inputs: Iterable[Path]) -> None:
    """Raises QuickstudyError where a file to write is no file, or one of those that are read."""
    check_replaceable(out)
    if out.is_dir():
        raise CorpusError(f"{out} is a folder: choose another --out")
    if out.exists() and any(one.exists() and out.samefile(one) for one in inputs):
        raise CorpusError(f"{out} is an input: choose another --out")


def read_byte_lines(path: Path) -> Iterator[bytes]:
    """Lines with their ends, as bytes, without a byte order mark. Raises as `read_lines`."""
    with open_bytes(path) as file:
        yield from byte_lines(file, path)


def byte_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of an open file with their ends, without a byte order mark; `path` is what messages
    call it. Raises as `read_lines`, and for a line over `MAX_LINE_BYTES`."""
    _check_start(path, file.peek(LOOK_BYTES)[:LOOK_BYTES])  # type: ignore[attr-defined]
    check = _EncodingCheck(path)
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b"")):
        if len(line) == MAX_LINE_BYTES:
            raise CorpusError(
                f"{path}: line {number + 1:,} is longer than {MAX_LINE_BYTES:,} bytes, so this is "
                f"no text of one sentence a line; remove it"
            )
        check.add(line)
        yield line.removeprefix(b"\xef\xbb\xbf") if not number else line
    check.judge()


def _check_start(path: Path, start: bytes) -> None:
    """Raise CorpusError for what is no text in UTF-8 by its first bytes."""
    if start.startswith(b"PK\x03\x04"):
        raise CorpusError(f"{path}: a zip archive: give it as `path`, and its name the ending .zip")
    if start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        ending = "gz" if start[:1] == b"\x1f" else "zst"
        raise CorpusError(f"{path}: the file is packed; give it a name that ends in .{ending}")
    is_utf_16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    if is_utf_16 or (start and start.count(0) > NULL_SHARE * len(start)):
        raise CorpusError(
            f"{path}: the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > NEW"
        )
    if b"\r" in start.rstrip(b"\r") and b"\n" not in start:
        raise CorpusError(
            f"{path}: its lines end with carriage returns alone; convert them: "
            f"tr '\\r' '\\n' < {path.name} > NEW"
        )


class _EncodingCheck:
    """Counts the lines of a file that are not UTF-8."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = self._invalid = self._valid = 0
        self._sample = b""

    def add(self, line: bytes) -> None:
        self._lines += 1
        if not line.isascii():
            if decode(line) is None:
                self._invalid += 1
                self._sample += line if len(self._sample) < LOOK_BYTES else b""
            else:
                self._valid += 1
        if not self._lines % CHECK_LINES:
            self.judge()

    def judge(self) -> None:
        """Raise CorpusError if the file is in another encoding."""
        share = self._invalid / max(self._lines, 1)
        if self._valid:
            is_other = self._invalid >= MANY_INVALID and share >= INVALID_SHARE
        else:
            is_other = self._invalid > 1 and share >= INVALID_SHARE / 5
        if not is_other:
            return
        name = "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in self._sample) else "ISO-8859-1"
        raise CorpusError(
            f"{self._path}: {self._invalid:,} of {self._lines:,} lines are not UTF-8; the file may "
            f"be {name}, or another encoding of its language. Convert it: "
            f"iconv -f {name} -t UTF-8 {self._path.name} > NEW"
        )


def decode(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
