"""The stages of a run: corpus → tokenizer → teacher → labels → student → export → evaluation.

Each is idempotent: it writes a note of what went in (a fingerprint of its part of the recipe and of
the results of the stages before it) and of what came out, and is skipped while that is unchanged.
A stage that was killed goes on where it stopped; one whose inputs changed starts anew, its former
folder kept beside it as `*.previous`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.atomic import atomic_folder, atomic_write
from training.corpus import prepare, read_pairs, render_report, train_shards
from training.data import map_table
from training.distill.config import ObjectiveConfig, needs_labels
from training.launch import is_first_process, only_one
from training.loop import TrainingRun, train
from training.monitor import Ticker
from training.recipe import Recipe, RecipeError, SourceConfig, dump_recipe, teacher_objective
from training.tokenizer import Tokenizer, encode_rows, train_tokenizer, write_tokens

NOTE = "stage.json"


def say(message: str) -> None:
    """A line for whoever runs the stages."""
    print(message, file=sys.stderr, flush=True)


def digest(value: Any) -> str:
    """Short hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """Hash of a file's content. Raises RecipeError where it is missing."""
    try:
        about = path.stat()
        return _file_digest(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        why = error.strerror
        raise RecipeError(f"{path}: cannot be read ({why}); set corpus.root or --data") from None


@functools.cache
def _file_digest(path: Path, _size: int, _changed: int) -> str:
    """Read once in a process while size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:20]


def result_digest(paths: list[Path]) -> str:
    """Hash of a stage's outputs: files, and every file below folders."""
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else sorted(path.rglob("*")))
        if file.is_file()
    ]
    return digest([[file.name, file_digest(file)] for file in files])


@dataclass(frozen=True)
class Run:
    """A recipe and the folder that its stages write into."""

    recipe: Recipe
    folder: Path

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokens" / "tokenizer.model"

    @property
    def token_shards(self) -> list[Path]:
        return sorted((self.folder / "tokens" / "train").glob("*.arrow"))

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher" / "checkpoint"

    @property
    def labels(self) -> Path:
        return self.folder / "labels"

    @property
    def validation(self) -> Path:
        return self.folder / "corpus" / "validation.arrow"

    def student_folder(self, name: str) -> Path:
        """Folder of the student of that name (`student`, or a baseline's name)."""
        return self.folder / ("student" if name == "student" else f"baselines/{name}")

    @property
    def bundle(self) -> Path:
        out = self.recipe.export.out
        return Path(out) if out else self.folder / "bundle"


@dataclass(frozen=True)
class Stage:
    """One step: what its result depends on, where that lies, and how to make it."""

    name: str
    folder: Path
    inputs: Callable[[], Any]
    make: Callable[[], None]
    outputs: Callable[[], list[Path]]
    needs: tuple[str, ...] = ()

    def note(self) -> dict[str, Any]:
        path = self.folder / NOTE
        return json.loads(path.read_text()) if path.exists() else {}


def fingerprint(stage: Stage, stages: dict[str, Stage]) -> str:
    """Hash of a stage's inputs and of the results of the stages before it."""
    return digest([stage.inputs(), *(stages[name].note().get("result") for name in stage.needs)])


def run_stage(stage: Stage, stages: dict[str, Stage], force: bool = False) -> bool:
    """Make a stage unless it is done; → whether anything was done.

    Raises RecipeError where a stage that it needs is not done with the same recipe, and where
    another process is at work on the stage.
    """
    for name in stage.needs:
        if not is_done(stages[name], stages):
            raise RecipeError(
                f"{stage.name} needs the stage `{name}`, which is not done with this recipe: run "
                f"it first, or `quickstudy run`"
            )
    if is_done(stage, stages) and not force:
        say(f"{stage.name}: already done with the same inputs, skipped ({stage.folder})")
        return False
    if not is_first_process():
        stage.make()
        return True
    with only_one(stage.folder):
        _make(stage, fingerprint(stage, stages), force)
    return True


def _make(stage: Stage, now: str, force: bool) -> None:
    before = stage.note().get("fingerprint", now)
    if stage.folder.exists() and (before != now or force):
        _set_aside(stage.folder, "its inputs changed" if before != now else "made again")
    stage.folder.mkdir(parents=True, exist_ok=True)
    atomic_write(stage.folder / NOTE, json.dumps({"fingerprint": now, "done": False}))
    say(f"{stage.name}: → {stage.folder}")
    stage.make()
    note = {"fingerprint": now, "done": True, "result": result_digest(stage.outputs())}
    atomic_write(stage.folder / NOTE, json.dumps(note))


