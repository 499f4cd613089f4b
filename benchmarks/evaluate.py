"""The evaluation of a run: teacher, students and bundle on the test sets, with a speed ratio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.plots import draw_evaluation
from benchmarks.speed import ratios, spread, take_turns
from benchmarks.systems.base import WHOLE, System
from benchmarks.systems.ours import bundle_systems, labelling_teacher, torch_systems
from benchmarks.systems.process import start_systems
from export.metrics import compare, scores
from export.runtime.bundle import load_bundle, update_metrics
from export.runtime.manifest import Metric
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine, usable_cores
from training.data.prepare import read_pairs
from training.run import Run, held_out
from training.stage import say

SPEED_SENTENCES = 100
ROUNDS = 5


@dataclass(frozen=True)
class EvaluationRow:
    """A system, and how it is named in a table."""

    name: str
    system: System

    @property
    def decoding(self) -> str:
        beam = self.system.info.beam_size
        return "greedy" if beam == 1 else f"beam {beam}"

    @property
    def label(self) -> str:
        info = self.system.info
        return f"{self.name}, {info.engine} {info.precision}, {self.decoding}"

    def about(self) -> dict[str, Any]:
        """What the scores say of it."""
        info = self.system.info
        return {
            "name": self.name,
            "engine": info.engine,
            "precision": info.precision,
            "decoding": self.decoding,
            "parameters": info.parameters,
        }


def systems_of(run: Run) -> Iterator[EvaluationRow]:
    """Every system of a run, in the order of its table; a run may have no teacher."""
    languages = run.recipe.corpus.src_lang, run.recipe.corpus.trg_lang
    if run.teacher_checkpoint is not None:
        (greedy,) = torch_systems(run.teacher_checkpoint, "teacher", "teacher", *languages)
        yield EvaluationRow("teacher", greedy)
    if run.recipe.teacher is not None:
        yield EvaluationRow("teacher", labelling_teacher(run))
    for name in run.recipe.objectives():
        checkpoint = run.student_folder(name) / "checkpoint"
        (student,) = torch_systems(checkpoint, name, "student", *languages)
        yield EvaluationRow(name, student)
    for engine in bundle_systems(load_bundle(run.bundle)):
        yield EvaluationRow("student", engine)


def translations(system: System, sources: list[str]) -> list[str]:
    """A system's translations, made in this process on all cores."""
    threads = torch.get_num_threads()
    system.load(usable_cores())
    try:
        return system.translate(sources, WHOLE)
    finally:
        system.close()
        torch.set_num_threads(threads)


def evaluate_run(run: Run, folder: Path) -> dict[str, Any]:
    """Translate the test sets by every system; write `evaluation.json`, `.md` and `.png`.

    The scores also go into the bundle's manifest and card. Speed is measured last, on one thread:
    run this with nothing else running.
    """
    rows_of = list(systems_of(run))
    sets = dict(zip(run.recipe.corpus.test, held_out(run), strict=True))
    # Without a test set the validation text stands in, and is named as what it is.
    sets = sets or {"validation": run.validation}
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for name, path in sets.items():
        pairs = list(read_pairs(path))
        sources, references = [src for src, _ in pairs], [trg for _, trg in pairs]
        outputs = {one.label: translations(one.system, sources) for one in rows_of}
        for one in rows_of:
            for score in scores(outputs[one.label], references):
                rows.append({"dataset": name, **one.about(), **asdict(score)})
            say(f"evaluate: {name}: {one.label}: {rows[-2]['score']:.2f} BLEU")
        comparisons += [{"dataset": name, **row} for row in _compared(outputs, references)]
    report = {
        "recipe": run.recipe.name,
        "scores": rows,
        "comparisons": comparisons,
        "speed": _speed(rows_of, next(iter(sets.values()))),
    }
    atomic_write(folder / "evaluation.json", json.dumps(report, indent=2, ensure_ascii=False))
    atomic_write(folder / "evaluation.md", render(report))
    draw_evaluation(report, folder / "evaluation.png")
    update_metrics(run.bundle, [_metric(row) for row in rows])
    say(render(report))
    return report


