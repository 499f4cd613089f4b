"""The label store: what the teacher said of each sentence, asked once and kept.

A store is a folder of Arrow IPC shards, row for row beside the token shards of the corpus, each
with a JSON file of its checksum. Columns of a shard:

    id            running number of the pair
    nbest         the teacher's translations, best first: lists of token ids, EOS last
    scores        their log-probabilities, nats, EOS counted
    hypothesis    the first of them, again as a flat list (what students are taught along)
    closest       the one of them closest to the reference by sentence BLEU (where n_best > 1)
    fault         0, or what the row is dropped or was mended for (`training.distill.label_filter`;
                  where labels were filtered)
    PATH_ids      for each position of the path its K likeliest next tokens, flat [T · K]
    PATH_logp     their log-probabilities, nats, float16, flat [T · K]
    PATH_tail     the probability of everything else at each position, float32 [T]

PATH is `reference`, `hypothesis` or `closest`. A pair without a reference has empty lists along
`reference`; its distributions are read along `hypothesis` instead, which is its `closest` too.
Shapes: N positions, K top-k, T target length, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from quickstudy.atomic import atomic_write, sha256_of
from training.config.recipe import RecipeError
from training.data.batching import NumberColumn, RaggedColumn, map_table
from training.distill.nbest import NBestColumn

MANIFEST = "labels.json"
FORMAT = 2


class LabelError(RecipeError):
    """A label store that cannot be used."""


def label_schema(paths: list[str], n_best: int, filtered: bool = False) -> pa.Schema:
    """Columns of a shard that keeps `n_best` translations, and distributions along `paths`;
    `filtered` ones are marked where they had a fault."""
    fields: list[tuple[str, pa.DataType]] = [
        ("id", pa.int64()),
        ("nbest", pa.list_(pa.list_(pa.int32()))),
        ("scores", pa.list_(pa.float32())),
        ("hypothesis", pa.list_(pa.int32())),
    ]
    if n_best > 1:
        fields.append(("closest", pa.list_(pa.int32())))
    if filtered:
        fields.append(("fault", pa.int8()))
    return pa.schema(fields + [field for path in paths for field in _distribution_fields(path)])


def own_schema() -> pa.Schema:
    """Columns of a shard of what the student wrote in an on-policy round (path `student`); a row
    that was not translated has empty lists."""
    fields: list[tuple[str, pa.DataType]] = [("id", pa.int64()), ("student", pa.list_(pa.int32()))]
    return pa.schema(fields + _distribution_fields("student"))


def _distribution_fields(path: str) -> list[tuple[str, pa.DataType]]:
    return [
        (f"{path}_ids", pa.large_list(pa.int32())),
        (f"{path}_logp", pa.large_list(pa.float16())),
        (f"{path}_tail", pa.large_list(pa.float32())),
    ]


def shard_is_done(path: Path) -> bool:
    """Whether a shard was written whole."""
    note = path.with_suffix(".json")
    if not (path.exists() and note.exists()):
        return False
    try:
        return bool(json.loads(note.read_text())["sha256"] == sha256_of(path))
    except (ValueError, KeyError):
        return False


def write_shard(path: Path, table: pa.Table) -> None:
    """Write a shard and then its checksum, each atomically: a shard without one is not done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        # One record batch a shard: list columns stay one array, read without a copy.
        writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))
    content = memoryview(sink.getvalue())
    atomic_write(path, content)
    note = {"rows": len(table), "sha256": hashlib.sha256(content).hexdigest()}
    atomic_write(path.with_suffix(".json"), json.dumps(note, indent=2))


def fault_marks(folder: Path, shards: list[str]) -> np.ndarray:
    """The column `fault` of some shards, [rows], int8."""
    columns = NumberColumn([map_table(folder / name)["fault"] for name in shards])
    return np.concatenate(columns.parts)


def write_manifest(
    folder: Path, shards: list[str], top_k: int, paths: list[str], **more: float
) -> None:
    """Say that the store is complete, and of what it is made."""
    checksums = {
        name: json.loads((folder / name).with_suffix(".json").read_text()) for name in shards
    }
    content = {"format": FORMAT, "shards": checksums, "top_k": top_k, "paths": paths}
    content |= more
    atomic_write(folder / MANIFEST, json.dumps(content, indent=2))


