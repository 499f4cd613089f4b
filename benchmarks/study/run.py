"""Runs a study: shared stages once, then every cell (one student), some side by side, until done.

A cell is trained and measured by a process of its own (`python -m benchmarks.study.run`), which
writes its row. So a study that was killed, or that ran out of its minutes, goes on where it
stopped: finished cells are kept, begun ones resume from their checkpoints.
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

import numpy as np

from benchmarks.plan import buckets, rarity_of_counts, source_counts
from benchmarks.study.config import OWN, Cell, Study, StudyError, load_study, load_text
from benchmarks.study.forced import forced_outputs
from export.ctranslate2 import to_ctranslate2
from export.metrics import bleu_of, pack, scores, statistics_of
from quickstudy.atomic import atomic_write
from quickstudy.errors import QuickstudyError, explain
from quickstudy.machine import describe_machine, usable_cores
from quickstudy.pipeline import build_stages
from training.checkpoint import load_checkpoint
from training.config.io import dump_recipe
from training.config.losses import needs_labels
from training.config.recipe import RecipeError
from training.data.batching import clipped
from training.data.prepare import read_pairs
from training.data.tokenizer import Tokenizer
from training.distill.teachers import NativeTeacher
from training.distributed import die_with_parent, unreached
from training.logging import clock
from training.run import Run, StudentPlan, held_out, public_recipe, student_stage
from training.stage import Stage, fingerprint, is_done, result_digest, run_stage, say

ROW = "row.json"
RESULTS = "results.jsonl"
SHARED = ("prepare", "tokenize", "teacher", "label")
POLL = 1.0
GRACE = 20.0
KEPT = ("validation_bleu", "steps", "seconds", "parameters", "processes", "precision")


@dataclass(frozen=True)
class StudyBench:
    """A study at work: where its recipe, text and runs are."""

    study: Study
    path: Path
    data: Path | None
    runs: Path
    force: bool = False
    """Whether to go on with a teacher that translates next to nothing."""

    def run(self, text: str) -> Run:
        recipe = load_text(self.study, self.path, text, self.data)
        return Run(recipe, self.runs / recipe.name, label_anyway=self.force)


# --- the whole study ------------------------------------------------------------------------------


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
        rows = [row for row in (*self.teachers.values(), *self.rows.values()) if row is not None]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
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
    return max(1, usable_cores() // wanted) if isinstance(wanted, int) else 1


def _start(bench: StudyBench, run: Run, cell: Cell, jobs: int) -> CellWorker:
    folder = plan_of(bench, run, cell).folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    threads = max(1, usable_cores() // jobs)
    environment = {**os.environ, "QUICKSTUDY_STUDY_PARENT": str(os.getpid())}
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    arguments = [bench.path, bench.runs, bench.data or "", *cell]
    command = [sys.executable, "-m", "benchmarks.study.run", *map(str, arguments)]
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


# --- one cell -------------------------------------------------------------------------------------


def plan_of(bench: StudyBench, run: Run, cell: Cell) -> StudentPlan:
    """The student of a cell, in a folder of its own below the run's."""
    own = run.recipe.student
    size = bench.study.students.get(cell.student)
    model = own.model if cell.student == OWN or size is None else size.model
    training = size.training if size is not None and size.training is not None else own.training
    return StudentPlan(
        name=f"{cell.student}.{cell.method}.{cell.seed}",
        folder=run.folder / "study" / f"{cell.student}.{cell.method}.{cell.seed}",
        model=model,
        training=training,
        objective=bench.study.methods[cell.method],
        seed=cell.seed,
    )


def cell_stage(bench: StudyBench, run: Run, cell: Cell) -> tuple[StudentPlan, dict[str, Stage]]:
    """The cell's student as a stage beside the run's own stages."""
    plan = plan_of(bench, run, cell)
    return plan, {**build_stages(run), plan.name: student_stage(run, plan)}


