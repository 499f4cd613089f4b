"""The stages of a run: corpus → tokenizer → teacher → labels → student → export → evaluation.

What a stage is, and when it is skipped, is in `training.stage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.atomic import atomic_folder, atomic_write
from training.columns import map_table
from training.corpus import prepare, read_rows, render_report, train_shards
from training.distill.config import ObjectiveConfig, needs_labels
from training.given_teacher import (
    adopt_tokenizer,
    adopted_identity,
    longest_sides,
    teacher_identity,
)
from training.loop import TrainingRun, train
from training.model_config import AdoptedTokenizer
from training.monitor import Ticker
from training.recipe import (
    ModelConfig,
    Recipe,
    SourceConfig,
    TokenizerConfig,
    TrainingConfig,
    dump_recipe,
)
from training.stage import NOTE, Stage, essence, file_digest, say
from training.teacher_config import CheckpointTeacher, TrainedTeacher, with_paths, without_folders
from training.tokenizer import Tokenizer, encode_rows, train_tokenizer, write_tokens

if TYPE_CHECKING:
    from training.distill.teachers import TeacherJob


@dataclass(frozen=True)
class Run:
    """A recipe and the folder that its stages write into."""

    recipe: Recipe
    folder: Path
    label_workers: str = "1"
    """Who labels, see `training.distill.workers`; the result is the same."""

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokens" / "tokenizer.model"

    @property
    def token_shards(self) -> list[Path]:
        return sorted((self.folder / "tokens" / "train").glob("*.arrow"))

    @property
    def teacher(self) -> Path:
        """Checkpoint of the teacher that the run trains."""
        return self.folder / "teacher" / "checkpoint"

    @property
    def teacher_checkpoint(self) -> Path | None:
        """Checkpoint of the teacher, trained here or given; None where it is none of ours."""
        given = self.recipe.teacher
        if isinstance(given, CheckpointTeacher):
            return Path(given.path)
        return self.teacher if isinstance(given, TrainedTeacher) else None

    @property
    def teacher_job(self) -> TeacherJob:
        """What the teacher is built from."""
        from training.distill.teachers import TeacherJob

        return TeacherJob(
            config=self.recipe.teacher,
            labels=self.recipe.labels,
            tokenizer=self.tokenizer.resolve(),
            adopted=isinstance(self.recipe.tokenizer, AdoptedTokenizer),
            max_length=self.recipe.student.model.max_length,
            trained=self.teacher.resolve(),
        )

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


def build_stages(run: Run) -> dict[str, Stage]:
    """Every stage of a run by name, in order; students other than `student` are baselines."""
    stages = [_prepare_stage(run), _tokenize_stage(run)]
    if isinstance(run.recipe.teacher, TrainedTeacher):
        stages.append(_teacher_stage(run, run.recipe.teacher))
    if run.recipe.needs_teacher:
        stages.append(_label_stage(run))
    stages += [student_stage(run, plan) for plan in recipe_students(run)]
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
        return [essence(corpus, ("root", "licence", "attribution")), files]

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
        yield from read_rows(shard)


def _tokenize_stage(run: Run) -> Stage:
    config = run.recipe.tokenizer
    folder = run.folder / "tokens"
    longest = longest_sides(run.recipe)

    def inputs() -> Any:
        settings = essence(config, ("kind",))
        return [settings, longest, run.recipe.seed, *adopted_identity(run.recipe)]

    def make() -> None:
        if isinstance(config, TokenizerConfig):
            train_tokenizer(_training_pairs(run), config, run.tokenizer, run.recipe.seed)
        else:
            adopt_tokenizer(run.recipe, run.tokenizer)
        tokenizer = Tokenizer(run.tokenizer)
        kept = dropped = tokens = alone = 0
        with atomic_folder(folder / "train") as draft:
            for shard in train_shards(run.folder / "corpus"):
                table, too_long = encode_rows(map_table(shard), tokenizer, longest)
                write_tokens(draft / shard.name, table)
                kept, dropped = kept + len(table), dropped + too_long
                lengths = table["trg"].combine_chunks().value_lengths().to_numpy()
                tokens, alone = tokens + int(lengths.sum()), alone + int((lengths == 0).sum())
        say(
            f"tokenize: {len(tokenizer)} pieces; {kept:,} pairs"
            + (f", of which {alone:,} without a reference" if alone else "")
            + f"; {tokens:,} target tokens"
            + (f"; {dropped:,} pairs over {longest} tokens left out" if dropped else "")
        )

    return Stage(
        "tokenize",
        folder,
        inputs,
        make,
        lambda: [run.tokenizer, folder / "train"],
        ("prepare",),
    )


# --- teacher, labels, students -----------------------------------------------------------------


def _teacher_stage(run: Run, teacher: TrainedTeacher) -> Stage:
    folder = run.folder / "teacher"
    job = TrainingRun(
        name="teacher",
        folder=folder,
        model=teacher.model,
        training=teacher.training,
        objective=teacher.objective,
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
        lambda: [essence(teacher, ("kind",)), run.recipe.seed],
        lambda: _train(job, run),
        lambda: [run.teacher / "model.safetensors"],
        ("tokenize",),
        join=lambda: _train(job, run),
    )


def _train(job: TrainingRun, run: Run) -> None:
    from dataclasses import replace

    train(replace(job, token_shards=run.token_shards))


def _label_stage(run: Run) -> Stage:
    config = run.recipe.labels
    if not run.recipe.gives_distributions:
        config = config.model_copy(update={"paths": []})
    given = not isinstance(run.recipe.teacher, TrainedTeacher)

    def make() -> None:
        from training.distill.labelling import label_corpus
        from training.distill.teachers import build_teacher
        from training.distill.workers import choose_workers

        workers = choose_workers(run.label_workers)
        with Ticker(
            "label", sum(len(map_table(path)) for path in run.token_shards), "pairs"
        ) as tick:
            label_corpus(
                run.token_shards,
                run.labels,
                partial(build_teacher, run.teacher_job),
                config,
                Tokenizer(run.tokenizer),
                tick,
                workers,
            )

    def inputs() -> Any:
        asked = essence(config, ("batch_tokens",))
        return [asked, *teacher_identity(run.recipe.teacher)] if given else asked

    return Stage(
        "label",
        run.labels,
        inputs,
        make,
        lambda: [run.labels / "labels.json"],
        ("tokenize",) if given else ("teacher",),
    )


@dataclass(frozen=True)
class StudentPlan:
    """One student on a run's text and labels: what sets it apart from the others."""

    name: str
    folder: Path
    model: ModelConfig
    training: TrainingConfig
    objective: ObjectiveConfig
    seed: int
    start: Path | None = None
    """Checkpoint whose layers it starts from; None starts at random."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"


def recipe_students(run: Run) -> list[StudentPlan]:
    """The recipe's student and its baselines."""
    student = run.recipe.student
    return [
        StudentPlan(
            name=name,
            folder=run.student_folder(name),
            model=student.model,
            training=student.training,
            objective=objective,
            seed=run.recipe.seed,
            start=run.teacher_checkpoint
            if name == "student" and student.start == "teacher"
            else None,
        )
        for name, objective in run.recipe.objectives().items()
    ]


