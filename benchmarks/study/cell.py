"""One student of a study: train it, measure it, write its row.

Run as a process of its own (`python -m benchmarks.study.cell`), so that several train side by side
and a killed one is resumed from its checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.buckets import buckets, rarity_of_counts, source_counts
from benchmarks.speed import machine
from benchmarks.study.config import OWN, Cell, Study, load_study, load_text
from export.bootstrap import bleu_of, pack, statistics_of
from export.quality import scores
from quickstudy_errors import QuickstudyError, explain
from training.atomic import atomic_write
from training.batching import clipped
from training.checkpoint import load_checkpoint
from training.corpus import read_pairs
from training.distill.config import needs_labels
from training.distill.teachers import NativeTeacher
from training.launch import die_with_parent
from training.recipe_files import dump_recipe
from training.run import Run, held_out, public_recipe
from training.stage import Stage, fingerprint, result_digest, run_stage
from training.stages import build_stages
from training.students import StudentPlan, student_stage
from training.tokenizer import Tokenizer

ROW = "row.json"


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
    found = known.get(wanted)
    return found if found and all(found[k] == v for k, v in cell._asdict().items()) else None


def row_fingerprint(bench: StudyBench, stages: dict[str, Stage], plan: StudentPlan) -> str:
    """What a row depends on: the student's inputs and how it is measured."""
    return f"{fingerprint(stages[plan.name], stages)}-{'.'.join(map(str, bench.study.beams))}"


def train_and_measure(bench: StudyBench, cell: Cell) -> dict[str, Any]:
    """Train the cell's student unless that is done, and write its row."""
    run = bench.run(cell.text)
    plan, stages = cell_stage(bench, run, cell)
    run_stage(stages[plan.name], stages)
    loaded = load_checkpoint(plan.checkpoint)
    labels = stages["label"].note().get("result") if needs_labels(plan.objective) else None
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
        "machine": machine(),
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
        "machine": machine(),
        "tests": _measure_all(bench, run, checkpoint),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(row, ensure_ascii=False))
    return row


KEPT = ("validation_bleu", "steps", "seconds", "parameters", "processes", "precision")


def _short_gate(report: dict[str, Any]) -> dict[str, Any]:
    """The gate report without its course over the steps but for a dozen points."""
    steps = report["steps"]
    return {**report, "steps": steps[:: max(len(steps) // 12, 1)]}


# --- measuring -----------------------------------------------------------------------------------


def _measure_all(bench: StudyBench, run: Run, checkpoint: Path) -> dict[str, Any]:
    sets = zip(run.recipe.corpus.test, held_out(run), strict=True)
    return {name: _measure(bench, run, checkpoint, path) for name, path in sets}


def _measure(bench: StudyBench, run: Run, checkpoint: Path, path: Path) -> dict[str, Any]:
    """Scores and sentence statistics of one test set, by beam size (CTranslate2, float32)."""
    pairs = list(read_pairs(path))
    sources, references = [src for src, _ in pairs], [trg for _, trg in pairs]
    found: dict[str, Any] = {"sentences": len(pairs), "buckets": pack(_buckets(run, sources))}
    engine = NativeTeacher(checkpoint, precision="float32")
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    longest = engine.model.max_length - 1
    rows = clipped(tokenizer.encode(sources), longest)
    for beam in bench.study.beams:
        translated = engine.translate(rows, beam, 1, 1.0)
        outputs = tokenizer.decode([hypotheses[0][0] for hypotheses in translated])
        statistics = statistics_of(outputs, references)
        bleu, chrf = scores(outputs, references)
        assert abs(bleu.score - bleu_of(statistics)) < 0.01
        found[f"beam{beam}"] = {
            bleu.metric: bleu.score,
            chrf.metric: chrf.score,
            "signatures": [bleu.signature, chrf.signature],
            "statistics": pack(statistics),
        }
    return found


def _buckets(run: Run, sources: list[str]) -> np.ndarray:
    """Which third of the set each sentence is in, by source length and by mean rarity of its source
    pieces in the training text: [S, 2], 0 the shortest and the most common."""
    tokenizer = Tokenizer(run.tokenizer)
    counts = source_counts(run.token_shards, len(tokenizer))
    return buckets(tokenizer.encode(sources), rarity_of_counts(counts))


def main(arguments: list[str]) -> int:
    """`STUDY RUNS DATA TEXT STUDENT METHOD SEED`; DATA may be empty."""
    study, runs, data, text, student, method, seed = arguments
    if os.environ.get("QUICKSTUDY_STUDY_PARENT"):
        die_with_parent()
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
