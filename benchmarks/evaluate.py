"""The evaluation of a run: teacher, students and bundle on the test sets, with a speed ratio."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.picture import draw
from benchmarks.speed import TranslateOne, batch_one, machine, ratio
from export.bundle import load_bundle, update_metrics
from export.engines import TranslateOptions, load_engine
from export.manifest import Metric
from export.quality import compare, scores
from service.text import join_parts, split_text
from training.atomic import atomic_write
from training.batching import clipped
from training.checkpoint import Checkpoint, load_checkpoint
from training.corpus import read_pairs
from training.decoding import greedy_corpus
from training.distill.teachers import build_teacher
from training.given_teacher import longest_sides
from training.model import parameter_count
from training.run import Run, held_out
from training.stage import say
from training.tokenizer import Tokenizer

ENGINE_KINDS = {"ctranslate2": "CTranslate2", "onnx": "ONNX Runtime"}
SPEED_SENTENCES = 100
TranslateAll = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class System:
    """Something that translates, and how it is named in a table."""

    name: str
    engine: str
    precision: str
    decoding: str
    parameters: int | None
    translate: TranslateAll

    @property
    def label(self) -> str:
        return f"{self.name}, {self.engine} {self.precision}, {self.decoding}"


def torch_greedy(checkpoint: Checkpoint) -> TranslateAll:
    """Greedy translation by the checkpoint in torch, cached, float32."""
    tokenizer = Tokenizer(checkpoint.tokenizer)
    longest = checkpoint.config.max_length - 1

    def translate(sentences: list[str]) -> list[str]:
        rows = clipped(tokenizer.encode(sentences), longest)
        found = greedy_corpus(checkpoint.model, rows)
        return tokenizer.decode([hypothesis.ids for hypothesis in found])

    return translate


def teacher_beam(run: Run) -> System:
    """The teacher as students learn from it: beam search, in the student's tokens."""
    labels, job = run.recipe.labels, run.teacher_job
    teacher = build_teacher(job)
    tokenizer = Tokenizer(job.tokenizer)
    longest = longest_sides(run.recipe) - 1

    def translate(sentences: list[str]) -> list[str]:
        rows = clipped(tokenizer.encode(sentences), longest)
        found = teacher.translate(rows, labels.beam_size, 1, labels.length_penalty)
        return tokenizer.decode([hypotheses[0][0] for hypotheses in found])

    about, decoding = teacher.about, f"beam {labels.beam_size}"
    return System("teacher", about.engine, about.precision, decoding, about.parameters, translate)


def bundle_engine(bundle: Path, name: str) -> TranslateAll:
    """Greedy translation by an engine of the bundle, one thread, cutting text as the service
    does."""
    opened = load_bundle(bundle)
    engine = load_engine(opened, name)
    language, options = opened.manifest.source_lang, TranslateOptions()

    def translate(texts: list[str]) -> list[str]:
        split = [
            split_text(text, language, engine.count_tokens, engine.max_input_tokens)
            for text in texts
        ]
        sentences = [part.text for parts in split for part in parts if part.translate]
        found = iter(engine.translate_batch(sentences, options))
        return [
            join_parts(parts, [next(found).text for part in parts if part.translate])
            for parts in split
        ]

    return translate


def systems_of(run: Run) -> Iterator[System]:
    """Every system of a run, in the order of its table."""
    if run.teacher_checkpoint is not None:
        teacher = load_checkpoint(run.teacher_checkpoint)
        size = parameter_count(teacher.model)
        yield System("teacher", "torch", "float32", "greedy", size, torch_greedy(teacher))
    yield teacher_beam(run)
    for name in run.recipe.objectives():
        student = load_checkpoint(run.student_folder(name) / "checkpoint")
        size = parameter_count(student.model)
        yield System(name, "torch", "float32", "greedy", size, torch_greedy(student))
    for engine in load_bundle(run.bundle).manifest.engines:
        translate = bundle_engine(run.bundle, engine.name)
        kind = ENGINE_KINDS[engine.kind]
        label = engine.precision_label
        yield System("student", kind, label, "greedy", size, translate)


def evaluate_run(run: Run, folder: Path) -> dict[str, Any]:
    """Translate the test sets by every system; write `evaluation.json`, `.md` and `.png`.

    The scores also go into the bundle's manifest and card. Speed is measured last, on one thread:
    run this with nothing else running.
    """
    systems = list(systems_of(run))
    sets = dict(zip(run.recipe.corpus.test, held_out(run), strict=True))
    # Without a test set the validation text stands in, and is named as what it is.
    sets = sets or {"validation": run.validation}
    rows: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for name, path in sets.items():
        pairs = list(read_pairs(path))
        sources, references = [src for src, _ in pairs], [trg for _, trg in pairs]
        outputs = {system.label: system.translate(sources) for system in systems}
        for system in systems:
            for score in scores(outputs[system.label], references):
                rows.append({"dataset": name, **_about(system), **asdict(score)})
            say(f"evaluate: {name}: {system.label}: {rows[-2]['score']:.2f} BLEU")
        comparisons += [{"dataset": name, **row} for row in _compared(outputs, references)]
    report = {
        "recipe": run.recipe.name,
        "scores": rows,
        "comparisons": comparisons,
        "speed": _speed(systems, next(iter(sets.values()))),
    }
    atomic_write(folder / "evaluation.json", json.dumps(report, indent=2, ensure_ascii=False))
    atomic_write(folder / "evaluation.md", render(report))
    draw(report, folder / "evaluation.png")
    update_metrics(run.bundle, [_metric(row) for row in rows])
    say(render(report))
    return report


def _about(system: System) -> dict[str, Any]:
    about = asdict(system)
    del about["translate"]
    return about


def _compared(outputs: dict[str, list[str]], references: list[str]) -> list[dict[str, Any]]:
    """The student in torch against every baseline in torch."""
    student = next(label for label in outputs if label.startswith("student, torch"))
    others = [
        label
        for label in outputs
        if "torch" in label and not label.startswith(("student", "teacher"))
    ]
    found = []
    for label in others:
        baseline = (label, outputs[label])
        found += compare(baseline, [(student, outputs[student])], references)
    return [asdict(comparison) for comparison in found]


def _metric(row: dict[str, Any]) -> Metric:
    keys = ("system", "engine", "precision", "decoding", "dataset", "metric", "score", "signature")
    return Metric(**{key: row["name"] if key == "system" else row[key] for key in keys})


def _speed(systems: list[System], path: Path) -> dict[str, Any]:
    sentences = [src for src, _ in list(read_pairs(path))[:SPEED_SENTENCES]]
    # The teacher's first row: greedy in torch where it can be, else as it labelled.
    teacher = next(system for system in systems if system.name == "teacher")
    chosen = [teacher, *(system for system in systems if system.name == "student")]

    def one(system: System) -> TranslateOne:
        return lambda sentence: system.translate([sentence])[0]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = machine()
    found = batch_one({system.label: one(system) for system in chosen}, sentences)
    torch.set_num_threads(threads)
    return {
        "batch": 1,
        "threads": 1,
        "sentences": len(sentences),
        "systems": [asdict(speed) for speed in found],
        "times_the_teacher": {speed.system: ratio(speed, found[0]) for speed in found[1:]},
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
    for row in speed["systems"]:
        times = speed["times_the_teacher"].get(row["system"])
        shown = f"{times['median']} ({times['least']}–{times['most']})" if times else "1"
        lines.append(f"| {row['system']} | {row['sentences_per_second']} | {shown} |")
    return lines