def current_row(
    bench: StudyBench, run: Run, cell: Cell, known: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """The cell's finished row, where it was made from what the stages hold now; else None.

    `known` are rows by fingerprint, of a results file that was made elsewhere.
    """
    plan, stages = cell_stage(bench, run, cell)
    wanted = row_fingerprint(bench, stages, plan)
    path = plan.folder / ROW
    if path.exists():
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["fingerprint"] == wanted:
            return row
    row_elsewhere = known.get(wanted)
    return (
        row_elsewhere
        if row_elsewhere and all(row_elsewhere[k] == v for k, v in cell._asdict().items())
        else None
    )


def row_fingerprint(bench: StudyBench, stages: dict[str, Stage], plan: StudentPlan) -> str:
    """What a row depends on: the student's inputs and how it is measured."""
    return f"{fingerprint(stages[plan.name], stages)}-{'.'.join(map(str, bench.study.beams))}"


def train_and_measure(bench: StudyBench, cell: Cell) -> dict[str, Any]:
    """Train the cell's student unless that is done, and write its row."""
    run = bench.run(cell.text)
    plan, stages = cell_stage(bench, run, cell)
    run_stage(stages[plan.name], stages)
    loaded = load_checkpoint(plan.checkpoint)
    labels = stages["label"].metadata().get("result") if needs_labels(plan.objective) else None
    gate = plan.folder / "gate.json"
    row = {
        "study": bench.study.name,
        **cell._asdict(),
        "fingerprint": row_fingerprint(bench, stages, plan),
        "objective": plan.objective.model_dump(mode="json"),
        "model": plan.model.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "recipe": public_recipe(dump_recipe(run.recipe)),
        "labels": labels,
        **{key: loaded.metrics[key] for key in KEPT},
        "machine": describe_machine(),
        "gate": _short_gate(json.loads(gate.read_text())) if gate.exists() else None,
        "tests": _measure_all(bench, run, plan.checkpoint),
    }
    atomic_write(plan.folder / ROW, json.dumps(row, ensure_ascii=False))
    return row


def teacher_row(bench: StudyBench, text: str) -> dict[str, Any] | None:
    """The teacher of a text, measured as its students are; kept in the run's study folder. None
    where it is no Quickstudy checkpoint."""
    run = bench.run(text)
    checkpoint = run.teacher_checkpoint
    if checkpoint is None:
        return None
    measured = result_digest([checkpoint, *held_out(run)])
    made = f"{measured}-{'.'.join(map(str, bench.study.beams))}"
    path = run.folder / "study" / "teacher.json"
    if path.exists():
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if row["fingerprint"] == made:
            return row
    loaded = load_checkpoint(checkpoint)
    row = {
        "study": bench.study.name,
        **Cell(text, "teacher", "teacher", run.recipe.seed)._asdict(),
        "fingerprint": made,
        "model": loaded.config.model_dump(mode="json"),
        **{key: loaded.metrics[key] for key in KEPT},
        "machine": describe_machine(),
        "tests": _measure_all(bench, run, checkpoint),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(row, ensure_ascii=False))
    return row


def _short_gate(report: dict[str, Any]) -> dict[str, Any]:
    """The gate report without its course over the steps but for a dozen points."""
    steps = report["steps"]
    return {**report, "steps": steps[:: max(len(steps) // 12, 1)]}


# --- measuring -----------------------------------------------------------------------------------


def _measure_all(bench: StudyBench, run: Run, checkpoint: Path) -> dict[str, Any]:
    sets = zip(run.recipe.corpus.test, held_out(run), strict=True)
    return {name: _measure(bench, run, checkpoint, path) for name, path in sets}


def _measure(bench: StudyBench, run: Run, checkpoint: Path, path: Path) -> dict[str, Any]:
    """Scores and sentence statistics of one test set, by beam size (CTranslate2, float32), with
    teacher forcing for 0 (torch), which has its share of right tokens too."""
    pairs = list(read_pairs(path))
    sources, references = [src for src, _ in pairs], [trg for _, trg in pairs]
    measured: dict[str, Any] = {"sentences": len(pairs), "buckets": pack(_buckets(run, sources))}
    engine = NativeTeacher(checkpoint, converter=to_ctranslate2)
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    longest = engine.model.max_length - 1
    rows = clipped(tokenizer.encode(sources), longest)
    for beam in bench.study.beams:
        accuracy = {}
        if beam:
            translated = engine.translate(rows, beam, 1, 1.0)
            outputs = tokenizer.decode([hypotheses[0][0] for hypotheses in translated])
        else:
            targets = clipped(tokenizer.encode(references), longest)
            forced, share = forced_outputs(engine.model, rows, targets)
            outputs, accuracy = tokenizer.decode(forced), {"accuracy": share}
        statistics = statistics_of(outputs, references)
        bleu, chrf = scores(outputs, references)
        assert abs(bleu.score - bleu_of(statistics)) < 0.01
        measured[f"beam{beam}"] = {
            bleu.metric: bleu.score,
            chrf.metric: chrf.score,
            "signatures": [bleu.signature, chrf.signature],
            "statistics": pack(statistics),
            **accuracy,
        }
    return measured


def _buckets(run: Run, sources: list[str]) -> np.ndarray:
    """Which third of the set each sentence is in, by source length and by mean rarity of its source
    pieces in the training text: [S, 2], 0 the shortest and the most common."""
    tokenizer = Tokenizer(run.tokenizer)
    counts = source_counts(run.token_shards, len(tokenizer))
    return buckets(tokenizer.encode(sources), rarity_of_counts(counts))


def main(arguments: list[str]) -> int:
    """`STUDY RUNS DATA TEXT STUDENT METHOD SEED`; DATA may be empty."""
    study, runs, data, text, student, method, seed = arguments
    if parent := os.environ.get("QUICKSTUDY_STUDY_PARENT"):
        die_with_parent(int(parent))
    path = Path(study)
    bench = StudyBench(load_study(path), path, Path(data) if data else None, Path(runs))
    try:
        train_and_measure(bench, Cell(text, student, method, int(seed)))
    except (QuickstudyError, OSError) as error:
        message = explain(error) if isinstance(error, OSError) else str(error)
        if message is None:
            raise
        print(f"quickstudy: {message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
