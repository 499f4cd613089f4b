"""Ask the teacher: token shards → label shards, in this process, several, or a Ray cluster.

Shards are independent and written atomically, so every kind of workers is a function of the same
shape (`Workers`) and leaves the same store. A new kind is a function here and a case in
`choose_workers`.

With Ray, each core has an actor with a teacher of one thread. `RAY_ADDRESS` names the cluster;
without it Ray is started on this machine for as long as it is needed. All machines must see the
run's folder under the same path. Nothing is pickled to disk: jobs travel between our own processes,
and results are the shards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
import pyarrow as pa
import torch
from sacrebleu.metrics import BLEU

from quickstudy.atomic import atomic_write
from quickstudy.cluster import ray_cluster
from training.config.labels import LabelFilterConfig, LabelsConfig, MbrConfig
from training.config.recipe import RecipeError
from training.data.batching import map_table
from training.data.tokenizer import Tokenizer
from training.distill.label_filter import Labelled, choose, fault_of, render, report
from training.distill.label_store import (
    LabelError,
    fault_marks,
    label_schema,
    shard_is_done,
    write_manifest,
    write_shard,
)
from training.distill.mbr import UTILITIES, ranked
from training.distill.teachers import Distributions, Teacher
from training.distill.teachers.base import (
    GreedyLabel,
    Hypotheses,
    OnePassTeacher,
    SamplingTeacher,
)
from training.distributed import (
    die_with_parent,
    end_children,
    keep_memory,
    thread_count,
    unreached,
)
from training.stage import say

CHUNK = 2048
"""Pairs that a teacher is given at a time."""
ONE_PASS_CHUNK = 8192
"""The same for a teacher that labels in one pass, quickly and in large batches of like length."""
_BLEU = BLEU(effective_order=True)
FILTER_REPORT = "filter.json"
"""How many labels were dropped and mended for each fault."""
TRIES = 3
"""How often a shard is tried whose worker died."""


# --- one shard ---------------------------------------------------------------------------------


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
    texts = iter(tokenizer.decode([ids for hypotheses in nbest for ids, _ in hypotheses]))
    return [
        hypotheses[closest_to(reference, [next(texts) for _ in hypotheses])][0]
        for reference, hypotheses in zip(references, nbest, strict=True)
    ]


def label_rows(
    teacher: Teacher,
    src: list[list[int]],
    trg: list[list[int]],
    config: LabelsConfig,
    tokenizer: Tokenizer,
) -> dict[str, list[object]]:
    """Columns of a label shard (without `id`) for some pairs; an empty target is a missing one."""
    if _in_one_pass(teacher, config):
        return _greedy_columns(teacher.greedy_labels(src, config.top_k))
    nbest = translations(teacher, src, config, tokenizer)
    columns: dict[str, list[object]] = {}
    if config.filter is not None:
        limit = getattr(teacher, "max_length", None)
        nbest, columns["fault"] = _mended(nbest, src, config.filter, tokenizer, limit)
    hypotheses = [found[0][0] for found in nbest]
    columns |= {
        "nbest": [[ids for ids, _ in found] for found in nbest],
        "scores": [[score for _, score in found] for found in nbest],
        "hypothesis": list(hypotheses),
    }
    along = {"reference": trg, "hypothesis": hypotheses}
    if config.n_best > 1:
        along["closest"] = _closest(nbest, trg, tokenizer)
        columns["closest"] = list(along["closest"])
    for path in config.paths:
        columns |= path_columns(path, distributions_along(teacher, src, along[path], config.top_k))
    return columns


def translations(
    teacher: Teacher, src: list[list[int]], config: LabelsConfig, tokenizer: Tokenizer
) -> list[Hypotheses]:
    """The teacher's n-best of each source, by the score of its search or by minimum Bayes risk.

    Raises LabelError where translations are to be drawn and the teacher cannot.
    """
    if config.mbr is None:
        return teacher.translate(src, config.beam_size, config.n_best, config.length_penalty)
    if not config.mbr.samples:
        found = teacher.translate(src, config.beam_size, config.n_best, config.length_penalty)
        return [_by_risk(one, config.mbr, config.n_best, tokenizer) for one in found]
    if not isinstance(teacher, SamplingTeacher):
        raise LabelError(
            "labels.mbr.samples: this kind of teacher draws no translations: use one of kind "
            "train, checkpoint or marian, or samples: 0 with n_best of 2 or more"
        )
    found = teacher.sample(src, config.mbr.samples, config.mbr.temperature)
    return [_by_risk(one, config.mbr, config.n_best, tokenizer) for one in found]


def _by_risk(
    candidates: Hypotheses, config: MbrConfig, n_best: int, tokenizer: Tokenizer
) -> Hypotheses:
    """The `n_best` candidates of the highest expected utility. Samples weigh alike, those of a
    search by their probabilities."""
    texts = tokenizer.decode([ids for ids, _ in candidates])
    scores = np.array([score for _, score in candidates])
    weights = np.ones(len(scores)) if config.samples else np.exp(scores - scores.max())
    order = ranked(texts, weights, UTILITIES[config.metric])
    return [candidates[place] for place in order[:n_best]]


def _mended(
    nbest: list[Hypotheses],
    src: list[list[int]],
    config: LabelFilterConfig,
    tokenizer: Tokenizer,
    max_length: int | None,
) -> tuple[list[Hypotheses], list[object]]:
    """The n-best lists without what has a fault, unless all of a list has; the rows' marks."""
    sources = tokenizer.decode(src)
    texts = iter(tokenizer.decode([ids for hypotheses in nbest for ids, _ in hypotheses]))
    mended: list[Hypotheses] = []
    marks: list[object] = []
    for source, ids_of_source, hypotheses in zip(sources, src, nbest, strict=True):
        faults = [
            fault_of(Labelled(source, next(texts), ids_of_source, *one), config, max_length)
            for one in hypotheses
        ]
        kept, mark = choose(faults)
        mended.append([hypotheses[place] for place in kept])
        marks.append(mark)
    return mended, marks


