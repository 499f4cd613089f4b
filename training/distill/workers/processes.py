"""Labelling in several processes of this machine, which share its cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from training.distill.labels import LabelError
from training.distill.workers.worker import TRIES, LabelWorker
from training.interrupt import end_children, unreached
from training.launch import die_with_parent, thread_count

if TYPE_CHECKING:
    from training.distill.labelling import LabelJob

_worker: LabelWorker | None = None


def _start(job: LabelJob, threads: int) -> None:
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

    def __call__(self, job: LabelJob, shards: list[Path], done: Callable[[int], None]) -> None:
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

    def _label(self, job: LabelJob, shards: list[Path], done: Callable[[int], None]) -> list[Path]:
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
