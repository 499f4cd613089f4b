"""Text in every format that a recipe may name, as a stream of pairs, or of sources alone.

A new format is one function, joined to `READERS`. Memory stays flat whatever the size of a file;
TMX (LISA TMX 1.4b) is read one unit at a time, its entities refused. A bad line is recorded in its
pair's `fault`, so that cleaning counts it; a bad file raises CorpusError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from defusedxml.ElementTree import iterparse

from training.config.recipe import CorpusConfig, SourceConfig
from training.data.archives import ZippedPairs
from training.data.delimited import read_csv, read_tsv, table_notes
from training.data.files import (
    ARCHIVES,
    INVALID_UTF8,
    MALFORMED,
    CorpusError,
    RawPair,
    decode,
    locate,
    open_bytes,
    read_lines,
    source_name,
    unpacked,
)
from training.data.languages import code_of, text_in

__all__ = ["CorpusError", "RawPair", "read_lines", "read_source", "source_name", "source_notes"]

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
BATCH_ROWS = 10_000


Reader = Callable[[SourceConfig, CorpusConfig], Iterator[RawPair]]
Lines = Iterator[str | None]


def read_source(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """The pairs of a source, in order, at most `source.limit`; relative paths from corpus.root.

    Raises CorpusError where a file is missing, damaged, of another format than it is said to be, or
    (plain text) of another number of lines than its other side.
    """
    reader = READERS[source_format(source)]
    try:
        for number, pair in enumerate(reader(source, corpus)):
            if source.limit is not None and number >= source.limit:
                return
            yield pair
    except OSError as error:
        raise CorpusError(f"{source_name(source)}: cannot be read: {error}") from None


def source_notes(source: SourceConfig, corpus: CorpusConfig) -> list[str]:
    """How a source was read where its file says so: its header, its quotes, the members of a zip.
    Raises as `read_source`."""
    name = source_format(source)
    if name == "zip":
        archive = ZippedPairs(locate(source.path, "path", corpus), corpus, source.monolingual)
        return [f"{source.path}: read {' and '.join(archive.sides or [str(archive.tmx)])} in it"]
    return table_notes(source, corpus, name) if name in ("tsv", "csv") else []


def source_format(source: SourceConfig) -> str:
    """The format's name; `auto` goes by the file name. Raises CorpusError where they disagree."""
    plain = source.path is None
    if source.format != "auto":
        if plain != (source.format == "plain"):
            raise CorpusError(
                f"{source_name(source)}: format `plain` takes `src` and `trg`, the others `path`; "
                f"format is `{source.format}`"
            )
        return source.format
    if plain:
        return "plain"
    ending = unpacked(str(source.path).lower()).suffix.removeprefix(".")
    found = {"ndjson": "jsonl", "tab": "tsv", "pq": "parquet"}.get(ending, ending)
    if found in ARCHIVES:
        raise CorpusError(
            f"{source.path}: .{found} is not read; unpack it, or save it as text, and name the "
            f"files in it (two plain ones as src and trg, one line a sentence)"
        )
    if found not in READERS or found == "plain":
        raise CorpusError(
            f"{source.path}: the name does not tell the format; set `format` to tsv, csv, jsonl, "
            f"tmx, parquet or zip"
        )
    return found


# --- missing files ------------------------------------------------------------------------------


def corpus_faults(corpus: CorpusConfig) -> list[str]:
    """What of a corpus's files is missing, each with its field; empty where nothing is."""
    places = {f"corpus.train.{number}": source for number, source in enumerate(corpus.train)}
    places["corpus.validation"] = corpus.validation
    places |= {f"corpus.test.{name}": source for name, source in corpus.test.items()}
    return [fault for place, source in places.items() for fault in _faults(place, source, corpus)]


def _faults(place: str, source: SourceConfig, corpus: CorpusConfig) -> Iterator[str]:
    try:
        source_format(source)
    except CorpusError as error:
        yield f"{place}: {error}"
    for field in ("src", "trg", "path"):
        if (name := getattr(source, field)) is not None:
            try:
                locate(name, f"{place}.{field}", corpus)
            except CorpusError as error:
                yield str(error)


