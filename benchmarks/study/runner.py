"""Running a study: shared stages once, then every cell, some side by side, until done.

Rows are written by the cells, so a study that was killed, or that ran out of its minutes, goes on
where it stopped: finished cells are kept, begun ones resume from their checkpoints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.study.cell import StudyBench, current_row, plan_of, teacher_row
from benchmarks.study.config import Cell, StudyError
from training.atomic import atomic_write
from training.interrupt import unreached
from training.launch import available_cores
from training.monitor import clock
from training.recipe import RecipeError
from training.run import Run
from training.stage import is_done, run_stage, say
from training.stages import build_stages

RESULTS = "results.jsonl"
SHARED = ("prepare", "tokenize", "teacher", "label")
POLL = 1.0
GRACE = 20.0


@dataclass
class CellWorker:
    """A cell being trained by a process of its own."""

    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class Progress:
    """What a study has done since it was started."""

    total: int
    finished: int
    started: float = field(default_factory=time.monotonic)
    since: int = 0

    def line(self, running: int) -> str:
        spent = time.monotonic() - self.started
        left = self.total - self.finished
        eta = clock(spent / self.since * left) if self.since else "?"
        return f"study: {self.finished} of {self.total} done, {running} running, eta {eta}"


def run_study(
    bench: StudyBench, out: Path, jobs: int | None = None, max_minutes: float | None = None
) -> bool:
    """Do what is not done yet and keep `out/results.jsonl` current; → whether all cells are done.

    `jobs` students train side by side: by default as many as have a core for each process.
    Raises StudyError where a cell fails.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    at_work = _AtWork(bench, out, jobs)
    try:
        while at_work.pending or at_work.workers:
            if deadline is not None and time.monotonic() > deadline:
                say("study: out of time; what has begun is resumed by the same command")
                return False
            at_work.start()
            at_work.collect()
            time.sleep(POLL)
    finally:
        _stop(at_work.workers)
    return True


class _AtWork:
    """A study while it runs: finished rows, cells to come, students in training."""

    def __init__(self, bench: StudyBench, out: Path, jobs: int | None) -> None:
        self.bench, self.out = bench, out
        results = out / RESULTS
        self.known = (
            {row["fingerprint"]: row for row in read_rows(results)} if results.exists() else {}
        )
        self.rows: dict[Cell, dict[str, Any] | None] = dict.fromkeys(bench.study.cells())
        self.teachers: dict[str, dict[str, Any] | None] = {}
        self.runs: dict[str, Run] = {}
        self.workers: list[CellWorker] = []
        texts = list(dict.fromkeys(cell.text for cell in self.rows))
        self._prepare(texts[0])
        for text in texts[1:]:
            if _is_ready(bench, text):
                self._prepare(text)
        self.pending = [cell for cell, row in self.rows.items() if row is None]
        self.progress = Progress(len(self.rows), len(self.rows) - len(self.pending))
        self.jobs = jobs or _jobs(self.runs[texts[0]])
        self._tell()

    def _prepare(self, text: str) -> None:
        """Do the shared stages of a text and take up the rows that are there. A text's teacher may
        be an earlier text's, so its recipe is read no sooner than its turn comes."""
        run = self.bench.run(text)
        stages = build_stages(run)
        for name in SHARED:
            if name in stages:
                run_stage(stages[name], stages)
        self.runs[text] = run
        self.teachers[text] = teacher_row(self.bench, text)
        for cell in self.rows:
            if cell.text == text:
                self.rows[cell] = current_row(self.bench, run, cell, self.known)

    def start(self) -> None:
        """Start students while there is room for them."""
        while self.pending and len(self.workers) < self.jobs:
            cell = self.pending[0]
            if cell.text not in self.runs:
                self._prepare(cell.text)
                before = len(self.pending)
                self.pending = [one for one in self.pending if self.rows[one] is None]
                self.progress.finished += before - len(self.pending)
                continue
            worker = _start(self.bench, self.runs[cell.text], self.pending.pop(0), self.jobs)
            self.workers.append(worker)

    def collect(self) -> None:
        """Take the rows of students that are done. Raises StudyError where one has failed."""
        for worker in [one for one in self.workers if one.process.poll() is not None]:
            self.workers.remove(worker)
            self.rows[worker.cell] = _row_of(self.bench, self.runs[worker.cell.text], worker)
            self.progress.finished += 1
            self.progress.since += 1
            self._tell(worker.cell)

    def _tell(self, done: Cell | None = None) -> None:
        """Write the results so far: the teachers first, then one line a cell, as in the grid."""
        self.out.mkdir(parents=True, exist_ok=True)
        found = [row for row in (*self.teachers.values(), *self.rows.values()) if row is not None]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        atomic_write(self.out / RESULTS, lines)
        say(self.progress.line(len(self.workers)) + (f" ({done.key})" if done else ""))


def _is_ready(bench: StudyBench, text: str) -> bool:
    """Whether the shared stages of a text are done, so that taking it up makes nothing."""
    try:
        stages = build_stages(bench.run(text))
    except RecipeError:
        return False
    return all(is_done(stages[name], stages) for name in SHARED if name in stages)


def _jobs(run: Run) -> int:
    wanted = run.recipe.student.training.processes
    return max(1, available_cores() // wanted) if isinstance(wanted, int) else 1


def _start(bench: StudyBench, run: Run, cell: Cell, jobs: int) -> CellWorker:
    folder = plan_of(bench, run, cell).folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    threads = max(1, available_cores() // jobs)
    environment = {**os.environ, "QUICKSTUDY_STUDY_PARENT": str(os.getpid())}
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    arguments = [bench.path, bench.runs, bench.data or "", *cell]
    command = [sys.executable, "-m", "benchmarks.study.cell", *map(str, arguments)]
    say(f"study: {cell.key} started, log {log}")
    with log.open("ab") as file, unreached():
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    return CellWorker(cell, process, log)


def _row_of(bench: StudyBench, run: Run, worker: CellWorker) -> dict[str, Any]:
    row = current_row(bench, run, worker.cell, {})
    if worker.process.returncode or row is None:
        tail = worker.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise StudyError(
            f"the student {worker.cell.key} failed (exit code {worker.process.returncode}); "
            f"the end of {worker.log}:\n" + "\n".join(tail)
        )
    return row


def _stop(workers: list[CellWorker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file. Raises StudyError where there are none."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise StudyError(f"{path}: no results yet; run the study first") from None
    except ValueError as error:
        raise StudyError(f"{path}: not a results file: {error}") from None
