"""A run: a recipe, the folder that its stages write into, its students, its given teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from quickstudy.atomic import atomic_write
from training.checkpoint import EVENLY, LayerChoice
from training.config.io import change_paths, dump_recipe
from training.config.losses import ObjectiveConfig, OnPolicyObjective, needs_labels
from training.config.model import (
    AdoptedTokenizer,
    CheckpointTeacher,
    FreezeConfig,
    GivenTeacher,
    SeparateTokenizers,
    StartTokenizers,
    TeacherConfig,
    TrainedTeacher,
    members_of,
    with_paths,
    without_folders,
)
from training.config.recipe import ModelConfig, Recipe, RecipeError, TrainingConfig
from training.pretrained.reader import read_pretrained
from training.stage import Stage, file_digest, fingerprint_of, say
from training.teacher_files import (
    SOURCE_TOKENIZER,
    adopted_tokenizer,
    adopted_tokenizer_files,
    read_json,
    teacher_files,
)
from training.trainer import TrainingRun, train
from training.warm_start import (
    check_tokens,
    lent_start,
    own_tokenizers,
    pretrained_start,
    source_tokenizer,
    start_folder,
    start_identity,
    whole_start,
)

if TYPE_CHECKING:
    from training.distill.teachers import TeacherJob


def teacher_identity(teacher: TeacherConfig | None) -> list[Any]:
    """What a given teacher is, for a fingerprint: its settings and the content of its files,
    wherever they lie. Empty for a teacher that the run trains, and without one."""
    if teacher is None or isinstance(teacher, TrainedTeacher):
        return []
    settings = with_paths(fingerprint_of(teacher), lambda _: "")
    return [settings, [[path.name, file_digest(path)] for path in teacher_files(teacher)]]


def adopted_identity(recipe: Recipe) -> list[str]:
    """Hash of what the student's SentencePiece model is taken over from, if it is."""
    if not isinstance(recipe.tokenizer, AdoptedTokenizer):
        return []
    return [file_digest(path) for path in adopted_tokenizer_files(_given_teacher(recipe))]


def adopt_tokenizer(recipe: Recipe, path: Path) -> None:
    """Write the given teacher's SentencePiece model with our special ids and the added pieces."""
    assert isinstance(recipe.tokenizer, AdoptedTokenizer)
    atomic_write(path, adopted_tokenizer(_given_teacher(recipe), recipe.tokenizer))


def _given_teacher(recipe: Recipe) -> GivenTeacher:
    teacher = recipe.teacher
    if teacher is None or isinstance(teacher, TrainedTeacher):
        raise AssertionError("a checked recipe adopts the tokenizer of a given teacher only")
    return teacher


def source_identity(recipe: Recipe) -> list[str]:
    """Hashes of the SentencePiece models that come from a model that is not a teacher."""
    if isinstance(recipe.tokenizer, StartTokenizers):
        own = own_tokenizers(lent_start(recipe))
        return [sha256(model).hexdigest() for model in own if model is not None]
    if not isinstance(recipe.tokenizer, SeparateTokenizers):
        return []
    model = read_pretrained(Path(recipe.tokenizer.source.pretrained))
    return [sha256(source_tokenizer(model)).hexdigest()]


def write_source_tokenizer(config: SeparateTokenizers, path: Path) -> None:
    """Write the SentencePiece model of a pretrained model's source side."""
    atomic_write(path, source_tokenizer(read_pretrained(Path(config.source.pretrained))))


def max_pair_length(recipe: Recipe) -> int:
    """Positions that both sides of every pair must fit, BOS counted."""
    teacher, student = recipe.teacher, recipe.student.model.max_length
    if isinstance(teacher, TrainedTeacher):
        return min(teacher.model.max_length, student)
    if teacher is None or not isinstance(recipe.tokenizer, AdoptedTokenizer):
        return student
    lengths = [
        read_json(Path(member.path) / "checkpoint.json")["model"]["max_length"]
        for _, member in members_of(teacher)
        if isinstance(member, CheckpointTeacher)
    ]
    return min([student, *map(int, lengths)])


