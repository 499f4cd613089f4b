"""Tables of text: TSV and CSV (RFC 4180), with or without a header and quotes.

What the beginning of a file shows decides: a row of names is a header, a TSV file is quoted where
all of its fields are. Columns of scores, numbers or language codes in place of text are refused.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.config.recipe import CorpusConfig, SourceConfig
from training.data.files import (
    INVALID_UTF8,
    MALFORMED,
    CorpusError,
    RawPair,
    locate,
    read_byte_lines,
    read_lines,
    source_name,
)

LOOK_ROWS = 200
FEW_ROWS = 3
"""Rows from which a column's content is judged."""
SHARE = 0.9
DELIMITERS = (",", ";", "\t")
SOURCE_NAMES = frozenset("source src source_text source_sentence original sentence1".split())  # noqa: SIM905
TARGET_NAMES = frozenset(
    "target trg tgt target_text target_sentence translation sentence2 reference".split()  # noqa: SIM905
)
NUMBER = re.compile(r"[-+]?\d{1,30}(?:[.,]\d{1,30})?(?:[eE][-+]?\d{1,3})?%?")
QUOTED_FIELD = rf'(?:"(?:[^"]|"")*+"|{NUMBER.pattern})'
QUOTED_ROW = re.compile(rf"{QUOTED_FIELD}(?:\t{QUOTED_FIELD})*+")
LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_]\w{2,8})?")
ENGLISH_NAMES = {
    "ar": "arabic", "cs": "czech", "da": "danish", "de": "german", "en": "english",
    "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian", "it": "italian",
    "ja": "japanese", "ko": "korean", "nl": "dutch", "no": "norwegian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish", "tr": "turkish",
    "uk": "ukrainian", "zh": "chinese",
}  # fmt: skip
"""Of languages, as headers have them."""

Row = list[str]


@dataclass(frozen=True)
class Table:
    """How a table is read: its columns from 0, whether it is quoted and has a header."""

    src: int
    trg: int | None
    quoted: bool
    header: bool
    delimiter: str = "\t"

    @property
    def last(self) -> int:
        return max(self.src, -1 if self.trg is None else self.trg)


