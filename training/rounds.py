"""On-policy rounds: training pauses, the student translates, the teacher is asked along its words.

A run with rounds is one training that pauses before each of them: optimiser, schedule and order of
batches go on as if it had not. A round is labelled shard by shard like the text itself, by the same
kinds of workers, and its store lies in the student's folder until the next one is complete. Killed
anywhere, the run goes on from its last save and the shards that are written.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from quickstudy.progress import Ticker
from training.checkpoint import build_model, load_run_state, part_of
from training.config.losses import OnPolicyObjective
from training.data.batching import map_table
from training.data.tokenizer import Tokenizer
from training.distill.label_store import (
    MANIFEST,
    LabelError,
    own_schema,
    shard_is_done,
    write_manifest,
    write_shard,
)
from training.distill.labelling import (
    CHUNK,
    Workers,
    distributions_along,
    in_process,
    label_shards,
    path_columns,
)
from training.distill.teachers import Teacher
from training.distill.teachers.native import TorchTeacher
from training.distributed import is_first_process
from training.stage import WAIT, say
from training.trainer import TrainingRun, spent_clock, train

LONGEST = 2
"""What a student writes is cut at so many times the length of the teacher's translation."""
Ids = list[int]


@dataclass(frozen=True)
class RoundModels:
    """Who writes and who says what it would have gone on with."""

    student: TorchTeacher
    teacher: Teacher


@dataclass(frozen=True)
class RoundJob:
    """What it takes to label a shard in a round, so that workers elsewhere can be given it."""

    number: int
    training: TrainingRun
    objective: OnPolicyObjective
    build_teacher: Callable[[], Teacher]
    top_k: int
    folder: Path
    """The round's store."""

    def make_teacher(self) -> RoundModels:
        """Load the student as it stands, and the teacher."""
        run = self.training
        saved = load_run_state(run.folder)
        if saved is None:
            raise LabelError(f"{run.folder}: no saved state of the student that is to translate")
        tokenizer = Tokenizer(run.tokenizer)
        source = len(Tokenizer(run.source_tokenizer)) if run.source_tokenizer else None
        model = build_model(run.model, len(tokenizer), source)
        model.load_state_dict(part_of(saved[0], "model"))
        return RoundModels(TorchTeacher(model.eval(), tokenizer.pieces), self.build_teacher())

    def label(
        self, shard: Path, teacher: RoundModels, done: Callable[[int], None] | None = None
    ) -> int:
        """Translate and label the round's sentences of a token shard unless that is done; → its
        rows."""
        table, out = map_table(shard), self.folder / shard.name
        if shard_is_done(out):
            return len(table)
        chosen = self._chosen(shard)
        hypotheses = self._labels(shard)["hypothesis"]
        parts = [own_schema().empty_table()]
        for start in range(0, len(table), CHUNK):
            chunk = table.slice(start, CHUNK)
            src: list[Ids] = chunk["src"].to_pylist()
            rows = [row for row in range(len(chunk)) if start + row in chosen]
            lengths = [LONGEST * len(hypotheses[start + row]) for row in rows]
            own: list[Ids] = [[] for _ in src]
            for row, ids in zip(
                rows, self._write(teacher, [src[row] for row in rows], lengths), strict=True
            ):
                own[row] = ids
            along = distributions_along(teacher.teacher, src, own, self.top_k)
            columns = {"id": chunk["id"].to_pylist(), "student": own}
            parts.append(pa.table(columns | path_columns("student", along), schema=own_schema()))
            if done is not None:
                done(len(chunk))
        write_shard(out, pa.concat_tables(parts))
        return len(table)

    def _labels(self, shard: Path) -> pa.Table:
        assert self.training.labels is not None
        return map_table(self.training.labels / shard.name)

    def _chosen(self, shard: Path) -> set[int]:
        """Rows of a shard that the round translates, of those without a fault."""
        labels = self._labels(shard)
        rows = np.arange(len(labels))
        if "fault" in labels.column_names:
            rows = np.flatnonzero(labels["fault"].to_numpy() <= 0)
        name = zlib.crc32(shard.name.encode())
        generator = np.random.default_rng([self.training.seed, self.number, name])
        count = math.ceil(self.objective.share * len(rows))
        return set(generator.choice(rows, count, replace=False).tolist())

    def _write(self, models: RoundModels, src: list[Ids], longest: list[int]) -> list[Ids]:
        """What the student writes for each source, EOS last unless it is cut."""
        temperature, student = self.objective.draw_temperature, models.student
        if temperature:
            written = student.sample(src, 1, temperature)
        else:
            written = student.translate(src, 1, 1, 1.0)
        most = getattr(models.teacher, "max_length", student.max_length) - 1
        return [
            found[0][0][: min(length, most)] for found, length in zip(written, longest, strict=True)
        ]


def label_round(job: RoundJob, workers: Workers = in_process) -> None:
    """Translate and label what a round asks for, then declare its store complete. In torchrun's
    other processes: wait for that."""
    if not is_first_process():
        while not (job.folder / MANIFEST).exists():
            time.sleep(WAIT)
        return
    began = spent_clock(job.training.training)
    shards = job.training.token_shards
    total = sum(len(map_table(shard)) for shard in shards)
    with Ticker(f"{job.training.name}: round {job.number}", total, "pairs") as tick:
        label_shards(job, shards, job.folder, tick, workers)
    seconds = round(spent_clock(job.training.training) - began, 1)
    names = [shard.name for shard in shards]
    write_manifest(job.folder, names, job.top_k, ["student"], seconds=seconds)
    say(f"{job.training.name}: round {job.number} labelled in {seconds:.0f} s")


def train_in_rounds(
    run: TrainingRun,
    objective: OnPolicyObjective,
    build_teacher: Callable[[], Teacher],
    top_k: int,
    workers: Workers = in_process,
) -> None:
    """Train a student with on-policy rounds, or go on where that was stopped."""
    folder = run.folder / "rounds"
    spent, own = 0.0, None
    for number in range(1, objective.rounds + 1):
        store = folder / f"{number:03d}"
        if not (store / MANIFEST).exists():
            train(replace(run, own=own, until=objective.begins(number), spent=spent))
            if run.checkpoint.exists():
                break  # Its patience ran out.
            job = RoundJob(number, run, objective, build_teacher, top_k, store.resolve())
            label_round(job, workers)
        if own is not None:
            _drop_shards(own)
        own, spent = store, spent + json.loads((store / MANIFEST).read_text())["seconds"]
    else:
        train(replace(run, own=own, spent=spent))
    shutil.rmtree(folder, ignore_errors=True)


def _drop_shards(store: Path) -> None:
    """Leave of an earlier round the note that it was done."""
    for path in store.glob("*.arrow"):
        path.unlink(missing_ok=True)
