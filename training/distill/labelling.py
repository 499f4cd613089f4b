"""Asking the teacher: token shards → label shards, each on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from sacrebleu.metrics import BLEU

from training.columns import map_table
from training.distill.labels import label_schema, shard_is_done, write_manifest, write_shard
from training.distill.teachers import Distributions, Teacher
from training.distill.workers import Workers
from training.distill.workers.in_process import in_process
from training.recipe import LabelsConfig
from training.tokenizer import Tokenizer

CHUNK = 2048
_BLEU = BLEU(effective_order=True)


def closest_to(reference: str, hypotheses: list[str]) -> int:
    """Which hypothesis has the highest sentence BLEU (sacreBLEU's, effective order) against the
    reference; of equal ones, and without a reference, the first. Kim & Rush 2016, sequence-level
    interpolation."""
    if len(hypotheses) == 1 or not reference:
        return 0
    values = [_BLEU.sentence_score(text, [reference]).score for text in hypotheses]
    return values.index(max(values))


def _closest(
    nbest: list[list[tuple[list[int], float]]], trg: list[list[int]], tokenizer: Tokenizer
) -> list[list[int]]:
    """The translation of each row that is closest to its reference."""
    references = tokenizer.decode(trg)
    texts = iter(tokenizer.decode([ids for found in nbest for ids, _ in found]))
    return [
        found[closest_to(reference, [next(texts) for _ in found])][0]
        for reference, found in zip(references, nbest, strict=True)
    ]


def label_rows(
    teacher: Teacher,
    src: list[list[int]],
    trg: list[list[int]],
    config: LabelsConfig,
    tokenizer: Tokenizer,
) -> dict[str, list[object]]:
    """Columns of a label shard (without `id`) for some pairs; an empty target is a missing one."""
    nbest = teacher.translate(src, config.beam_size, config.n_best, config.length_penalty)
    hypotheses = [found[0][0] for found in nbest]
    columns: dict[str, list[object]] = {
        "nbest": [[ids for ids, _ in found] for found in nbest],
        "scores": [[score for _, score in found] for found in nbest],
        "hypothesis": list(hypotheses),
    }
    along = {"reference": trg, "hypothesis": hypotheses}
    if config.n_best > 1:
        along["closest"] = _closest(nbest, trg, tokenizer)
        columns["closest"] = list(along["closest"])
    for path in config.paths:
        found = _distributions(teacher, src, along[path], config.top_k)
        columns[f"{path}_ids"] = [one.ids.astype(np.int32).ravel() for one in found]
        columns[f"{path}_logp"] = [one.logp.astype(np.float16).ravel() for one in found]
        columns[f"{path}_tail"] = [one.tail.astype(np.float32) for one in found]
    return columns


def _distributions(
    teacher: Teacher, src: list[list[int]], trg: list[list[int]], top_k: int
) -> list[Distributions]:
    """The teacher's distributions along the targets, none along a missing one."""
    nothing = np.empty(0, dtype=np.float32)
    found = [Distributions(nothing, nothing, nothing)] * len(src)
    rows = [row for row, target in enumerate(trg) if target]
    if rows:
        asked = teacher.distributions([src[row] for row in rows], [trg[row] for row in rows], top_k)
        for row, one in zip(rows, asked, strict=True):
            found[row] = one
    return found


def label_shard(
    shard: Path,
    out: Path,
    teacher: Teacher,
    config: LabelsConfig,
    tokenizer: Tokenizer,
    done: Callable[[int], None] | None = None,
) -> None:
    """Label one token shard and write it; `done` is told of every chunk's rows."""
    table = map_table(shard)
    schema = label_schema(list(config.paths), config.n_best)
    # A token shard of which no pair was short enough has a label shard all the same.
    parts = [schema.empty_table()]
    for start in range(0, len(table), CHUNK):
        chunk = table.slice(start, CHUNK)
        src, trg = chunk["src"].to_pylist(), chunk["trg"].to_pylist()
        columns = label_rows(teacher, src, trg, config, tokenizer)
        parts.append(pa.table({"id": chunk["id"].to_pylist(), **columns}, schema=schema))
        if done is not None:
            done(len(chunk))
    write_shard(out, pa.concat_tables(parts))


@dataclass(frozen=True)
class LabelJob:
    """What it takes to label a shard, so that workers elsewhere can be given it."""

    make_teacher: Callable[[], Teacher]
    folder: Path
    """The label store."""
    config: LabelsConfig
    tokenizer: Tokenizer

    def label(
        self, shard: Path, teacher: Teacher, done: Callable[[int], None] | None = None
    ) -> int:
        """Label a token shard unless it is labelled; → its rows."""
        out = self.folder / shard.name
        if not shard_is_done(out):
            label_shard(shard, out, teacher, self.config, self.tokenizer, done)
        return len(map_table(shard))


def label_corpus(
    shards: list[Path],
    folder: Path,
    make_teacher: Callable[[], Teacher],
    config: LabelsConfig,
    tokenizer: Tokenizer,
    progress: Callable[[int], None] | None = None,
    workers: Workers = in_process,
) -> None:
    """Label every shard that is not labelled yet, then declare the store complete.

    `progress` is told how many pairs are labelled. Each of the workers makes its teacher once, and
    only if there is something to ask.
    """
    pending = [shard for shard in shards if not shard_is_done(folder / shard.name)]
    finished = sum(len(map_table(shard)) for shard in shards if shard not in pending)

    def done(rows: int) -> None:
        nonlocal finished
        finished += rows
        if progress is not None:
            progress(finished)

    if pending:
        done(0)
        job = LabelJob(make_teacher, folder.resolve(), config, tokenizer)
        workers(job, pending, done)
    write_manifest(folder, [shard.name for shard in shards], config.top_k, list(config.paths))