def read_tsv(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """Tab-separated columns; 0 and 1 unless `src_field` or a header says otherwise.

    A line with too few columns is malformed; if it is the first, the recipe is wrong and it raises.
    """
    path = locate(source.path, "path", corpus)
    table = _tsv_table(path, source, corpus)
    for number, line in enumerate(read_lines(path)):
        if number == 0 and table.header:
            continue
        row = None if line is None else _fields(line, table.quoted)
        yield RawPair("", "", INVALID_UTF8) if line is None else _pair(row, table)


def read_csv(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """Comma-separated columns (or by semicolons, tabs), quoted where need be; a field may go on
    over several lines. Columns as in TSV."""
    path = locate(source.path, "path", corpus)
    table = _csv_table(path, source, corpus)
    for number, row in enumerate(_csv_rows(path, table.delimiter)):
        if (number == 0 and table.header) or not row:
            continue
        is_invalid = any(not _is_utf8(field) for field in row)
        yield RawPair("", "", INVALID_UTF8) if is_invalid else _pair(row, table)


def table_notes(source: SourceConfig, corpus: CorpusConfig, name: str) -> list[str]:
    """What the beginning of a table says of how it is read."""
    path = locate(source.path, "path", corpus)
    table = (_csv_table if name == "csv" else _tsv_table)(path, source, corpus)
    notes = []
    if table.header:
        notes.append("its first line is a header, and left out")
    if table.quoted and name == "tsv":
        notes.append("its fields are quoted; the quotes are taken off")
    return notes


def _pair(row: Row | None, table: Table) -> RawPair:
    if row is None or table.last >= len(row):
        return RawPair("", "", MALFORMED)
    return RawPair(row[table.src], None if table.trg is None else row[table.trg])


def _fields(line: str, quoted: bool) -> Row | None:
    """The columns of a line of TSV; None where its quotes are wrong."""
    if not quoted:
        return line.split("\t")
    try:
        return next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:
        return None


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    lines = (line.decode("utf-8", "surrogateescape") for line in read_byte_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise CorpusError(
            f"{path}: line {reader.line_num} cannot be read as CSV: {error}; repair its quotes"
        ) from None


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


# --- what the beginning shows ------------------------------------------------------------------


def _tsv_table(path: Path, source: SourceConfig, corpus: CorpusConfig) -> Table:
    lines = [line for line in itertools.islice(read_lines(path), LOOK_ROWS) if line is not None]
    quoted = source.quoted if source.quoted is not None else _is_quoted(lines)
    rows = [row for line in lines if (row := _fields(line, quoted)) is not None]
    return _table(rows, path, source, corpus, quoted, "\t")


def _csv_table(path: Path, source: SourceConfig, corpus: CorpusConfig) -> Table:
    first = next(read_lines(path), None) or ""
    unquoted = re.sub(r'"[^"]*"', "", first)
    delimiter = max(DELIMITERS, key=unquoted.count)
    rows = list(itertools.islice(_csv_rows(path, delimiter), LOOK_ROWS))
    return _table(rows, path, source, corpus, True, delimiter)


def _is_quoted(lines: Sequence[str]) -> bool:
    """Whether all fields of all lines but a header are in quotes, or numbers."""
    lines = [line.rstrip("\r") for line in lines if line.strip()]
    lines = lines[1:] or lines
    return bool(lines) and all('"' in line and QUOTED_ROW.fullmatch(line) for line in lines)


def _table(
    rows: Sequence[Row],
    path: Path,
    source: SourceConfig,
    corpus: CorpusConfig,
    quoted: bool,
    delimiter: str,
) -> Table:
    first = [field.strip() for field in rows[0]] if rows else []
    src_names, trg_names = (
        names | _language_names(language)
        for names, language in (
            (SOURCE_NAMES, corpus.src_lang),
            (TARGET_NAMES, corpus.trg_lang),
        )
    )
    columns, is_header = [], False
    for field, default, number, names in (
        (source.src_field, "src", 0, src_names),
        (source.trg_field, "trg", 1, trg_names),
    ):
        column, by_name = _column(field, default, number, names, first, source_name(source))
        columns.append(column)
        is_header = is_header or by_name
    src, trg = columns
    assert src is not None
    if not is_header and len(rows) > 1:
        chosen = [first[at].lower() for at in (src, trg) if at is not None and at < len(first)]
        is_header = bool(chosen) and set(chosen) <= src_names | trg_names
    table = Table(src, trg, quoted, is_header, delimiter)
    _check_columns(rows[1:] if is_header else rows, table, path)
    return table


def _language_names(code: str) -> frozenset[str]:
    base = code.lower().partition("-")[0].partition("_")[0]
    return frozenset({code.lower(), base, ENGLISH_NAMES.get(base, base)})


def _column(
    field: str | None, default: str, number: int, names: frozenset[str], first: Row, name: str
) -> tuple[int | None, bool]:
    """A column's number, and whether it is that of a header."""
    if field is None:
        return None, False
    if field in first and not field.isdecimal():
        return first.index(field), True
    if field == default:
        named = [at for at, title in enumerate(first) if title.lower() in names]
        return (named[0], False) if len(named) == 1 else (number, False)
    if not field.isdecimal():
        titles = ", ".join(first[:10])
        raise CorpusError(
            f"{name}: {default}_field {field!r} must be a column number from 0, or a name of the "
            f"first line (it has: {titles})"
        )
    return int(field), False


def _check_columns(rows: Sequence[Row], table: Table, path: Path) -> None:
    """Raise CorpusError where a column is missing, or is no text while another is."""
    if rows and table.last >= len(rows[0]):
        raise CorpusError(
            f"{path}: the first line has {len(rows[0])} columns, so there is no column "
            f"{table.last} (they count from 0); set src_field and trg_field"
        )
    if len(rows) < FEW_ROWS:
        return
    columns = list(itertools.zip_longest(*rows, fillvalue=""))
    texts = [at for at, fields in enumerate(columns) if not _what_else(fields)]
    for column in (table.src, table.trg):
        if column is None or column >= len(columns) or not texts:
            continue
        if what := _what_else(columns[column]):
            numbers = ", ".join(map(str, texts))
            raise CorpusError(
                f"{path}: column {column} holds {what}, not text; set src_field and trg_field to "
                f"the columns of text (from 0: {numbers})"
            )


def _what_else(fields: Sequence[str]) -> str:
    """What a column holds if it is not text."""
    fields = [field.strip() for field in fields if field.strip()]
    if not fields:
        return "nothing"
    if sum(NUMBER.fullmatch(field) is not None for field in fields) >= SHARE * len(fields):
        return "numbers (scores or ids)"
    if len(fields) > FEW_ROWS and len(set(fields)) == 1 and LANGUAGE_CODE.fullmatch(fields[0]):
        return "a language code"
    return ""
