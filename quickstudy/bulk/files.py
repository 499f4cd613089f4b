"""Files to translate, read in shards: lines or JSONL, perhaps compressed, or Parquet.

Memory holds a few shards, whatever the size of a file. A part is a translated shard, a file in the
format of the output, so that joining parts copies bytes (gzip and Zstandard streams may follow one
another) or row groups.
"""

from __future__ import annotations

import gzip
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from quickstudy.atomic import atomic_file, atomic_write
from quickstudy.bulk.records import (
    LINES,
    JsonLines,
    Record,
    RecordFormat,
    TextLines,
    read_record,
)
from quickstudy.errors import QuickstudyError

MAX_LINE_BYTES = 16 << 20
BUFFER_BYTES = 1 << 18
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
"""Kinds of files by the end of their names; all others are lines."""
NEEDS_PYARROW = "needs pyarrow: pip install 'quickstudy[parquet]'"


@dataclass(frozen=True)
class Shard:
    """Consecutive texts of a file, the first of them number `first` (from 0), and what they stand
    in. A text of None has no translation."""

    number: int
    first: int
    texts: Sequence[str | None]
    kept: Any


class BulkFile(Protocol):
    """A file to translate."""

    def shards(self, size: int) -> Iterator[Shard]:
        """The file in shards of `size` texts, the last one of fewer. Raises QuickstudyError for
        what cannot be translated."""

    def write_part(self, shard: Shard, translations: Sequence[str], path: Path) -> None:
        """Write a shard's translations atomically."""

    def join(self, parts: Sequence[Path], output: Path) -> None:
        """Write the output, all parts in their order, atomically."""


