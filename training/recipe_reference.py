"""The reference of every field of a recipe, as Markdown, made from the schema itself."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.model_config import DEFAULT_KIND
from training.recipe import Recipe

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
