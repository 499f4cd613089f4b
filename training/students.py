"""Students of a run: the recipe's own, its baselines, and those of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.distill.config import ObjectiveConfig, needs_labels
from training.given_teacher import teacher_identity
from training.loop import TrainingRun, train
from training.recipe import ModelConfig, RecipeError, TrainingConfig
from training.recipe_files import dump_recipe
from training.run import Run, public_recipe
from training.stage import Stage, fingerprint_of, say
from training.start import check_tokens, start_folder, start_identity


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
        )
        for name, objective in run.recipe.objectives().items()
    ]


def student_stage(run: Run, plan: StudentPlan) -> Stage:
    """The training of one student, with its gate report."""
    labelled = needs_labels(plan.objective)

    def teach() -> None:
        if plan.start is not None:
            check_tokens(plan.start, run.tokenizer)
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
        described = [fingerprint_of(part) for part in (plan.model, plan.training, plan.objective)]
        given = []
        if plan.start is not None:
            given = start_identity(run.recipe) or teacher_identity(run.recipe.teacher)
        return [*described, plan.seed, plan.start is not None, *given]

    of_trained = plan.start == run.teacher
    needs = ("label",) if labelled else ("tokenize",)
    return Stage(
        plan.name,
        plan.folder,
        inputs,
        make,
        lambda: [plan.checkpoint / "model.safetensors"],
        (*needs, "teacher") if of_trained else needs,
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
