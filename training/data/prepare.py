"""Prepare text: read, clean, drop duplicates, shard; and fetch public corpora by name.

The prepared folder: `train/00000.arrow` … (shards), `validation.arrow`, `test.NAME.arrow`,
`report.json`. Arrow IPC files with the columns `id` (int64, a running number), `src` and `trg`
(string; null in monolingual text). The whole corpus is never in memory: between its two passes it
lies on disk. Downloads go through mtdata (https://github.com/thammegowda/mtdata).
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quickstudy.atomic import atomic_folder
from training.config.recipe import CorpusConfig, SourceConfig
from training.data.augment import Augmenter
from training.data.cleaning import (
    DUPLICATE,
    DuplicateFinder,
    build_rules,
    clean,
    held_out_keys,
    noisy,
    plain_characters,
    rule_names,
)
from training.data.formality import FormalityTagger
from training.data.readers import (
    CorpusError,
    RawPair,
    read_source,
    source_name,
    source_notes,
)
from training.distributed import unreached

__all__ = ["CorpusError", "prepare", "read_pairs", "read_rows", "render_report", "train_shards"]

PAIR_SCHEMA = pa.schema([("src", pa.string()), ("trg", pa.string())])
SCHEMA = pa.schema([("id", pa.int64()), *PAIR_SCHEMA])
BATCH_PAIRS = 10_000

Pairs = list[tuple[str, str | None]]
Progress = Callable[[int], None]


def prepare(
    corpus: CorpusConfig, out: str | Path, progress: Progress | None = None, seed: int = 1
) -> dict[str, Any]:
    """Write the prepared corpus to the folder `out`, whole or not at all; → its report.

    Training text is cleaned, then altered as `corpus.augment` and `seed` say; validation and test
    text is only normalised (NFC, stripped), so that its lines stay. `progress` is called with the
    training pairs read so far. Raises CorpusError for files that cannot be used, and where no
    training pair is kept.
    """
    with atomic_folder(out) as draft:
        held_out, keys = _write_held_out(corpus, draft)
        work = draft / "work"
        (draft / "train").mkdir()
        with contextlib.closing(_Survivors(work, corpus.has_monolingual)) as survivors:
            sources = _clean_sources(corpus, keys, survivors, progress)
        marks = survivors.duplicates() if corpus.clean.drop_duplicates else None
        _count_duplicates(sources, marks)
        augmenter = Augmenter(corpus, seed, keys)
        tables = _unmarked(survivors.batches(), marks)
        if corpus.augment.active:
            tables = _changed(tables, augmenter.batches)
        if corpus.formality:
            tagger = FormalityTagger(corpus.trg_lang, seed)
            tables = _changed(tables, tagger.batches)
        sizes = _write_shards(tables, draft / "train", corpus)
        shutil.rmtree(work)
        report = _report(corpus, sources, sizes, held_out)
        if corpus.augment.active:
            report["augmented"] = augmenter.counts
        if corpus.formality:
            report["formality"] = tagger.counts
        text = json.dumps(report, indent=2, ensure_ascii=False)
        (draft / "report.json").write_text(text, encoding="utf-8")
    return report


def train_shards(folder: str | Path) -> list[Path]:
    """The training shards of a prepared corpus, in order."""
    return sorted((Path(folder) / "train").glob("*.arrow"))


def read_pairs(path: str | Path) -> Iterator[tuple[str, str]]:
    """The (src, trg) of one prepared file, rows without a target left out."""
    return ((src, trg) for src, trg in read_rows(path) if trg is not None)


def read_rows(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """The (src, trg) of one prepared file, memory-mapped; trg is None in monolingual text.

    Raises CorpusError if the file is missing.
    """
    try:
        mapped = pa.memory_map(str(path))
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; run the `prepare` stage") from None
    with mapped, pa.ipc.open_file(mapped) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield from zip(batch["src"].to_pylist(), batch["trg"].to_pylist(), strict=True)


def render_report(report: dict[str, Any]) -> str:
    """The report as a table: a line a source, a column a rule that dropped something."""
    total = report["train"]
    rules = [name for name, count in total["dropped"].items() if count]
    rows = [["source", "read", "kept", *rules]]
    parts = report["sources"] if len(report["sources"]) == 1 else [*report["sources"], total]
    for part in parts:
        counts = [part["read"], part["kept"], *(part["dropped"][rule] for rule in rules)]
        name = part.get("name", "all") + (" (source only)" if part.get("monolingual") else "")
        rows.append([name, *(f"{count:,}" for count in counts)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    held_out = {"validation": report["validation"], **report["test"]}
    sizes = ", ".join(f"{name} {part['pairs']:,}" for name, part in held_out.items())
    alone = sum(part["kept"] for part in report["sources"] if part.get("monolingual"))
    shards = f"{total['shards']:,} shard(s)" + (f", {alone:,} lines source only" if alone else "")
    lines.append(f"{shards}; held out: {sizes} pairs")
    lines += [
        f"{part['name']}: {note}"
        for part in (*report["sources"], *held_out.values())
        for note in part.get("notes", [])
    ]
    if "augmented" in report:
        lines.append(_augmented_line(report["augmented"]))
    if "formality" in report:
        forms = ", ".join(f"{form} {count:,}" for form, count in report["formality"].items())
        lines.append(f"form of address: {forms}")
    return "\n".join(lines)


def _augmented_line(counts: dict[str, int]) -> str:
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.items() if kind != "pairs")
    return f"altered: {counts['pairs']:,} pairs ({kinds})"


def _read(source: SourceConfig, corpus: CorpusConfig) -> Iterator[RawPair]:
    """The pairs of a source, with plain characters in their sources if the recipe says so."""
    pairs = read_source(source, corpus)
    if not corpus.plain_source:
        return pairs
    return (pair._replace(src=plain_characters(pair.src)) for pair in pairs)


# --- validation and test text ------------------------------------------------------------------


def _write_held_out(corpus: CorpusConfig, draft: Path) -> tuple[dict[str, Any], set[str]]:
    """Write validation and test text; → their part of the report, and their overlap keys."""
    sets = {"validation": corpus.validation}
    for name, source in corpus.test.items():
        if not re.fullmatch(r"[\w.-]+", name):
            raise CorpusError(
                f"corpus.test: the name {name!r} becomes a file name; use letters, digits, `-`, "
                f"`_` and `.`"
            )
        sets[f"test.{name}"] = source
    report: dict[str, Any] = {"test": {}}
    keys: set[str] = set()
    for name, source in sets.items():
        pairs: list[tuple[str, str]] = list(_held_out_pairs(source, corpus))
        if not pairs:
            raise CorpusError(f"{source_name(source)}: no pairs in {name} text")
        _write_shard(draft / f"{name}.arrow", noisy_pairs(_table(pairs), 0, name, corpus), 0)
        keys |= held_out_keys(itertools.chain.from_iterable(pairs))
        part = {"name": source_name(source), "pairs": len(pairs)} | _about(source, corpus)
        if name == "validation":
            report["validation"] = part
        else:
            report["test"][name.removeprefix("test.")] = part
    return report, keys


def _held_out_pairs(source: SourceConfig, corpus: CorpusConfig) -> Iterator[tuple[str, str]]:
    for number, pair in enumerate(_read(source, corpus), start=1):
        src, trg = (unicodedata.normalize("NFC", side or "").strip() for side in pair[:2])
        if pair.fault is not None or not src or not trg:
            raise CorpusError(
                f"{source_name(source)}: pair {number} is {pair.fault or 'empty'}; validation and "
                f"test text is measured whole, so repair or remove that line on both sides"
            )
        yield src, trg


# --- training text, first pass: clean ----------------------------------------------------------


class _Survivors:
    """Pairs that the rules kept, on disk, with the digests that tell duplicates."""

    def __init__(self, folder: Path, monolingual: bool) -> None:
        self._finder = DuplicateFinder(folder, monolingual=monolingual)
        self._path = folder / "pairs.arrows"
        self._writer: Any = pa.ipc.new_stream(str(self._path), PAIR_SCHEMA)

    def add(self, pairs: Pairs) -> None:
        self._finder.add(pairs)
        self._writer.write_table(_table(pairs))

    def duplicates(self) -> np.ndarray:
        return self._finder.marks()

    def close(self) -> None:
        self._writer.close()

    def batches(self) -> Iterator[pa.Table]:
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])


def _table(pairs: Sequence[tuple[str, str | None]]) -> pa.Table:
    src, trg = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.table({"src": src, "trg": trg}, schema=PAIR_SCHEMA)


def _batched(pairs: Iterator[RawPair]) -> Iterator[list[RawPair]]:
    while batch := list(itertools.islice(pairs, BATCH_PAIRS)):
        yield batch


def _clean_sources(
    corpus: CorpusConfig, keys: set[str], survivors: _Survivors, progress: Progress | None
) -> list[dict[str, Any]]:
    """Read and clean every source into `survivors`; → a part of the report for each."""
    rules = build_rules(corpus, keys)
    names = rule_names(corpus, rules)
    parts = []
    done = 0
    for source in corpus.train:
        read, counts = 0, Counter[str]()
        for batch in _batched(_read(source, corpus)):
            cleaned = [clean(pair, rules) for pair in batch]
            counts.update(pair.dropped_by for pair in cleaned if pair.dropped_by is not None)
            survivors.add([(pair.src, pair.trg) for pair in cleaned if pair.dropped_by is None])
            read, done = read + len(batch), done + len(batch)
            if progress is not None:
                progress(done)
        dropped = {name: counts[name] for name in names}
        kept = read - counts.total()
        part = {"name": source_name(source), "read": read, "kept": kept, "dropped": dropped}
        parts.append(part | _about(source, corpus))
    return parts


def _about(source: SourceConfig, corpus: CorpusConfig) -> dict[str, Any]:
    """What the report says of a source besides its counts."""
    notes = source_notes(source, corpus)
    about: dict[str, Any] = {"monolingual": True} if source.monolingual else {}
    return about | ({"notes": notes} if notes else {})


# --- training text, second pass: drop duplicates, shard ----------------------------------------


def _count_duplicates(sources: list[dict[str, Any]], marks: np.ndarray | None) -> None:
    start = 0
    for part in sources if marks is not None else []:
        end = start + part["kept"]
        repeated = int(np.count_nonzero(marks[start:end]))  # type: ignore[index]
        part["dropped"][DUPLICATE] = repeated
        part["kept"] -= repeated
        start = end


def noisy_pairs(pairs: pa.Table, first_id: int, name: str, corpus: CorpusConfig) -> pa.Table:
    """The pairs with noise on their sources: the same for the same text name and pair numbers."""
    if not corpus.noise:
        return pairs
    sources = [
        noisy(src, corpus.noise, random.Random(f"{name} {number}"), corpus.noise_kinds)
        for number, src in enumerate(pairs["src"].to_pylist(), start=first_id)
    ]
    return pairs.set_column(0, PAIR_SCHEMA.field("src"), [sources])


def _unmarked(batches: Iterator[pa.Table], marks: np.ndarray | None) -> Iterator[pa.Table]:
    """The pairs that are no duplicates."""
    row = 0
    for table in batches:
        if marks is not None:
            row, mine = row + len(table), marks[row : row + len(table)]
            table = table.filter(pa.array(~mine))
        yield table


Change = Callable[[Iterator[Pairs]], Iterator[Pairs]]


def _changed(tables: Iterator[pa.Table], change: Change) -> Iterator[pa.Table]:
    rows = (
        list(zip(table["src"].to_pylist(), table["trg"].to_pylist(), strict=True))
        for table in tables
    )
    return map(_table, change(rows))


def _write_shards(tables: Iterator[pa.Table], folder: Path, corpus: CorpusConfig) -> dict[str, int]:
    """Write the pairs, `shard_pairs` a file; → counts of shards and characters."""
    shard_pairs = corpus.shard_pairs
    sizes = {"shards": 0, "src_chars": 0, "trg_chars": 0}
    waiting: list[pa.Table] = []
    kept = 0

    def flush(final: bool) -> None:
        nonlocal kept, waiting
        table = pa.concat_tables(waiting) if waiting else _table([])
        while len(table) >= shard_pairs or (final and len(table)):
            shard = noisy_pairs(table.slice(0, shard_pairs), kept, "train", corpus)
            _write_shard(folder / f"{sizes['shards']:05}.arrow", shard, kept)
            sizes["shards"] += 1
            kept += len(shard)
            table = table.slice(shard_pairs)
        waiting = [table]

    for table in tables:
        for side in ("src", "trg"):
            sizes[f"{side}_chars"] += pc.sum(pc.utf8_length(table[side])).as_py() or 0
        waiting.append(table)
        if sum(map(len, waiting)) >= shard_pairs:
            flush(final=False)
    flush(final=True)
    return sizes


def _write_shard(path: Path, pairs: pa.Table, first_id: int) -> None:
    ids = pa.array(np.arange(first_id, first_id + len(pairs)), pa.int64())
    table = pairs.add_column(0, SCHEMA.field("id"), ids).combine_chunks()
    with pa.ipc.new_file(str(path), SCHEMA) as writer:
        writer.write_table(table)


# --- report ------------------------------------------------------------------------------------


def _report(
    corpus: CorpusConfig,
    sources: list[dict[str, Any]],
    sizes: dict[str, int],
    held_out: dict[str, Any],
) -> dict[str, Any]:
    """Raises CorpusError where nothing was kept."""
    names = list(sources[0]["dropped"])
    dropped = {name: sum(part["dropped"][name] for part in sources) for name in names}
    read, kept = (sum(part[key] for part in sources) for key in ("read", "kept"))
    if not kept:
        worst = max(dropped, key=lambda name: dropped[name])
        why = f"; the rule `{worst}` dropped {dropped[worst]:,}" if read else ""
        raise CorpusError(
            f"no training pair is left of {read:,} read{why}; look at corpus.train and corpus.clean"
        )
    return {
        "src_lang": corpus.src_lang,
        "trg_lang": corpus.trg_lang,
        "train": {"read": read, "kept": kept, "dropped": dropped, **sizes},
        "sources": sources,
        **held_out,
    }


# --- downloads ---------------------------------------------------------------------------------


def download_command(src: str, trg: str, dataset_ids: list[str], out: str | Path) -> list[str]:
    """The mtdata command that puts all pairs into two files of the folder `out`.

    mtdata names them by ISO 639-3 code: `train.eng` and `train.deu`.
    """
    return [
        *(sys.executable, "-m", "mtdata", "get"),
        *("--langs", f"{src}-{trg}"),
        *("--train", *dataset_ids),
        *("--merge", "--out", str(out)),
    ]


def download(src: str, trg: str, dataset_ids: list[str], out: str | Path) -> None:
    """Fetch datasets (`mtdata list --langs en-de` names them) and merge them into `out`.

    Languages are given to mtdata as they are, which takes ISO 639 and BCP 47 codes. Raises
    CorpusError where mtdata is missing or fails; its own output goes to the terminal.
    """
    if not dataset_ids:
        raise CorpusError(
            f"name at least one dataset; `mtdata list --langs {src}-{trg}` lists them"
        )
    if importlib.util.find_spec("mtdata") is None:
        raise CorpusError(
            "downloading needs mtdata, which is not installed: pip install 'quickstudy[download]'"
        )
    with unreached():
        fetching = subprocess.Popen(download_command(src, trg, dataset_ids, out))
    try:
        status = fetching.wait()
    finally:
        fetching.kill()
    if status:
        raise CorpusError(
            f"mtdata ended with status {status}; its message stands above. Check the "
            f"dataset names with `mtdata list --langs {src}-{trg}`"
        )