@dataclass(frozen=True)
class Run:
    """A recipe and the folder that its stages write into."""

    recipe: Recipe
    folder: Path
    label_workers: str = "1"
    """Who labels, see `training.distill.labelling`; the result is the same."""
    publish_anyway: bool = False
    """Whether to publish a bundle that breaks a limit of the export gate."""
    label_anyway: bool = False
    """Whether to label with a teacher whose validation BLEU is too low."""

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokens" / "tokenizer.model"

    @property
    def source_tokenizer(self) -> Path | None:
        """The source's, where it has one of its own."""
        if isinstance(self.recipe.tokenizer, StartTokenizers):
            _, source = own_tokenizers(lent_start(self.recipe))
            separate = source is not None
        else:
            separate = isinstance(self.recipe.tokenizer, SeparateTokenizers)
        if not separate:
            return None
        return self.folder / "tokens" / SOURCE_TOKENIZER

    @property
    def token_shards(self) -> list[Path]:
        return sorted((self.folder / "tokens" / "train").glob("*.arrow"))

    @property
    def teacher(self) -> Path:
        """Checkpoint of the teacher that the run trains."""
        return self.folder / "teacher" / "checkpoint"

    @property
    def teacher_checkpoint(self) -> Path | None:
        """Checkpoint of the teacher, trained here or given; None for other kinds of teacher."""
        teacher = self.recipe.teacher
        if isinstance(teacher, CheckpointTeacher):
            return Path(teacher.path)
        return self.teacher if isinstance(teacher, TrainedTeacher) else None

    @property
    def teacher_job(self) -> TeacherJob:
        """What the teacher is built from."""
        from training.distill.teachers import TeacherJob

        if self.recipe.teacher is None:
            raise RecipeError("this recipe has no teacher: teacher is null")
        return TeacherJob(
            config=self.recipe.teacher,
            labels=self.recipe.labels,
            tokenizer=self.tokenizer.resolve(),
            adopted=isinstance(self.recipe.tokenizer, AdoptedTokenizer),
            max_length=self.recipe.student.model.max_length,
            trained=self.teacher.resolve(),
            source_tokenizer=self.source_tokenizer.resolve() if self.source_tokenizer else None,
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


def held_out(run: Run) -> list[Path]:
    """The prepared test sets."""
    return [run.folder / "corpus" / f"test.{name}.arrow" for name in run.recipe.corpus.test]


def public_recipe(text: str) -> str:
    """The recipe without the places of its data and models on the machine that it ran on."""
    tree = yaml.safe_load(text)
    tree["corpus"]["root"] = "."
    tree["export"]["out"] = None
    tree = change_paths(tree, without_folders)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)


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
    """Checkpoint whose layers it starts from."""
    pretrained: Path | None = None
    """Folder of a pretrained model whose layers it starts from; without either it starts at
    random."""
    whole: Path | None = None
    """Folder of the pretrained model that `start` was cut out of."""
    freeze: FreezeConfig | None = None
    """What does not learn at first."""
    start_layers: LayerChoice = EVENLY
    """Which layers of the other model are copied."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"


def start_layers(recipe: Recipe) -> LayerChoice:
    """Which layers the recipe's student copies from the model that it starts from."""
    start = recipe.student.start
    if isinstance(start, str):
        return EVENLY
    chosen = (start.encoder_layers, start.decoder_layers)
    return LayerChoice(*(None if layers is None else tuple(layers) for layers in chosen))


def recipe_students(run: Run) -> list[StudentPlan]:
    """The recipe's student and its baselines.

    Raises RecipeError where the student is to start from the checkpoint that it would replace.
    """
    student = run.recipe.student
    start = start_folder(run.recipe, run.teacher_checkpoint)
    if start is not None and start.resolve().is_relative_to(
        run.student_folder("student").resolve()
    ):
        raise RecipeError(
            f"student.start: {start} is what this run's student would replace: start from a copy "
            "elsewhere, or give the run another name (--set name=…)"
        )
    return [
        StudentPlan(
            name=name,
            folder=run.student_folder(name),
            model=student.model,
            training=student.training,
            objective=objective,
            seed=run.recipe.seed,
            start=start if name == "student" else None,
            pretrained=pretrained_start(run.recipe) if name == "student" else None,
            whole=whole_start(run.recipe) if name == "student" and start is not None else None,
            freeze=student.freeze if name == "student" else None,
            start_layers=start_layers(run.recipe) if name == "student" else EVENLY,
        )
        for name, objective in run.recipe.objectives().items()
    ]


def student_stage(run: Run, plan: StudentPlan) -> Stage:
    """The training of one student, with its gate report."""
    labelled = needs_labels(plan.objective)

    def train_student() -> None:
        lent = isinstance(run.recipe.tokenizer, StartTokenizers)
        if plan.start is not None and not lent:
            check_tokens(plan.start, run.tokenizer, run.source_tokenizer)
        job = TrainingRun(
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
            source_tokenizer=run.source_tokenizer,
            pretrained=plan.pretrained,
            whole=plan.whole,
            freeze=plan.freeze,
            start_layers=plan.start_layers,
        )
        if isinstance(plan.objective, OnPolicyObjective):
            _train_in_rounds(run, plan.objective, job)
        else:
            train(job)

    def execute() -> None:
        train_student()
        if plan.objective.kind == "hybrid":
            _report_gate(run, plan)

    def inputs() -> Any:
        described = [fingerprint_of(part) for part in (plan.model, plan.training, plan.objective)]
        start: list[Any] = []
        if plan.start is not None:
            start = start_identity(run.recipe) or teacher_identity(run.recipe.teacher)
        elif plan.pretrained is not None:
            start = start_identity(run.recipe)
        layers = [] if plan.start_layers == EVENLY else [repr(plan.start_layers)]
        frozen = [] if plan.freeze is None else [fingerprint_of(plan.freeze)]
        return [*described, plan.seed, plan.start is not None, *start, *frozen, *layers]

    depends_on: tuple[str, ...] = ("label",) if labelled else ("tokenize",)
    if plan.start == run.teacher:
        depends_on = (*depends_on, "teacher")
    return Stage(
        name=plan.name,
        folder=plan.folder,
        inputs=inputs,
        run=execute,
        outputs=lambda: [plan.checkpoint / "model.safetensors"],
        depends_on=depends_on,
        join=train_student,
    )


def _train_in_rounds(run: Run, objective: OnPolicyObjective, job: TrainingRun) -> None:
    from training.distill.labelling import choose_workers
    from training.distill.teachers import build_teacher
    from training.rounds import train_in_rounds

    teacher = partial(build_teacher, run.teacher_job)
    workers = choose_workers(run.label_workers)
    train_in_rounds(job, objective, teacher, run.recipe.labels.top_k, workers)


def _report_gate(run: Run, plan: StudentPlan) -> None:
    from training.distill.gate_report import write_gate_report

    assert plan.objective.kind == "hybrid"
    report = write_gate_report(
        plan.checkpoint,
        plan.folder,
        run.token_shards,
        run.labels,
        plan.objective,
        run.validation,
    )
    say(f"{plan.name}: mean gate {report['mean']:.2f}, see {plan.folder / 'gate.png'}")
    if report["warning"]:
        say(f"{plan.name}: WARNING: {report['warning']}")