def is_done(stage: Stage, stages: dict[str, Stage]) -> bool:
    """Whether a stage's results are there, made from the inputs and results before it as they
    are now."""
    note = stage.note()
    return (
        bool(note.get("done"))
        and all(is_done(stages[name], stages) for name in stage.needs)
        and note.get("fingerprint") == fingerprint(stage, stages)
        and all(path.exists() for path in stage.outputs())
    )


def _set_aside(folder: Path, why: str) -> None:
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    folder.rename(previous)
    say(f"{folder.name}: {why}; the former results are in {previous}")


def build_stages(run: Run) -> dict[str, Stage]:
    """Every stage of a run by name, in order; students other than `student` are baselines."""
    stages = [_prepare_stage(run), _tokenize_stage(run), _teacher_stage(run)]
    if run.recipe.needs_teacher:
        stages.append(_label_stage(run))
    stages += [
        _student_stage(run, name, objective) for name, objective in run.recipe.objectives().items()
    ]
    stages += [_export_stage(run), _evaluate_stage(run)]
    return {stage.name: stage for stage in stages}


# --- corpus and tokenizer ----------------------------------------------------------------------


def _source_files(source: SourceConfig, root: Path) -> list[str]:
    names = [name for name in (source.src, source.trg, source.path) if name is not None]
    return [file_digest(root / name) for name in names]


def _prepare_stage(run: Run) -> Stage:
    corpus = run.recipe.corpus
    folder = run.folder / "corpus"

    def inputs() -> Any:
        sources = [*corpus.train, corpus.validation, *corpus.test.values()]
        files = [_source_files(source, Path(corpus.root)) for source in sources]
        return [corpus.model_dump(mode="json", exclude={"root", "licence", "attribution"}), files]

    def make() -> None:
        note = (folder / NOTE).read_text()
        with Ticker("prepare", None, "pairs read") as tick:
            report = prepare(corpus, folder, tick)
        atomic_write(folder / NOTE, note)
        say(render_report(report))

    return Stage(
        "prepare", folder, inputs, make, lambda: [folder / "train", run.validation, *held_out(run)]
    )


def held_out(run: Run) -> list[Path]:
    """The prepared test sets."""
    return [run.folder / "corpus" / f"test.{name}.arrow" for name in run.recipe.corpus.test]


def _training_pairs(run: Run) -> Any:
    for shard in train_shards(run.folder / "corpus"):
        yield from read_pairs(shard)


def _tokenize_stage(run: Run) -> Stage:
    config = run.recipe.tokenizer
    folder = run.folder / "tokens"
    longest = min(run.recipe.teacher.model.max_length, run.recipe.student.model.max_length)

    def make() -> None:
        train_tokenizer(_training_pairs(run), config, run.tokenizer, run.recipe.seed)
        tokenizer = Tokenizer(run.tokenizer)
        kept = dropped = tokens = 0
        with atomic_folder(folder / "train") as draft:
            for shard in train_shards(run.folder / "corpus"):
                table, too_long = encode_rows(map_table(shard), tokenizer, longest)
                write_tokens(draft / shard.name, table)
                kept, dropped = kept + len(table), dropped + too_long
                tokens += len(table["trg"].combine_chunks().values)
        say(
            f"tokenize: {len(tokenizer)} pieces; {kept:,} pairs, {tokens:,} target tokens"
            + (f"; {dropped:,} pairs over {longest} tokens left out" if dropped else "")
        )

    return Stage(
        "tokenize",
        folder,
        lambda: [config.model_dump(), longest, run.recipe.seed],
        make,
        lambda: [run.tokenizer, folder / "train"],
        ("prepare",),
    )


# --- teacher, labels, students -----------------------------------------------------------------


def _teacher_stage(run: Run) -> Stage:
    teacher = run.recipe.teacher
    folder = run.folder / "teacher"
    job = TrainingRun(
        name="teacher",
        folder=folder,
        model=teacher.model,
        training=teacher.training,
        objective=teacher_objective(teacher),
        token_shards=[],
        labels=None,
        tokenizer=run.tokenizer,
        validation=run.validation,
        seed=run.recipe.seed,
        recipe_text=public_recipe(dump_recipe(run.recipe)),
    )
    return Stage(
        "teacher",
        folder,
        lambda: [teacher.model_dump(mode="json"), run.recipe.seed],
        lambda: _train(job, run),
        lambda: [run.teacher / "model.safetensors"],
        ("tokenize",),
    )


