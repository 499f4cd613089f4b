"""A run: a recipe and the folder that its stages write into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from training.model_config import AdoptedTokenizer
from training.recipe import Recipe
from training.recipe_files import change_paths
from training.teacher_config import CheckpointTeacher, TrainedTeacher, without_folders

if TYPE_CHECKING:
    from training.distill.teachers import TeacherJob


@dataclass(frozen=True)
class Run:
    """A recipe and the folder that its stages write into."""

    recipe: Recipe
    folder: Path
    label_workers: str = "1"
    """Who labels, see `training.distill.workers`; the result is the same."""
    publish_anyway: bool = False
    """Whether a bundle is published that breaks a limit of the export gate."""
    label_anyway: bool = False
    """Whether a teacher is asked that translates next to nothing."""

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
