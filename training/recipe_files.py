"""Recipes read from YAML, their faults in words, and written again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from training.model_config import DEFAULT_KIND
from training.recipe import Recipe, RecipeError
from training.teacher_config import TrainedTeacher, with_paths, with_start


def _unshared(tree: Any) -> Any:
    """A copy in which what a YAML anchor shared is separate, so that --set changes one place."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def _set_field(tree: dict[str, Any], assignment: str) -> None:
    key, separator, value = assignment.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set takes FIELD=VALUE, for example seed=2, not {assignment!r}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {key}: {value!r} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError("a recipe is a mapping of fields, see `recipe schema`")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"--set {key}: {parent} is not a section of the recipe")
    tree[last] = parsed


def _explain(error: ValidationError, source: str) -> RecipeError:
    lines = [f"{source}: {error.error_count()} fault(s) in the recipe"]
    for fault in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in _written(fault["loc"])) or "(recipe)"
        lines.append(f"  {field}: {fault['msg'].removeprefix('Value error, ')}")
    return RecipeError("\n".join(lines))


def _written(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The place of a fault without the kind that a section has by default."""
    by_default = place[:2] in [(name, DEFAULT_KIND) for name in ("teacher", "tokenizer")]
    return (place[0], *place[2:]) if by_default else place


def parse_recipe(tree: Any, source: str = "recipe") -> Recipe:
    """A mapping → Recipe. Raises RecipeError that lists every fault."""
    if not isinstance(tree, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of fields, see `recipe schema`")
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, source) from None


def load_recipe(
    path: str | Path, assignments: list[str] | None = None, data: str | Path | None = None
) -> Recipe:
    """Read a recipe; `assignments` (`FIELD=VALUE`) and `data` (corpus.root) override its fields.

    Paths become absolute. Raises RecipeError when the file is missing, is not YAML, or has faults,
    those of a given teacher's files among them.
    """
    path = Path(path)
    here = path.parent
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {error}") from None
    tree = _unshared(tree)
    for assignment in assignments or []:
        _set_field(tree, assignment)
    recipe = parse_recipe(change_paths(tree, lambda name: str((here / name).resolve())), str(path))
    _check_files(recipe, str(path))
    root = Path(data) if data is not None else path.parent / recipe.corpus.root
    corpus = recipe.corpus.model_copy(update={"root": str(root.resolve())})
    return recipe.model_copy(update={"corpus": corpus})


def change_paths(tree: Any, change: Callable[[str], str]) -> Any:
    """A recipe as a mapping, with every path to a model's files changed; anything else as it is."""
    if not isinstance(tree, dict):
        return tree
    changed = dict(tree)
    if isinstance(teacher := tree.get("teacher"), dict):
        changed["teacher"] = with_paths(teacher, change)
    if isinstance(student := tree.get("student"), dict):
        changed["student"] = with_start(student, change)
    return changed


def _check_files(recipe: Recipe, source: str) -> None:
    from training.start import checkpoint_faults

    faults = checkpoint_faults(recipe)
    if not isinstance(recipe.teacher, TrainedTeacher):
        from training.teacher_check import teacher_faults

        faults += teacher_faults(recipe)
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise RecipeError(f"{source}: {len(faults)} fault(s) in the recipe{listed}")


def dump_recipe(recipe: Recipe) -> str:
    """YAML of the recipe with every default filled in."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def recipe_schema() -> str:
    """JSON Schema of a recipe, indented."""
    return json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False)