def _pair(src: str | None, trg: str | None) -> RawPair:
    if src is None or trg is None:
        return RawPair("", "", INVALID_UTF8)
    return RawPair(src, trg)


def _source_alone(src: str | None) -> RawPair:
    return RawPair("", None, INVALID_UTF8) if src is None else RawPair(src, None)


# --- one reader a format -----------------------------------------------------------------------


def read_plain(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """Two files, line n of one translating line n of the other; or a source file alone."""
    src_path = locate(source.src, "src", corpus)
    if source.monolingual:
        yield from (_source_alone(line) for line in read_lines(src_path))
        return
    trg_path = locate(source.trg, "trg", corpus)
    yield from _line_pairs(src_path, read_lines(src_path), trg_path, read_lines(trg_path))


def _line_pairs(
    src_path: Path, src_lines: Lines, trg_path: Path, trg_lines: Lines
) -> Iterator[RawPair]:
    """Pairs of lines. Raises CorpusError where one side has more."""
    end = object()
    count = 0
    while True:
        src, trg = next(src_lines, end), next(trg_lines, end)
        if src is end or trg is end:
            break
        count += 1
        yield _pair(src, trg)  # type: ignore[arg-type]
    src_count = count + (src is not end) + sum(1 for _ in src_lines)
    trg_count = count + (trg is not end) + sum(1 for _ in trg_lines)
    if src_count != trg_count:
        raise CorpusError(
            f"{src_path} has {src_count:,} lines and {trg_path} {trg_count:,}: line n of one must "
            f"translate line n of the other, so the counts must agree"
        )


def _dig(record: Any, field: str) -> Any:
    """The value of a key, or of a path of keys joined by dots; None where there is none."""
    if isinstance(record, dict) and field in record:
        return record[field]
    for key in field.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return record


def _is_utf8(text: str) -> bool:
    """False for text with lone surrogates, which JSON escapes can spell."""
    try:
        return text.isascii() or bool(text.encode("utf-8")) or True
    except UnicodeEncodeError:
        return False


def read_jsonl(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """One JSON object a line; a field may be a path such as `translation.en`.

    A line that is no object with these texts is malformed; if it is the first, it raises.
    """
    path = locate(source.path, "path", corpus)
    fields = [field for field in (source.src_field, source.trg_field) if field is not None]
    for number, line in enumerate(read_lines(path)):
        if line is None:
            yield RawPair("", "", INVALID_UTF8)
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        texts = [_dig(record, field) for field in fields]
        if all(isinstance(text, str) for text in texts):
            src, trg = (*texts, None)[:2]
            yield RawPair(src, trg) if all(map(_is_utf8, texts)) else RawPair("", "", INVALID_UTF8)
        elif number == 0:
            keys = ", ".join(record) if isinstance(record, dict) else "no JSON object"
            raise CorpusError(
                f"{path}: the first line has no text {' and '.join(f'`{f}`' for f in fields)} (it "
                f"has: {keys}); set src_field and trg_field"
            )
        else:
            yield RawPair("", "", MALFORMED)


def read_tmx(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """Translation units, matched by language; a unit without both languages (monolingual: without
    the source language) is malformed.

    Raises CorpusError if every unit is.
    """
    path = locate(source.path, "path", corpus)
    with open_bytes(path) as file:
        yield from _tmx_pairs(file, path, source, corpus)


def _tmx_pairs(
    file: IO[bytes], path: Path, source: SourceConfig, corpus: CorpusConfig
) -> Iterator[RawPair]:
    from defusedxml.common import DefusedXmlException

    seen: set[str] = set()
    found = False
    try:
        for texts in translation_units(file):
            seen.update(list(texts)[: max(0, 20 - len(seen))])
            src = text_in(texts, corpus.src_lang, corpus.trg_lang)
            trg = text_in(texts, corpus.trg_lang, corpus.src_lang)
            complete = src is not None and (trg is not None or source.monolingual)
            found = found or complete
            target = None if source.monolingual else trg or ""
            yield RawPair(src or "", target, None if complete else MALFORMED)
    except ParseError as error:
        raise CorpusError(f"{path}: not well-formed XML: {error}; repair the file") from None
    except DefusedXmlException:
        raise CorpusError(f"{path}: declares entities, which are not read; remove them") from None
    if not found:
        wanted = corpus.src_lang
        if not source.monolingual:
            wanted = f"both {corpus.src_lang} and {corpus.trg_lang}"
        raise CorpusError(
            f"{path}: no translation unit has {wanted}; "
            f"languages in it: {', '.join(sorted(seen)) or 'none'}"
        )


def read_zip(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """The two sides of a zip archive, or the TMX in it. Raises CorpusError as `read_plain` and
    `read_tmx`, and where it is not clear which members those are."""
    archive = ZippedPairs(locate(source.path, "path", corpus), corpus, source.monolingual)
    if archive.tmx is not None:
        with archive.open(archive.tmx) as file:
            yield from _tmx_pairs(file, archive.called(archive.tmx), source, corpus)
        return
    src, *trg = archive.sides
    if source.monolingual:
        yield from map(_source_alone, archive.lines(src))
    else:
        paths = archive.called(src), archive.called(trg[0])
        yield from _line_pairs(paths[0], archive.lines(src), paths[1], archive.lines(trg[0]))


# --- TMX ---------------------------------------------------------------------------------------


def translation_units(file: IO[bytes]) -> Iterator[dict[str, str]]:
    """Each unit's texts by language code (lower case); of several in a language, the first.

    Of inline markup, `hi` alone keeps its content, since only that is text by the standard. Raises
    xml.etree.ElementTree.ParseError, or DefusedXmlException where the file declares entities.
    """
    for unit in _units(iterparse(file, events=("start", "end"))):
        texts: dict[str, str] = {}
        for variant in _named(unit, "tuv"):
            language = variant.get(XML_LANG) or variant.get("lang") or ""
            for segment in _named(variant, "seg"):
                texts.setdefault(code_of(language), _text(segment))
        yield texts


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _named(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if _name(child) == name)


def _units(events: Iterable[tuple[str, Element]]) -> Iterator[Element]:
    open_elements: list[Element] = []
    unit: Element | None = None
    for event, element in events:
        if event == "start":
            open_elements.append(element)
            if unit is None and _name(element) == "tu":
                unit = element
            continue
        open_elements.pop()
        if element is unit:
            yield element
            unit = None
        if unit is None and open_elements:
            open_elements[-1].clear()


def _text(element: Element) -> str:
    inner = [
        (_text(child) if _name(child) == "hi" else "") + (child.tail or "") for child in element
    ]
    return (element.text or "") + "".join(inner)


# --- Parquet -----------------------------------------------------------------------------------


def read_parquet(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """Text columns; a field may be a path into structs such as `translation.en`.

    A row with a missing value is malformed.
    """
    path = locate(source.path, "path", corpus)
    fields = [field for field in (source.src_field, source.trg_field) if field is not None]
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=fields):
                sides = [_text_column(batch, field, file, path) for field in fields]
                for texts in zip(*sides, strict=True):
                    if None in texts:
                        yield RawPair("", "", MALFORMED)
                    elif source.monolingual:
                        yield _source_alone(decode(texts[0]))
                    else:
                        yield _pair(*map(decode, texts))
    except pa.ArrowInvalid as error:
        raise CorpusError(f"{path}: cannot be read as Parquet: {error}") from None


def _text_column(batch: Any, field: str, file: Any, path: Path) -> list[bytes | None]:
    """A column (or a struct's field) as bytes, undecoded, since Parquet does not check UTF-8."""
    names = batch.schema.names
    keys = [field] if field in names else field.split(".")
    try:
        column = batch.column(keys[0])
        for key in keys[1:]:
            column = pc.struct_field(column, key)
        return column.cast(pa.large_binary()).to_pylist()
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise CorpusError(
            f"{path}: no text column `{field}`; columns: {', '.join(file.schema_arrow.names)}; "
            f"set src_field and trg_field"
        ) from None


READERS: dict[str, Reader] = {
    "plain": read_plain,
    "tsv": read_tsv,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "tmx": read_tmx,
    "parquet": read_parquet,
    "zip": read_zip,
}