class LabelStore:
    """A complete store, opened for reading. Raises LabelError where it is not."""

    def __init__(self, folder: Path) -> None:
        manifest = folder / MANIFEST
        if not manifest.exists():
            raise LabelError(f"{folder}: no complete label store; run the `label` stage")
        content = json.loads(manifest.read_text())
        if content.get("format") != FORMAT:
            raise LabelError(
                f"{folder}: a label store of format {content.get('format')}, not {FORMAT}: run the "
                "`label` stage again"
            )
        self.folder = folder
        self.top_k: int = content["top_k"]
        self.paths: list[str] = content["paths"]
        self._verify([folder / name for name in content["shards"]])
        tables = [map_table(folder / name) for name in content["shards"]]
        self.ids = NumberColumn([table["id"] for table in tables])
        filtered = "fault" in tables[0].column_names
        self.faults = NumberColumn([table["fault"] for table in tables]) if filtered else None
        self._translations = {
            path: RaggedColumn([table[path] for table in tables])
            for path in ("hypothesis", "closest", "student")
            if path in tables[0].column_names
        }
        self._tables = tables
        self._columns = {
            f"{path}_{kind}": RaggedColumn([table[f"{path}_{kind}"] for table in tables])
            for path in self.paths
            for kind in ("ids", "logp", "tail")
        }

    @staticmethod
    def _verify(shards: list[Path]) -> None:
        for shard in shards:
            if not shard_is_done(shard):
                raise LabelError(
                    f"{shard}: missing or damaged (checksum); delete it and its .json, then run "
                    "the `label` stage again: the other shards are kept"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def hypotheses(self) -> RaggedColumn:
        """The teacher's best translation of each row, ids, EOS last."""
        return self._translations["hypothesis"]

    def translations(self, path: str) -> RaggedColumn:
        """The translations that students are taught along: the teacher's (`hypothesis`, `closest`)
        or, in the store of an on-policy round, their own (`student`)."""
        if path not in self._translations:
            raise LabelError(
                f"{self.folder} holds no translations of the path `{path}`: set labels.n_best to 2 "
                "or more and run the `label` stage again"
            )
        return self._translations[path]

    @cached_property
    def nbest(self) -> NBestColumn:
        """The teacher's n-best translations of each row."""
        columns = ([table[name] for table in self._tables] for name in ("nbest", "scores"))
        return NBestColumn(*columns)

    def tails(self, path: str) -> RaggedColumn:
        """The tail mass at each position of a path, [T] a row."""
        return self._columns[f"{path}_tail"]

    def distributions(self, path: str, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher's top-k ids [N, K], log-probabilities [N, K] (nats) and tail mass [N].

        N runs over the positions of the rows one after another, EOS counted, padding not. A row
        without a reference gives what it has along the hypothesis.
        """
        if path not in self.paths:
            raise LabelError(
                f"{self.folder} holds no distributions along the {path}: add it to "
                "labels.paths and run the `label` stage again"
            )
        ids, logp, tail = self._along(path, rows)
        return (
            torch.from_numpy(ids.astype(np.int64)),
            torch.from_numpy(logp.astype(np.float32)),
            torch.from_numpy(tail.astype(np.float32)),
        )

    def _along(self, path: str, rows: np.ndarray) -> list[np.ndarray]:
        """Ids, log-probabilities and tails of the rows, each where `_path_of` has it."""
        tails = self._columns[f"{path}_tail"]
        top_k = self._columns[f"{path}_ids"].total // max(tails.total, 1)
        tail, lengths = tails.take(rows)
        if path not in ("hypothesis", "student") and not lengths.all():
            parts = [self._along(self._path_of(row, path), np.array([row])) for row in rows]
            return [np.concatenate(column) for column in zip(*parts, strict=True)]
        ids, logp = (
            self._columns[f"{path}_{kind}"].take(rows, top_k)[0] for kind in ("ids", "logp")
        )
        return [ids.reshape(len(tail), -1), logp.reshape(len(tail), -1), tail]

    def _path_of(self, row: int, path: str) -> str:
        """The path that a row's distributions lie along: the hypothesis where it has no `path`."""
        if path == "hypothesis" or len(self._columns[f"{path}_tail"][row]):
            return path
        if "hypothesis" not in self.paths:
            raise LabelError(
                f"{self.folder} holds text without references, but no distributions along the "
                "hypothesis: add it to labels.paths and run the `label` stage again"
            )
        return "hypothesis"