def _in_one_pass(teacher: Teacher, config: LabelsConfig) -> TypeGuard[OnePassTeacher]:
    return config.one_pass and isinstance(teacher, OnePassTeacher) and teacher.one_pass


def _greedy_columns(labels: list[GreedyLabel]) -> dict[str, list[object]]:
    """Columns of translations that came with the distributions along them."""
    hypotheses = [found[0] for found, _ in labels]
    columns: dict[str, list[object]] = {
        "nbest": [[ids] for ids, _ in hypotheses],
        "scores": [[score] for _, score in hypotheses],
        "hypothesis": [ids for ids, _ in hypotheses],
    }
    return columns | path_columns("hypothesis", [distribution for _, distribution in labels])


def path_columns(path: str, distributions: list[Distributions]) -> dict[str, list[object]]:
    """Columns of the distributions along a path."""
    return {
        f"{path}_ids": [each.ids.astype(np.int32).ravel() for each in distributions],
        f"{path}_logp": [each.logp.astype(np.float16).ravel() for each in distributions],
        f"{path}_tail": [each.tail.astype(np.float32) for each in distributions],
    }


def distributions_along(
    teacher: Teacher, src: list[list[int]], trg: list[list[int]], top_k: int
) -> list[Distributions]:
    """The teacher's distributions along the targets, none along a missing one."""
    nothing = np.empty(0, dtype=np.float32)
    distributions = [Distributions(nothing, nothing, nothing)] * len(src)
    rows = [row for row, target in enumerate(trg) if target]
    if rows:
        answers = teacher.distributions(
            [src[row] for row in rows], [trg[row] for row in rows], top_k
        )
        for row, answer in zip(rows, answers, strict=True):
            distributions[row] = answer
    return distributions


def label_shard(
    shard: Path,
    out: Path,
    teacher: Teacher,
    config: LabelsConfig,
    tokenizer: Tokenizer,
    done: Callable[[int], None] | None = None,
) -> None:
    """Label one token shard and write it; `done` is called with the rows of each chunk."""
    table = map_table(shard)
    schema = label_schema(list(config.paths), config.n_best, config.filter is not None)
    # A token shard without a pair that was short enough still has a label shard.
    parts = [schema.empty_table()]
    size = ONE_PASS_CHUNK if _in_one_pass(teacher, config) else CHUNK
    for start in range(0, len(table), size):
        chunk = table.slice(start, size)
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


# --- workers -----------------------------------------------------------------------------------


class ShardJob(Protocol):
    """What workers are given: how to build the models, once a worker, and to label a shard by
    them. Plain data, so that it can be sent to other processes."""

    @property
    def make_teacher(self) -> Callable[[], Any]: ...

    def label(self, shard: Path, teacher: Any, done: Callable[[int], None] | None = None) -> int:
        """Label a token shard unless it is labelled; → its rows."""
        ...


class Workers(Protocol):
    """Labels all shards as `job` says; `done` is called with the number of rows just labelled.

    A shard may be tried again after its worker died. Raises LabelError where it dies again and
    again, and whatever the teacher raises.
    """

    def __call__(self, job: ShardJob, shards: list[Path], done: Callable[[int], None]) -> None: ...


def in_process(job: ShardJob, shards: list[Path], done: Callable[[int], None]) -> None:
    """Label the shards in this process; `done` is called after every chunk."""
    if not shards:
        return
    keep_memory()
    teacher = job.make_teacher()
    for shard in shards:
        job.label(shard, teacher, done)


