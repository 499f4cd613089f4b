"""Recipes read from YAML with faults explained, written again; the reference page of all fields."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from training.config.model import (
    DEFAULT_KIND,
    TrainedTeacher,
    with_paths,
    with_source,
    with_start,
)
from training.config.recipe import Recipe, RecipeError


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
    faults = faults_of(error, Recipe, "recipe")
    return RecipeError("\n".join([f"{source}: {len(faults)} fault(s) in the recipe", *faults]))


def faults_of(error: ValidationError, kind: type[BaseModel], name: str) -> list[str]:
    """A line for each fault of a mapping that is no `kind`, which is called `name`; a field that
    there is not comes with the name of the nearest one."""
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in _written(fault["loc"])) or f"({name})"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            *place, key = fault["loc"]
            message = _unknown_field(str(key), _fields_at(kind, place))
        lines.append(f"  {field}: {message}")
    return lines


def _unknown_field(key: str, known: list[str]) -> str:
    if nearest := difflib.get_close_matches(key, known, n=1):
        return f"there is no such field; did you mean `{nearest[0]}`?"
    return f"there is no such field; there are {', '.join(known)}"


def _fields_at(kind: Any, place: list[int | str]) -> list[str]:
    """The fields of the section that a fault's place lies in."""
    sections = list(_sections(kind))
    for part in place:
        sections = [one for section in sections for one in _below(section, part)]
    return list(dict.fromkeys(n for one in sections if _is_model(one) for n in one.model_fields))


def _sections(kind: Any) -> Iterator[Any]:
    """Models, and lists and mappings, that a value of an annotated type may be."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _sections(arguments[0])
    elif origin in (Union, UnionType):
        for one in arguments:
            yield from _sections(one)
    elif _is_model(kind) or origin in (list, dict):
        yield kind


def _below(section: Any, part: int | str) -> Iterator[Any]:
    """What a part of a place leads to: a field, an entry, or one of several kinds by its name."""
    if not _is_model(section):
        yield from _sections(get_args(section)[-1])
    elif part in section.model_fields:
        yield from _sections(section.model_fields[part].annotation)
    elif part == section.__name__ or part in _kinds(section):
        yield section


def _kinds(section: type[BaseModel]) -> tuple[Any, ...]:
    field = section.model_fields.get("kind")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


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
    recipe = _parse_file(path, assignments)
    _refuse(_file_faults(recipe), str(path))
    return _rooted(recipe, path, data)


def _parse_file(path: Path, assignments: list[str] | None) -> Recipe:
    """A recipe's file with some fields overridden, and absolute paths to models."""
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
    return parse_recipe(change_paths(tree, lambda name: str((here / name).resolve())), str(path))


def check_recipe(
    path: str | Path, assignments: list[str] | None = None, data: str | Path | None = None
) -> Recipe:
    """`load_recipe`, and the files of the text are looked for too."""
    path = Path(path)
    recipe = _rooted(_parse_file(path, assignments), path, data)
    from training.data.readers import corpus_faults

    _refuse([*_file_faults(recipe), *corpus_faults(recipe.corpus)], str(path))
    return recipe


def _rooted(recipe: Recipe, path: Path, data: str | Path | None) -> Recipe:
    """The recipe with the folder of its text as an absolute path."""
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
    if isinstance(tokenizer := tree.get("tokenizer"), dict):
        changed["tokenizer"] = with_source(tokenizer, change)
    if isinstance(student := tree.get("student"), dict):
        changed["student"] = with_start(student, change)
    return changed


def _file_faults(recipe: Recipe) -> list[str]:
    """What is wrong with the files of models that a recipe names."""
    from training.warm_start import checkpoint_faults, pretrained_faults

    faults = [*checkpoint_faults(recipe), *pretrained_faults(recipe)]
    if recipe.teacher is not None and not isinstance(recipe.teacher, TrainedTeacher):
        from training.teacher_files import teacher_faults

        faults += teacher_faults(recipe)
    return faults


