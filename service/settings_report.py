"""The settings as they are now: read, checked, and told to people and programs."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from quickstudy_errors import QuickstudyError
from service.settings import DEFAULT_BUNDLE, Settings

PREFIX = "QUICKSTUDY_"
ELSEWHERE = frozenset(("QUICKSTUDY_RUNS", "QUICKSTUDY_STUDY_PARENT"))
"""Variables of this prefix that other commands read."""
SECRETS = (
    (re.compile(r"(?<=://)\S*@"), "***@"),
    (re.compile(r"(?<=[?&])(user(?:name)?|pass(?:word)?)=[^&\s]*", re.I), r"\1=***"),
)
FACTORY_DEFAULTS = {
    "model": str(DEFAULT_BUNDLE),
    "inter_threads": "the cores it may use",
}
"""Defaults that depend on the machine, in words."""


Value = str | int | float | bool | list[str] | None


class SettingsError(QuickstudyError, ValueError):
    """Settings that cannot be used; the message has a line for each fault."""


@dataclass(frozen=True)
class SettingRow:
    """A setting: its variable, what it is now and unless set, what it counts and within what."""

    variable: str
    value: Value
    default: Value
    unit: str
    bounds: str
    meaning: str


def read_settings() -> Settings:
    """The settings of the environment. Raises SettingsError, which names every fault."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False)]
        raise SettingsError("\n".join(["settings that cannot be used:", *faults])) from None


def rows(settings: Settings) -> list[SettingRow]:
    """Every setting; passwords within values are hidden."""
    return [
        SettingRow(
            variable=variable_of(name),
            value=_plain(getattr(settings, name)),
            default=_default(name, field),
            unit=unit_of(field),
            bounds=bounds_of(field),
            meaning=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def as_json(found: list[SettingRow]) -> str:
    """The rows as a JSON list."""
    return json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False)


def as_markdown() -> str:
    """The table of docs/serving.md."""
    lines = [
        "| variable | default | unit | bounds | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = shown(_default(name, field))
        if "://" in default or default == str(DEFAULT_BUNDLE):
            default = f"`{default}`"
        cells = (default, unit_of(field), bounds_of(field), field.description or "")
        lines.append(f"| `{variable_of(name)}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def unknown(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like a setting and is none."""
    known = list(map(variable_of, Settings.model_fields))
    found = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in ELSEWHERE:
            near = difflib.get_close_matches(name, known, 1)
            meant = f": is {near[0]} meant?" if near else ""
            found.append(f"{name} is not a setting of the service{meant}")
    return found


def hidden(text: str) -> str:
    """A value without the user and password that a URL in it may hold."""
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text


def shown(value: Value) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return value or "none"


def variable_of(name: str) -> str:
    """The environment variable of a field."""
    return f"{PREFIX}{name.upper()}"


def unit_of(field: FieldInfo) -> str:
    """What a field counts, or what kind of thing it is."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else "–"


def bounds_of(field: FieldInfo) -> str:
    """Between what a field must lie, or of which words it is one; – if it may be anything."""
    choices = get_args(field.annotation) if _is_literal(field.annotation) else ()
    if choices:
        return ", ".join(choices)
    return ", ".join(_bounds(field)) or "–"


def _bounds(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            yield f"≥ {_number(limit.ge)}"
        elif isinstance(limit, annotated_types.Gt):
            yield f"> {_number(limit.gt)}"
        elif isinstance(limit, annotated_types.Le):
            yield f"≤ {_number(limit.le)}"
        elif isinstance(limit, annotated_types.Lt):
            yield f"< {_number(limit.lt)}"
        elif isinstance(limit, annotated_types.MaxLen):
            kind = "characters" if field.annotation is str else "items"
            yield f"≤ {_number(limit.max_length)} {kind}"


def _is_literal(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _default(name: str, field: FieldInfo) -> Value:
    if name in FACTORY_DEFAULTS:
        return FACTORY_DEFAULTS[name]
    return _plain(field.get_default(call_default_factory=True))


def _plain(value: Any) -> Value:
    """A setting's value as JSON has it, without secrets."""
    if isinstance(value, tuple):
        return [hidden(str(item)) for item in value]
    return value if value is None or isinstance(value, int | float) else hidden(str(value))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def _fault(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return f"  {message}"
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    given = os.environ.get(variable_of(name), "")
    bounds = bounds_of(field)
    allowed = unit_of(field) + ("" if bounds == "–" else f", {bounds}")
    return f"  {variable_of(name)}={hidden(given)[:200]}: {message[:200]} ({allowed})"


if __name__ == "__main__":
    print(as_markdown(), end="")