def kind_of(path: Path) -> str:
    """`lines`, `jsonl` or `parquet`, by a file's name."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return KINDS.get(name.suffix.lower(), "lines")


def open_file(
    path: Path, kind: str, field: str, output_field: str, output: Path | None = None
) -> BulkFile:
    """A file of a kind, to be written to `output`. Raises QuickstudyError where their kinds differ
    or a library is missing."""
    fitting = {kind} if kind == "parquet" else {kind, "lines"}
    if output is not None and kind_of(output) not in fitting:
        raise QuickstudyError(
            f"{output}: the output is {kind}, as the input is: choose a name that says so"
        )
    if path.is_dir():
        raise QuickstudyError(f"{path} is a folder: give one file of it to --input")
    if not path.is_file():
        raise QuickstudyError(f"{path}: no such file; correct --input")
    if kind == "parquet":
        return ParquetFile(path, field, output_field)
    compression = COMPRESSIONS.get(output.suffix.lower()) if output else None
    if compression == "zstd":
        _pyarrow(output)
    return LineFile(path, record_format(kind, field, output_field), compression)


def record_format(kind: str, field: str, output_field: str) -> RecordFormat:
    """How texts stand in the lines of `lines` or `jsonl`."""
    return JsonLines(field, output_field) if kind == "jsonl" else TextLines()


def _pyarrow(path: Path | None) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise QuickstudyError(f"{path} {NEEDS_PYARROW}") from None
    return pyarrow


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz or .zst."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression == "gzip":
        return cast(IO[bytes], io.BufferedReader(gzip.open(path, "rb"), BUFFER_BYTES))
    if compression == "zstd":
        stream = _pyarrow(path).input_stream(str(path), compression)
        return io.BufferedReader(stream, BUFFER_BYTES)
    return path.open("rb", BUFFER_BYTES)


# --- lines --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineFile:
    """A file of lines. Line breaks, which are kept, are those of Python's text files: "\\n",
    "\\r\\n" and "\\r"."""

    path: Path
    format: RecordFormat
    compression: str | None = None
    """Of the output: gzip, zstd or None."""

    def records(self) -> Iterator[Record]:
        """The records, in order. Raises QuickstudyError for the first that cannot be read."""
        for number, line in enumerate(self._lines(), 1):
            yield read_record(self.format, line, f"{self.path}: line {number:,}")

    def _lines(self) -> Iterator[str]:
        number = 0
        try:
            with open_bytes(self.path) as file:
                while data := file.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(data) > MAX_LINE_BYTES:
                        raise QuickstudyError(
                            f"{self.path}: line {number:,} is longer than {MAX_LINE_BYTES >> 20} "
                            "MiB: put line breaks between its paragraphs"
                        )
                    text = data.decode("utf-8")
                    yield from LINES.findall(text.removeprefix("\ufeff") if number == 1 else text)
        except UnicodeDecodeError:
            raise QuickstudyError(
                f"{self.path}: line {number:,} is not UTF-8: convert the file first, with iconv "
                "for example"
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise QuickstudyError(f"{self.path} cannot be unpacked: {error}") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise QuickstudyError(f"{self.path} cannot be unpacked: {error}") from None

    def shards(self, size: int) -> Iterator[Shard]:
        records: list[Record] = []
        number = 0
        for record in self.records():
            records.append(record)
            if len(records) == size:
                yield self._shard(number, size, records)
                number, records = number + 1, []
        if records:
            yield self._shard(number, size, records)

    def _shard(self, number: int, size: int, records: list[Record]) -> Shard:
        return Shard(number, number * size, [record.text for record in records], records)

    def write_part(self, shard: Shard, translations: Sequence[str], path: Path) -> None:
        lines = map(self.format.render, shard.kept, translations)
        ends = (record.end for record in shard.kept)
        data = "".join(map("".join, zip(lines, ends, strict=True))).encode("utf-8")
        atomic_write(path, self._packed(data))

    def _packed(self, data: bytes) -> bytes:
        if self.compression == "gzip":
            return gzip.compress(data, 6, mtime=0)
        if self.compression == "zstd":
            return cast(bytes, _pyarrow(None).compress(data, codec="zstd", asbytes=True))
        return data

    def join(self, parts: Sequence[Path], output: Path) -> None:
        with atomic_file(output) as draft, draft.open("wb") as joined:
            if not parts:
                joined.write(self._packed(b""))
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)


# --- Parquet ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file: the strings of a column are the texts, their translations another column.

    Raises QuickstudyError without pyarrow, for a file that is not Parquet, or without the column.
    """

    path: Path
    field: str
    output_field: str

    def __post_init__(self) -> None:
        self._schema()

    def _open(self) -> Any:
        """The file. Raises QuickstudyError where it is not Parquet."""
        pa = _pyarrow(self.path)
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowInvalid as error:
            raise QuickstudyError(f"{self.path} cannot be read as Parquet: {error}") from None

    def _schema(self) -> Any:
        """The output's schema. Raises QuickstudyError where a column is missing or in the way."""
        pa = _pyarrow(self.path)
        with self._open() as file:
            schema = file.schema_arrow
        columns = ", ".join(schema.names)
        if schema.names.count(self.field) != 1:
            raise QuickstudyError(
                f"{self.path} has no column {self.field!r} (it has: {columns}): name the text's by "
                "--field"
            )
        kind = schema.field(self.field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise QuickstudyError(f"{self.path}: the column {self.field!r} is {kind}, not text")
        added = pa.field(self.output_field, kind)
        if self.output_field == self.field:
            return schema.set(schema.get_field_index(self.field), added)
        if self.output_field in schema.names:
            raise QuickstudyError(
                f"{self.path} has a column {self.output_field!r} already: choose another "
                "--output-field"
            )
        return schema.append(added)

    def shards(self, size: int) -> Iterator[Shard]:
        pa = _pyarrow(self.path)
        number, waiting = 0, []
        with self._open() as file:
            for batch in file.iter_batches(batch_size=min(size, 1000)):
                waiting.append(batch)
                while sum(map(len, waiting)) >= size:
                    table = pa.Table.from_batches(waiting)
                    yield self._shard(number, size, table.slice(0, size))
                    number, waiting = number + 1, table.slice(size).to_batches()
        if sum(map(len, waiting)):
            yield self._shard(number, size, pa.Table.from_batches(waiting))

    def _shard(self, number: int, size: int, table: Any) -> Shard:
        try:
            texts = table[self.field].to_pylist()
        except UnicodeDecodeError:
            raise QuickstudyError(
                f"{self.path}: {self.field!r} is not UTF-8 in rows {number * size + 1:,} to "
                f"{number * size + len(table):,}: convert them first"
            ) from None
        return Shard(number, number * size, texts, table)

    def write_part(self, shard: Shard, translations: Sequence[str], path: Path) -> None:
        pa = _pyarrow(self.path)
        import pyarrow.parquet as pq

        schema = self._schema()
        added = schema.field(self.output_field)
        values = [
            None if text is None else translation
            for text, translation in zip(shard.texts, translations, strict=True)
        ]
        columns = dict(zip(shard.kept.column_names, shard.kept.columns, strict=True))
        columns[self.output_field] = pa.chunked_array([pa.array(values, added.type)])
        table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
        with atomic_file(path) as draft:
            pq.write_table(table, draft)

    def join(self, parts: Sequence[Path], output: Path) -> None:
        import pyarrow.parquet as pq

        with (
            atomic_file(output) as draft,
            pq.ParquetWriter(draft, self._schema()) as writer,
        ):
            for part in parts:
                with pq.ParquetFile(part) as file:
                    writer.write_table(file.read())