def _refuse(faults: list[str], source: str) -> None:
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


# --- the reference page ------------------------------------------------------------------------


INTRODUCTION = """# Recipe reference

Every field of a recipe. This page is generated; do not edit it. After a change of the schema:

```sh
quickstudy recipe reference > docs/recipes.md
```

A recipe is a YAML file. Unknown fields are refused, and all faults are reported at once
(`quickstudy recipe check RECIPE`). `quickstudy recipe schema` prints the same as JSON Schema.
`--set FIELD=VALUE` takes a field by its full name with dots, such as `teacher.training.max_steps`;
items of a list cannot be set one by one. How to run a recipe: [training.md](training.md).

In the tables, **required** fields have no default; *section* means a section of its own, with all
its defaults where it is left out. Bounds are of the value; `length` is that of a text in characters
or of a list in items. `[]` stands for the items of a list, `NAME` for a name of your choice.
"""

_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def recipe_reference() -> str:
    """Markdown with one table for each section of a recipe."""
    sections = "\n\n".join(_section(model, places) for model, places in _places(Recipe).items())
    return f"{INTRODUCTION}\n{sections}\n"


def _places(root: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Every section, depth first, with the dotted names of where it may stand."""
    found: dict[type[BaseModel], list[str]] = {}

    def visit(model: type[BaseModel], place: str) -> None:
        found.setdefault(model, []).append(place)
        for name, field in model.model_fields.items():
            for inner, suffix in _models(field.annotation):
                visit(inner, f"{place}.{name}{suffix}".removeprefix("."))

    visit(root, "")
    return found


def _models(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """The sections that a field may hold, and what its name is followed by there."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        arguments = arguments[:1]
    elif origin is dict:
        arguments, suffix = arguments[1:], f"{suffix}.NAME"
    elif origin is list:
        suffix = f"{suffix}[]"
    for argument in arguments if origin is not Literal else ():
        yield from _models(argument, suffix)


def _section(model: type[BaseModel], places: list[str]) -> str:
    kind = _kind(model)
    shown = ", ".join(f"`{place}`" for place in places if place)
    heading = f"{shown}: kind `{kind}`" if kind else shown or "The recipe"
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    lines = [
        f"## {heading}",
        "",
        _plain(model.__doc__ or ""),
        "",
        "| field | type | default | bounds | meaning |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return str(field.default) if field is not None else None


def _row(name: str, field: FieldInfo) -> tuple[str, ...]:
    required = name == "kind" and field.default != DEFAULT_KIND
    default = "**required**" if required else _default(field)
    return f"`{name}`", _type(field.annotation), default, _bounds(field), _meaning(name, field)


def _meaning(name: str, field: FieldInfo) -> str:
    if field.description:
        return _plain(field.description)
    if name == "kind":
        return "Chooses this section."
    inner = [_plain(model.__doc__ or "") for model, _ in _models(field.annotation)]
    return inner[0] if inner else ""


def _plain(text: str) -> str:
    return " ".join(text.split())


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is tuple:
        return "list of " + ", ".join(_type(argument) for argument in arguments)
    if origin is dict:
        return f"mapping of names to {_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"kind `{kind}`" if (kind := _kind(annotation)) else "*section*"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        kind = _kind(type(value))
        return f"kind `{kind}`" if kind else "*section*"
    if value is None:
        return "null"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return f"`{value}`" if value != {} else "none"


def _bounds(field: FieldInfo) -> str:
    found = []
    for constraint in field.metadata:
        for name, sign in _SIGNS:
            if (limit := getattr(constraint, name, None)) is not None:
                found.append(f"{sign} {limit}")
        if (least := getattr(constraint, "min_length", None)) is not None:
            found.append(f"length ≥ {least}")
        if (most := getattr(constraint, "max_length", None)) is not None:
            found.append(f"length ≤ {most}")
        if (pattern := getattr(constraint, "pattern", None)) is not None:
            found.append(f"matches `{pattern}`")
    return ", ".join(found)