def student_stage(run: Run, plan: StudentPlan) -> Stage:
    """The training of one student, with its gate report."""
    labelled = needs_labels(plan.objective)

    def teach() -> None:
        train(
            TrainingRun(
                name=plan.name,
                folder=plan.folder,
                model=plan.model,
                training=plan.training,
                objective=plan.objective,
                token_shards=run.token_shards,
                labels=run.labels if labelled else None,
                tokenizer=run.tokenizer,
                validation=run.validation,
                seed=plan.seed,
                recipe_text=public_recipe(dump_recipe(run.recipe)),
                start=plan.start,
            )
        )

    def make() -> None:
        teach()
        if plan.objective.kind == "hybrid":
            _report_gate(run, plan)

    def inputs() -> Any:
        described = [essence(part) for part in (plan.model, plan.training, plan.objective)]
        given = [] if plan.start is None else teacher_identity(run.recipe.teacher)
        return [*described, plan.seed, plan.start is not None, *given]

    trained = isinstance(run.recipe.teacher, TrainedTeacher)
    needs = ("label",) if labelled else ("tokenize",)
    return Stage(
        plan.name,
        plan.folder,
        inputs,
        make,
        lambda: [plan.checkpoint / "model.safetensors"],
        (*needs, "teacher") if plan.start is not None and trained else needs,
        join=teach,
    )


def _report_gate(run: Run, plan: StudentPlan) -> None:
    from training.distill.gate_report import write_gate_report

    assert plan.objective.kind == "hybrid"
    report = write_gate_report(
        plan.checkpoint, plan.folder, run.token_shards, run.labels, plan.objective
    )
    say(f"{plan.name}: mean gate {report['mean']:.2f}, see {plan.folder / 'gate.png'}")
    if report["warning"]:
        say(f"{plan.name}: WARNING: {report['warning']}")


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
        lambda: [essence(recipe.export), words],
        make,
        lambda: [run.bundle / "manifest.json"],
        ("student",),
    )


def public_recipe(text: str) -> str:
    """The recipe without the places of its data and teacher on the machine that it ran on."""
    import yaml

    tree = yaml.safe_load(text)
    tree["corpus"]["root"] = "."
    tree["export"]["out"] = None
    tree["teacher"] = with_paths(tree["teacher"], without_folders)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


def _evaluate_stage(run: Run) -> Stage:
    folder = run.folder / "evaluation"
    trained = ("teacher",) if isinstance(run.recipe.teacher, TrainedTeacher) else ()

    def make() -> None:
        from benchmarks.evaluate import evaluate_run

        evaluate_run(run, folder)

    return Stage(
        "evaluate",
        folder,
        lambda: [sorted(run.recipe.corpus.test), *teacher_identity(run.recipe.teacher)],
        make,
        lambda: [folder / "evaluation.json"],
        (*trained, "export", *run.recipe.baselines),
    )
