"""A system as a line of JSON: the name of its class and its settings.

Nothing in such a line is code: the other side makes an object of a class that `CLASSES` allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import Field, asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from benchmarks.systems import CLASSES
from benchmarks.systems.base import System, SystemInfo


def _as_it_is(value: Any) -> Any:
    return value


READ: dict[str, Callable[[Any], Any]] = {
    "SystemInfo": lambda value: SystemInfo(**value),
    "Path": Path,
    "tuple[str, ...]": tuple,
    "str": _as_it_is,
    "int": _as_it_is,
    "float": _as_it_is,
    "dict[str, str]": _as_it_is,
    "dict[str, Any]": _as_it_is,
}
"""What a setting may be, by its annotation, and how it is made of JSON."""


def to_json(system: System) -> str:
    """A system that is not loaded, as one line. Raises ValueError for a class that is not in
    `CLASSES`, TypeError for a setting that is no plain data."""
    kind = type(system)
    if CLASSES.get(kind.__name__) != kind.__module__:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__} may not be sent to another process: add it to "
            "CLASSES of benchmarks/systems/__init__.py"
        )
    values = {one.name: getattr(system, one.name) for one in settings_of(kind)}
    return json.dumps({"class": kind.__name__, "settings": values}, default=_plain)


def from_json(line: str | bytes) -> System:
    """The system of a line. Raises ValueError for a class that is not in `CLASSES`, TypeError for
    settings that are not those of the class."""
    told = json.loads(line)
    name = told["class"]
    if name not in CLASSES:
        raise ValueError(f"{name!r} is none of the systems: {', '.join(CLASSES)}")
    kind = getattr(import_module(CLASSES[name]), name)
    types = {one.name: str(one.type) for one in settings_of(kind)}
    if types.keys() != told["settings"].keys():
        raise TypeError(f"{name} has the settings {sorted(types)}, not {sorted(told['settings'])}")
    values = {key: READ[types[key]](value) for key, value in told["settings"].items()}
    return cast(System, kind(**values))


def settings_of(kind: type) -> list[Field[Any]]:
    """The fields of a system's class that say what it is; those with an underscore are filled by
    `load`."""
    return [one for one in fields(kind) if not one.name.startswith("_")]


def _plain(value: Any) -> Any:
    if isinstance(value, SystemInfo):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no plain data")
