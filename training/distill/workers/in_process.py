"""Labelling in this process: one teacher with all threads, one shard after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.distill.labelling import LabelJob


def in_process(job: LabelJob, shards: list[Path], done: Callable[[int], None]) -> None:
    """Label the shards here; `done` is told of every chunk."""
    if not shards:
        return
    teacher = job.make_teacher()
    for shard in shards:
        job.label(shard, teacher, done)