def _train(job: TrainingRun, run: Run) -> None:
    from dataclasses import replace

    train(replace(job, token_shards=run.token_shards))


def _label_stage(run: Run) -> Stage:
    config = run.recipe.labels

    def make() -> None:
        from training.distill.labelling import label_corpus
        from training.distill.teachers import OwnTeacher

        with Ticker(
            "label", sum(len(map_table(path)) for path in run.token_shards), "pairs"
        ) as tick:
            label_corpus(
                run.token_shards,
                run.labels,
                lambda: OwnTeacher(run.teacher, config.batch_tokens, config.precision),
                config,
                tick,
            )

    return Stage(
        "label",
        run.labels,
        lambda: config.model_dump(mode="json", exclude={"batch_tokens"}),
        make,
        lambda: [run.labels / "labels.json"],
        ("teacher",),
    )


def _student_stage(run: Run, name: str, objective: ObjectiveConfig) -> Stage:
    student = run.recipe.student
    folder = run.student_folder(name)
    labelled = needs_labels(objective)
    start = run.teacher if name == "student" and student.start == "teacher" else None
    job = TrainingRun(
        name=name,
        folder=folder,
        model=student.model,
        training=student.training,
        objective=objective,
        token_shards=[],
        labels=run.labels if labelled else None,
        tokenizer=run.tokenizer,
        validation=run.validation,
        seed=run.recipe.seed,
        recipe_text=public_recipe(dump_recipe(run.recipe)),
        start=start,
    )

    def make() -> None:
        _train(job, run)
        if objective.kind == "hybrid":
            from training.distill.gate_report import write_gate_report

            report = write_gate_report(
                job.checkpoint, folder, run.token_shards, run.labels, objective
            )
            say(f"{name}: mean gate {report['mean']:.2f}, see {folder / 'gate.png'}")
            if report["warning"]:
                say(f"{name}: WARNING: {report['warning']}")

    shared = student.model_dump(mode="json", exclude={"objective", "start"})
    needs = ("label",) if labelled else ("tokenize",)
    return Stage(
        name,
        folder,
        lambda: [shared, objective.model_dump(mode="json"), run.recipe.seed, start is not None],
        make,
        lambda: [job.checkpoint / "model.safetensors"],
        (*needs, "teacher") if start is not None else needs,
    )


# --- export and evaluation ---------------------------------------------------------------------


def _export_stage(run: Run) -> Stage:
    recipe = run.recipe

    def make() -> None:
        from export.exporter import export_bundle
        from training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(run.student_folder("student") / "checkpoint")
        bundle = export_bundle(
            model=checkpoint.model,
            tokenizer_path=checkpoint.tokenizer,
            recipe_text=public_recipe(dump_recipe(recipe)),
            out=run.bundle,
            name=recipe.name,
            source_lang=recipe.corpus.src_lang,
            target_lang=recipe.corpus.trg_lang,
            precisions=list(recipe.export.precisions),
            licence=recipe.corpus.licence,
            attribution=recipe.corpus.attribution,
            description=recipe.description,
            metrics=[],
            max_input_tokens=recipe.export.max_input_tokens,
        )
        size = sum(path.stat().st_size for path in run.bundle.rglob("*") if path.is_file())
        say(f"export: {bundle.path} ({size / 1e6:.1f} MB)")

    words = [recipe.name, recipe.description, recipe.corpus.licence, recipe.corpus.attribution]
    return Stage(
        "export",
        run.folder / "export",
        lambda: [recipe.export.model_dump(mode="json"), words],
        make,
        lambda: [run.bundle / "manifest.json"],
        ("student",),
    )


def public_recipe(text: str) -> str:
    """The recipe without the place of its data on the machine that it ran on."""
    import yaml

    tree = yaml.safe_load(text)
    tree["corpus"]["root"] = "."
    tree["export"]["out"] = None
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def _evaluate_stage(run: Run) -> Stage:
    folder = run.folder / "evaluation"

    def make() -> None:
        from benchmarks.evaluate import evaluate_run

        evaluate_run(run, folder)

    return Stage(
        "evaluate",
        folder,
        lambda: [sorted(run.recipe.corpus.test)],
        make,
        lambda: [folder / "evaluation.json"],
        ("teacher", "export", *run.recipe.baselines),
    )
