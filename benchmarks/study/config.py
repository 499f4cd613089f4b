"""The typed description of a study: a grid of distillation methods, seeds, sizes and texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from training.config.io import faults_of, load_recipe
from training.config.losses import ObjectiveConfig, Section, needs_labels
from training.config.recipe import ModelConfig, Recipe, RecipeError, RunName, TrainingConfig

OWN = "recipe"
"""Names the recipe's own student size and its own text."""


class StudyError(RecipeError):
    """A study that cannot be used; the message lists every fault with its field."""


class Cell(NamedTuple):
    """One student of the grid."""

    text: str
    student: str
    method: str
    seed: int

    @property
    def key(self) -> str:
        return f"{self.text}.{self.student}.{self.method}.{self.seed}"


class StudentSize(Section):
    """Another student than the recipe's."""

    model: ModelConfig
    training: TrainingConfig | None = None
    """Its training; the recipe's student's where none is given."""


class StudyBlock(Section):
    """A part of the grid: every combination of what it names. Blocks run in their order."""

    methods: list[RunName] | Literal["all"] = "all"
    """Names from `methods`."""
    seeds: list[int] = Field(default=[1], min_length=1)
    """Seeds of the students; text, tokenizer, teacher and labels keep the recipe's seed."""
    students: list[RunName] = Field(default=[OWN], min_length=1)
    """Names from `students`; `recipe` is the recipe's own student."""
    texts: list[RunName] = Field(default=[OWN], min_length=1)
    """Names from `texts`; `recipe` is the recipe's own text."""


class Study(Section):
    """A study: students that differ in one thing, on the same text and labels."""

    name: RunName
    """Names the study and its results."""
    description: str = ""
    """One sentence for the report."""
    recipe: str
    """Recipe of the text, the tokenizer, the teacher, the labels and the student, relative to the
    study's file."""
    methods: dict[RunName, ObjectiveConfig] = Field(min_length=1)
    """Objectives by name."""
    students: dict[RunName, StudentSize] = Field(default_factory=dict)
    """Further student sizes by name."""
    texts: dict[RunName, list[str]] = Field(default_factory=dict)
    """Further texts by name: what each sets in the recipe, FIELD=VALUE as for --set."""
    grid: list[StudyBlock] = Field(min_length=1)
    """What is trained, most telling first."""
    beams: list[Annotated[int, Field(ge=0)]] = Field(default=[1, 5], min_length=1)
    """Beam sizes that every student is measured with; 1 is greedy, and 0 is teacher forcing: each
    next word, given the reference's words before it."""
    baselines: list[RunName] = Field(default=["sentence", "token"])
    """Methods that every other is compared with by paired bootstrap."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        faults = []
        for number, block in enumerate(self.grid):
            for field, known in (
                ("methods", set(self.methods)),
                ("students", {OWN, *self.students}),
                ("texts", {OWN, *self.texts}),
            ):
                named = getattr(block, field)
                unknown = [] if named == "all" else sorted(set(named) - known)
                faults += [f"grid.{number}.{field} names {name!r}, unknown" for name in unknown]
        faults += [
            f"baselines names {name!r}, which is none of the methods"
            for name in self.baselines
            if name not in self.methods
        ]
        if not any(self.beams):
            faults.append("beams needs a size from 1: teacher forcing alone translates nothing")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def cells(self) -> list[Cell]:
        """Every student once, in the order of the grid."""
        return list(dict.fromkeys(cell for block in self.grid for cell in self._block(block)))

    def _block(self, block: StudyBlock) -> Iterator[Cell]:
        methods = list(self.methods) if block.methods == "all" else block.methods
        for seed in block.seeds:
            for text in block.texts:
                for student in block.students:
                    for method in methods:
                        yield Cell(text, student, method, seed)


def load_study(path: Path) -> Study:
    """Read a study. Raises StudyError that lists every fault."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Study.model_validate(tree)
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise StudyError(f"{path}: cannot be read as YAML: {error}") from None
    except ValidationError as error:
        faults = faults_of(error, Study, "study")
        head = f"{path}: {len(faults)} fault(s) in the study"
        raise StudyError("\n".join([head, *faults])) from None


def load_text(study: Study, path: Path, text: str, data: Path | None) -> Recipe:
    """The recipe of one text of a study, with every method that is trained on it as a baseline, so
    that what a method needs of the labels is checked before anything runs."""
    own = path.parent / study.recipe
    recipe = load_recipe(own, study.texts.get(text, []), data)
    trained = {cell.method for cell in study.cells() if cell.text == text}
    name = recipe.name if text == OWN else f"{recipe.name}.{text}"
    if not recipe.needs_teacher and any(needs_labels(study.methods[one]) for one in trained):
        raise StudyError(f"{own}: its student reads no labels, so there are none for the study")
    tree = recipe.model_dump(mode="json")
    tree["baselines"] = {
        f"study-{method}": study.methods[method].model_dump(mode="json") for method in trained
    }
    try:
        Recipe.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors(include_url=False))
        raise StudyError(f"{own} for the text {text!r}: {faults}") from None
    return recipe.model_copy(update={"name": name})