class LabelWorker:
    """Builds its teacher once, with so many threads, and labels a shard at a time."""

    def __init__(self, job: ShardJob, threads: int) -> None:
        self._job = job
        self._teacher: Any = None
        # Teachers and torch take their threads from here, see training.distributed.thread_count.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
        keep_memory()

    def label(self, shard: Path) -> int:
        """Label a shard unless it is; → its rows."""
        if self._teacher is None:
            self._teacher = self._job.make_teacher()
        return self._job.label(shard, self._teacher)


_worker: LabelWorker | None = None


def _start(job: ShardJob, threads: int) -> None:
    global _worker
    die_with_parent()
    _worker = LabelWorker(job, threads)


def _label(shard: Path) -> int:
    assert _worker is not None
    return _worker.label(shard)


@dataclass(frozen=True)
class Processes:
    """So many processes, each with a teacher and an equal share of the cores."""

    count: int

    def __call__(self, job: ShardJob, shards: list[Path], done: Callable[[int], None]) -> None:
        """Label the shards; where a process dies, what it left is tried again in new ones."""
        left = shards
        for _ in range(TRIES):
            if not left:
                return
            left = self._label(job, left, done)
        if left:
            raise LabelError(
                f"labelling: a worker died {TRIES} times (out of memory?); finished shards are "
                f"kept, {', '.join(shard.name for shard in left)} are left: use fewer workers"
            )

    def _label(self, job: ShardJob, shards: list[Path], done: Callable[[int], None]) -> list[Path]:
        """→ the shards that were not labelled because a process died."""
        pool = ProcessPoolExecutor(
            self.count, get_context("spawn"), _start, (job, thread_count(self.count))
        )
        left = []
        try:
            with unreached():
                futures = {pool.submit(_label, shard): shard for shard in shards}
            for future in as_completed(futures):
                try:
                    done(future.result())
                except BrokenProcessPool:
                    left.append(futures[future])
        except KeyboardInterrupt:
            end_children()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return sorted(left)


def on_ray(job: ShardJob, shards: list[Path], done: Callable[[int], None]) -> None:
    """Label the shards; Ray restarts an actor that died and gives it its shard again."""
    if not shards:
        return
    with ray_cluster() as ray:
        count = min(int(ray.cluster_resources().get("CPU", 1)), len(shards))
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=TRIES - 1)(LabelWorker)
        idle = [actor.remote(job, 1) for _ in range(max(count, 1))]
        waiting = [shard.resolve() for shard in reversed(shards)]
        running: dict[Any, tuple[Any, Path]] = {}
        while waiting or running:
            while waiting and idle:
                worker, shard = idle.pop(), waiting.pop()
                running[worker.label.remote(shard)] = worker, shard
            (ready, *_), _ = ray.wait(list(running))
            worker, shard = running.pop(ready)
            done(_rows(ray, ready, shard))
            idle.append(worker)


def _rows(ray: Any, result: Any, shard: Path) -> int:
    """Rows of a labelled shard; what went wrong in the worker is raised as it was there."""
    try:
        return int(ray.get(result))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise LabelError(
            f"{shard.name}: its Ray worker died {TRIES} times (out of memory?): {error}; finished "
            "shards are kept, run the `label` stage again"
        ) from None


def choose_workers(wanted: str) -> Workers:
    """`1` is this process, a larger number so many processes, `ray` a Ray cluster.

    Raises RecipeError for anything else.
    """
    if wanted == "ray":
        return on_ray
    if not wanted.isdecimal() or int(wanted) < 1:
        raise RecipeError(f"--workers takes a number from 1 or `ray`, not {wanted!r}")
    return in_process if wanted == "1" else Processes(int(wanted))


# --- the whole corpus --------------------------------------------------------------------------


def label_shards(
    job: ShardJob,
    shards: list[Path],
    folder: Path,
    progress: Callable[[int], None] | None,
    workers: Workers,
) -> None:
    """Label every shard that `folder` does not hold yet."""
    pending = [shard for shard in shards if not shard_is_done(folder / shard.name)]
    finished = sum(len(map_table(shard)) for shard in shards if shard not in pending)

    def done(rows: int) -> None:
        nonlocal finished
        finished += rows
        if progress is not None:
            progress(finished)

    if pending:
        done(0)
        workers(job, pending, done)


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

    `progress` is called with the number of pairs labelled so far. Each worker builds its teacher
    once, and only if there is something to label.
    """
    job = LabelJob(make_teacher, folder.resolve(), config, tokenizer)
    label_shards(job, shards, folder, progress, workers)
    names = [shard.name for shard in shards]
    if config.filter is not None:
        marks = fault_marks(folder, names)
        found = report(marks)
        atomic_write(folder / FILTER_REPORT, json.dumps(found, indent=2))
        say(render(found, len(marks)))
    write_manifest(folder, names, config.top_k, list(config.paths))