def _compared(outputs: dict[str, list[str]], references: list[str]) -> list[dict[str, Any]]:
    """The student in torch against every baseline in torch."""
    student = next(label for label in outputs if label.startswith("student, torch"))
    others = [
        label
        for label in outputs
        if "torch" in label and not label.startswith(("student", "teacher"))
    ]
    comparisons = []
    for label in others:
        baseline = (label, outputs[label])
        comparisons += compare(baseline, [(student, outputs[student])], references)
    return [asdict(comparison) for comparison in comparisons]


def _metric(row: dict[str, Any]) -> Metric:
    keys = ("system", "engine", "precision", "decoding", "dataset", "metric", "score", "signature")
    return Metric(**{key: row["name"] if key == "system" else row[key] for key in keys})


def _speed(systems: list[EvaluationRow], path: Path) -> dict[str, Any]:
    """Sentences a second, one at a time on one thread; the systems take turns, each in its own
    process."""
    sentences = [src for src, _ in list(read_pairs(path))[:SPEED_SENTENCES]]
    # The teacher's first row: greedy in torch where it can be, else as it labelled.
    teacher = next((row for row in systems if row.name == "teacher"), None)
    chosen = [row for row in systems if row is teacher or row.name == "student"]
    before, failed = describe_machine(), dict[str, str]()
    with start_systems([row.system for row in chosen], 1, failed) as running:
        turns = take_turns(running, sentences, 1, ROUNDS, failed)
    rounds = {
        row.label: turns[row.system.info.name].sentences_per_second
        for row in chosen
        if row.system.info.name in turns
    }
    slow = rounds.get(teacher.label) if teacher is not None else None
    return {
        "batch": 1,
        "threads": 1,
        "sentences": len(sentences),
        "systems": [
            {
                "system": label,
                "sentences_per_second": spread(times)["median"],
                "rounds": [round(value, 2) for value in times],
            }
            for label, times in rounds.items()
        ],
        "times_the_teacher": {
            label: ratios(times, slow)
            for label, times in rounds.items()
            if slow is not None and teacher is not None and label != teacher.label
        },
        "failed": failed,
        "machine": before,
    }


def render(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# Evaluation of {report['recipe']}",
        "",
        "| system | engine | decoding | parameters | test set | BLEU | chrF2 |",
        "|---|---|---|--:|---|--:|--:|",
    ]
    for bleu, chrf in zip(report["scores"][::2], report["scores"][1::2], strict=True):
        lines.append(
            f"| {bleu['name']} | {bleu['engine']} {bleu['precision']} | {bleu['decoding']} "
            f"| {_millions(bleu['parameters'])} | {bleu['dataset']} "
            f"| {bleu['score']:.2f} | {chrf['score']:.2f} |"
        )
    lines.append("")
    for row in report["scores"][:2]:
        lines.append(f"{row['metric']}: `{row['signature']}`  ")
    for row in report["comparisons"]:
        lines.append(
            f"{row['system']} against {row['baseline']}: {row['difference']:+.2f} BLEU, "
            f"p = {row['p_value']:.4f} (`{row['signature']}`)  "
        )
    return "\n".join([*lines, "", *_render_speed(report["speed"]), ""])


def _millions(parameters: int | None) -> str:
    return "unknown" if parameters is None else f"{parameters / 1e6:.1f} M"


def _render_speed(speed: dict[str, Any]) -> list[str]:
    about = speed["machine"]
    lines = [
        f"Speed at batch {speed['batch']}, {speed['threads']} thread, {speed['sentences']} "
        f"sentences, medians of interleaved rounds ({about['processor']}, load "
        f"{about['load_1min']}, CTranslate2 {about['ctranslate2']}, torch {about['torch']}):",
        "",
        "| system | sentences/s | times the teacher (least–most) |",
        "|---|--:|--:|",
    ]
    compared = speed["times_the_teacher"]
    for row in speed["systems"]:
        times = compared.get(row["system"])
        shown = "1" if compared else "–"
        if times:
            shown = f"{times['median']} ({times['least']}–{times['most']})"
        lines.append(f"| {row['system']} | {row['sentences_per_second']} | {shown} |")
    return lines
