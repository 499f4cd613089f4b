"""What a worker in a process of its own is, whoever started the process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from training.distill.labelling import LabelJob
    from training.distill.teachers import Teacher

TRIES = 3
"""How often a shard is tried whose worker died."""


class LabelWorker:
    """Builds its teacher once, with so many threads, and labels a shard at a time."""

    def __init__(self, job: LabelJob, threads: int) -> None:
        self._job = job
        self._teacher: Teacher | None = None
        # Teachers and torch take their threads from here, see training.launch.thread_count.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)

    def label(self, shard: Path) -> int:
        """Label a shard unless it is; → its rows."""
        if self._teacher is None:
            self._teacher = self._job.make_teacher()
        return self._job.label(shard, self._teacher)
