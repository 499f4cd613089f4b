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

from benchmarks.study.cell import Bench, plan_of, row_is_current, teacher_row
from benchmarks.study.config import Cell, StudyError
from training.atomic import atomic_write
from training.launch import available_cores
from training.monitor import clock
from training.stage import run_stage, say
from training.stages import Run, build_stages

SHARED = ("prepare", "tokenize", "teacher", "label")
POLL = 1.0
GRACE = 20.0


@dataclass
class Worker:
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
    bench: Bench, out: Path, jobs: int | None = None, max_minutes: float | None = None
) -> bool:
    """Do what is not done yet and keep `out/results.jsonl` current; → whether all cells are done.

    `jobs` students train side by side: by default as many as have a core for each process.
    Raises StudyError where a cell fails.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    cells = bench.study.cells()
    runs = {text: _prepared(bench, text) for text in dict.fromkeys(cell.text for cell in cells)}
    teachers = [teacher_row(bench, text) for text in runs]
    rows = {cell: row_is_current(bench, runs[cell.text], cell) for cell in cells}
    pending = [cell for cell in cells if rows[cell] is None]
    progress = Progress(len(cells), len(cells) - len(pending))
    _write_rows(out, [*teachers, *rows.values()])
    say(progress.line(0))
    jobs = jobs or _jobs(bench, runs)
    workers: list[Worker] = []
    try:
        while pending or workers:
            if deadline is not None and time.monotonic() > deadline:
                say("study: out of time; what has begun is resumed by the same command")
                return False
            while pending and len(workers) < jobs:
                workers.append(_start(bench, runs, pending.pop(0), jobs))
            for worker in [one for one in workers if one.process.poll() is not None]:
                workers.remove(worker)
                rows[worker.cell] = _collect(bench, runs, worker)
                progress.finished, progress.since = progress.finished + 1, progress.since + 1
                _write_rows(out, [*teachers, *rows.values()])
                say(f"{progress.line(len(workers))} ({worker.cell.key})")
            time.sleep(POLL)
    finally:
        _stop(workers)
    return True


def _prepared(bench: Bench, text: str) -> Run:
    """The run of a text, its shared stages done. One text's teacher may be an earlier text's, so
    its recipe is read no sooner."""
    run = bench.run(text)
    stages = build_stages(run)
    for name in SHARED:
        if name in stages:
            run_stage(stages[name], stages)
    return run


def _jobs(bench: Bench, runs: dict[str, Run]) -> int:
    wanted = next(iter(runs.values())).recipe.student.training.processes
    return max(1, available_cores() // wanted) if isinstance(wanted, int) else 1


def _start(bench: Bench, runs: dict[str, Run], cell: Cell, jobs: int) -> Worker:
    folder = plan_of(bench, runs[cell.text], cell).folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    threads = max(1, available_cores() // jobs)
    environment = {**os.environ, "QUICKSTUDY_STUDY_PARENT": str(os.getpid())}
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    arguments = [bench.path, bench.runs, bench.data or "", *cell]
    command = [sys.executable, "-m", "benchmarks.study.cell", *map(str, arguments)]
    say(f"study: {cell.key} started, log {log}")
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    return Worker(cell, process, log)


def _collect(bench: Bench, runs: dict[str, Run], worker: Worker) -> dict[str, Any]:
    row = row_is_current(bench, runs[worker.cell.text], worker.cell)
    if worker.process.returncode or row is None:
        tail = worker.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise StudyError(
            f"the student {worker.cell.key} failed (exit code {worker.process.returncode}); "
            f"the end of {worker.log}:\n" + "\n".join(tail)
        )
    return row


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def _write_rows(out: Path, rows: list[dict[str, Any] | None]) -> None:
    """One JSON line a finished row, the teachers first, then in the order of the grid."""
    out.mkdir(parents=True, exist_ok=True)
    found = [json.dumps(row, ensure_ascii=False) for row in rows if row is not None]
    atomic_write(out / "results.jsonl", "".join(f"{line}\n" for line in found))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a results file. Raises StudyError where there are none."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise StudyError(f"{path}: no results yet; run the study first") from None
    except ValueError as error:
        raise StudyError(f"{path}: not a results file: {error}") from None
