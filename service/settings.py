"""The settings: environment variables `QUICKSTUDY_*`, each with its unit and bounds.

`read_settings` reads and checks them. `rows`, `as_json`, `as_markdown` and `show_settings`
(`quickstudy serve --show-settings`) report them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Unpack, get_args, get_origin

import annotated_types
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from export.runtime.manifest import MANIFEST_FILE
from quickstudy.errors import QuickstudyError
from quickstudy.machine import usable_cores

DEFAULT_BUNDLE = Path("models", "en-de")
OFF = "off"
MAX_KEY_FAILURES = 100
"""The most wrong keys that a limit may allow; that many are kept for each address."""


def find_bundle() -> Path:
    """The default bundle: beside the code (a checkout, a built Bento), else in the working folder.

    The path is returned whether or not anything is there; loading says what to do.
    """
    beside_code = Path(__file__).resolve().parents[1] / DEFAULT_BUNDLE
    return beside_code if beside_code.exists() else Path.cwd() / DEFAULT_BUNDLE


def _bundles_beside(folder: Path) -> list[Path]:
    """The other bundles in the folder of a bundle, by name; drafts are none."""
    try:
        manifests = sorted(folder.parent.glob(f"*/{MANIFEST_FILE}"))
    except OSError:
        return []
    # Writing a bundle has a draft beside it for a moment, `name.draft` or `name.former`.
    return [m.parent for m in manifests if "." not in m.parent.name and m.parent != folder]


class Bounds(TypedDict, total=False):
    """The bounds of a setting's value."""

    ge: float
    gt: float
    le: float
    max_length: int
    pattern: str


def setting(default: Any, unit: str, description: str, **bounds: Unpack[Bounds]) -> Any:
    """A field whose `unit` says what it counts, or what kind of value it is; a callable `default`
    is called for the value."""
    default_value: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return Field(
        description=description, json_schema_extra={"unit": unit}, **default_value, **bounds
    )


class Settings(BaseSettings):
    """Settings of the service; a value out of bounds stops it at the start and names the field."""

    model_config = SettingsConfigDict(
        env_prefix="QUICKSTUDY_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    model: Path = setting(
        find_bundle,
        "folder",
        "Bundle folder to serve; by default models/en-de, with every other bundle in models.",
    )
    models: Annotated[tuple[Path, ...], NoDecode] = setting(
        (),
        "folders",
        "Several bundle folders, with commas between; the first is the default.",
        max_length=100,
    )
    engine: str | None = setting(
        None, "name", "Engine of each bundle by name; its default one if unset or not there."
    )
    inter_threads: int = setting(
        usable_cores, "threads", "Translations at the same time.", ge=1, le=256
    )
    intra_threads: int = setting(1, "threads", "Threads that one translation uses.", ge=1, le=256)
    max_batch_tokens: int = setting(
        1024, "tokens", "Padded source tokens the engine takes at once.", ge=64, le=65536
    )
    max_batch_sentences: int = setting(
        64, "sentences", "Sentences taken from the queue at once.", ge=1, le=4096
    )
    queue_size: int = setting(
        512, "sentences", "Sentences that may wait; more get 503.", ge=1, le=100_000
    )
    queue_tokens: int = setting(
        16_384, "tokens", "Padded source tokens that may wait; more get 503.", ge=64, le=10_000_000
    )
    cache_bytes: int = setting(
        16 * 1024 * 1024,
        "bytes",
        "Memory for translations made before; 0 keeps none.",
        ge=0,
        le=16 * 1024**3,
    )
    fallback_decoding: bool = setting(
        True,
        "true or false",
        "Whether a translation that looks wrong is decoded again with other options.",
    )
    number_form: Literal["target", "source"] = setting(
        "target",
        "target or source",
        "Whose decimal and grouping marks numbers get: `1,250.5` is `1.250,5` in German.",
    )
    other_language: Literal["refuse", "keep", "translate"] = setting(
        "refuse",
        "refuse, keep or translate",
        "What becomes of a text that is detected, with `auto`, to be in a language that is not "
        "served: refused with 422, kept as it is, or translated as the likeliest served one.",
    )
    shutdown_grace_s: float = setting(
        5.0, "seconds", "Seconds for requests to finish when it stops.", ge=0, le=300
    )
    max_texts: int = setting(128, "texts", "Texts in one request.", ge=1, le=10_000)
    max_text_chars: int = setting(
        10_000, "characters", "Characters in one text.", ge=1, le=1_000_000
    )
    max_request_chars: int = setting(
        20_000, "characters", "Characters in all texts of a request.", ge=1, le=10_000_000
    )
    max_body_bytes: int = setting(
        262_144, "bytes", "Size of a request's body.", ge=1024, le=64 * 1024 * 1024
    )
    timeout_s: float = setting(9.0, "seconds", "Seconds until a request gets 504.", gt=0, le=9.5)
    stream_timeout_s: float = setting(
        300.0, "seconds", "Seconds that a text of a stream may take.", gt=0, le=3600
    )
    max_connections: int = setting(
        1000,
        "connections",
        "Connections at once; of more, those that wait longest are closed.",
        ge=8,
        le=100_000,
    )
    head_timeout_s: float = setting(
        10.0, "seconds", "Seconds that a request's head may take to come.", ge=1, le=300
    )
    keep_alive_s: int = setting(
        5, "seconds", "Seconds that a connection is kept for a further request.", ge=1, le=3600
    )
    retry_after_s: int = setting(
        1, "seconds", "Seconds named by Retry-After when overloaded.", ge=1, le=3600
    )

    jobs_dir: Path | None = setting(
        None,
        "folder",
        "Folder of files to translate, so that jobs outlive a restart; a private one "
        "that is deleted at the end if unset.",
    )
    jobs_bytes: int = setting(
        134_217_728,
        "bytes",
        "Room for all files and translations in that folder; more get 503.",
        ge=1_048_576,
        le=1024**4,
    )
    job_retention_s: float = setting(
        3600.0, "seconds", "Seconds until an ended job is deleted.", ge=1, le=30 * 86_400
    )
    max_jobs: int = setting(100, "files", "Files that may wait; more get 503.", ge=1, le=10_000)
    max_client_jobs: int = setting(
        10, "files", "Files of one key or address that may wait; more get 429.", ge=1, le=10_000
    )
    max_file_bytes: int = setting(
        10_000_000, "bytes", "Size of a file; 0 takes no files.", ge=0, le=10**9
    )
    max_file_chars: int = setting(
        10_000_000, "characters", "Characters to translate in a file.", ge=1, le=10**9
    )
    file_memory_bytes: int = setting(
        536_870_912,
        "bytes",
        "Memory of a process that reads files; there are two at most.",
        ge=67_108_864,
        le=1024**4,
    )

    max_glossaries: int = setting(
        100,
        "glossaries",
        "Glossaries that a key or address may store; 0 stores none.",
        ge=0,
        le=10_000,
    )
    glossaries_bytes: int = setting(
        33_554_432,
        "bytes",
        "Room for all stored glossaries, a fourth of it for one key or address.",
        ge=65_536,
        le=1024**4,
    )

    suggestions_file: Path | None = setting(
        None,
        "file",
        "SQLite file of suggested translations, see `quickstudy suggestions`; none are taken if "
        "unset.",
    )
    max_suggestions: int = setting(
        10_000,
        "suggestions",
        "Suggested translations that are kept, a tenth of them from one key or address.",
        ge=10,
        le=1_000_000,
    )

    keys_file: Path | None = setting(
        None, "file", "SQLite file of API keys, see `quickstudy keys`."
    )
    require_key: bool = setting(
        False, "true or false", "Whether only requests with an API key are answered."
    )
    quota_chars: int = setting(
        0,
        "characters",
        "Characters a month for a key that has no quota of its own; 0 is no limit.",
        ge=0,
        le=10**12,
    )
    rate_limit: str = setting(
        "",
        "rates",
        "Requests of a key or address, like `10/second; 300/minute`; none if empty.",
        max_length=200,
    )
    key_failure_limit: str = setting(
        "20/minute",
        "rates",
        "Wrong keys of an address, 100 at most, after which its keys get 429; `off` is no limit.",
        max_length=200,
    )
    key_in_query: bool = setting(
        True,
        "true or false",
        "Whether LibreTranslate's `?api_key=` is taken, which ends in the logs of proxies.",
    )
    metrics: Literal["auto", "open", "key", "off"] = setting(
        "auto",
        "word",
        "Who may read `/metrics`: all, whoever has a key, nobody; `auto` is `key` where a key is "
        "required, else `open`.",
    )
    rate_storage: str = setting(
        "memory://",
        "URL",
        "Where rate limits count: `memory://`, or `redis://host:port` for several services.",
        pattern=r"^(memory|redis|rediss)://",
    )
    trusted_proxies: int = setting(
        0, "proxies", "Proxies in front, each of which adds to X-Forwarded-For.", ge=0, le=10
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "origins",
        "Origins of other pages that may ask, with commas between; `*` is any.",
        max_length=100,
    )

    log_format: Literal["json", "text"] = setting(
        "json", "word", "How lines of the log are written: for programs or for people."
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "word", "The least that is logged: requests at `info`, probes at `debug`."
    )
    drain_s: float = setting(
        1.0,
        "seconds",
        "Seconds after SIGTERM in which requests are still taken, while `/readyz` says 503.",
        ge=0,
        le=300,
    )

    @field_validator("models", "cors_origins", mode="before")
    @classmethod
    def _at_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @property
    def bundle_folders(self) -> tuple[Path, ...]:
        """The bundles to serve: `models`, else `model` alone; where neither is set the default
        one, and the bundles that lie beside it, by their names."""
        if self.models or "model" in self.model_fields_set:
            return self.models or (self.model,)
        return (self.model, *_bundles_beside(self.model))

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        from limits import parse_many

        if value:
            parse_many(value)
        return value

    @field_validator("key_failure_limit")
    @classmethod
    def _is_rate_or_off(cls, value: str) -> str:
        from limits import parse_many

        if value != OFF and any(rate.amount > MAX_KEY_FAILURES for rate in parse_many(value)):
            raise ValueError(f"more than {MAX_KEY_FAILURES} wrong keys: allow fewer in less time")
        return value

    @model_validator(mode="after")
    def _keys_are_somewhere(self) -> Settings:
        if self.keys_file is None:
            if self.require_key:
                raise ValueError(
                    "QUICKSTUDY_REQUIRE_KEY: set QUICKSTUDY_KEYS_FILE too, or nobody is answered"
                )
            if self.metrics == "key":
                raise ValueError(
                    "QUICKSTUDY_METRICS: set QUICKSTUDY_KEYS_FILE too, or nobody can read them"
                )
        return self


PREFIX = "QUICKSTUDY_"
RENAMED = {
    "QUICKSTUDY_SECOND_TRIES": "fallback_decoding",
    "QUICKSTUDY_GRACE_S": "shutdown_grace_s",
    "QUICKSTUDY_JOBS_KEEP_S": "job_retention_s",
}
"""Former names of settings, which are still accepted in this version."""
ELSEWHERE = frozenset(("QUICKSTUDY_RUNS", "QUICKSTUDY_STUDY_PARENT"))
"""Variables with this prefix that other commands read."""
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
    """Settings that cannot be used; the message has a line for each of them."""


@dataclass(frozen=True)
class SettingRow:
    """A setting: its variable, current and default value, unit, bounds and meaning."""

    variable: str
    value: Value
    default: Value
    unit: str
    bounds: str
    meaning: str


def read_settings() -> Settings:
    """The settings of the environment. Raises SettingsError, which names every fault."""
    renamed: dict[str, Any] = {
        name: os.environ[former]
        for former, name in RENAMED.items()
        if os.environ.get(former) and not os.environ.get(variable_of(name))
    }
    try:
        return Settings(**renamed)
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


def as_json(settings: list[SettingRow]) -> str:
    """The rows as a JSON list."""
    return json.dumps([asdict(row) for row in settings], indent=2, ensure_ascii=False)


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


def deprecated(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each setting that is set by its former name."""
    return [
        f"{former} is now called {variable_of(name)}; the next version drops the former name"
        for former, name in RENAMED.items()
        if environment.get(former)
    ]


def unknown(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that looks like a setting but is none."""
    known = list(map(variable_of, Settings.model_fields))
    sentences = []
    for name in sorted(environment.keys() - RENAMED.keys() - ELSEWHERE):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f": is {near[0]} meant?" if near else ""
            sentences.append(f"{name} is not a setting of the service{meant}")
    return sentences


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
    """What a field counts, or what kind of value it is."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else "–"


def bounds_of(field: FieldInfo) -> str:
    """The bounds of a field, or the words that it may be; – if it may be anything."""
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
    variable = variable_of(name)
    if not os.environ.get(variable):
        variable = next((old for old, new in RENAMED.items() if new == name), variable)
    value = os.environ.get(variable, "")
    bounds = bounds_of(field)
    allowed = unit_of(field) + ("" if bounds == "–" else f", {bounds}")
    return f"  {variable}={hidden(value)[:200]}: {message[:200]} ({allowed})"


WIDE = 140
"""Columns that a terminal needs to show meanings beside values."""


def show_settings(json: bool) -> None:
    """Print every setting: a table on a terminal, lines elsewhere, or JSON.

    Raises SettingsError for values out of bounds.
    """
    settings = rows(read_settings())
    if json:
        print(as_json(settings))
    elif sys.stdout.isatty():
        _table(settings)
    else:
        for row in settings:
            about = f"{row.unit}; {row.bounds}; default: {shown(row.default)}"
            print(f"{row.variable}={_assigned(row.value)}  ({about})  {row.meaning}")
    for sentence in [*deprecated(), *unknown()]:
        print(f"quickstudy: {sentence}", file=sys.stderr)


def _assigned(value: Value) -> str:
    """A value as it is assigned to a variable."""
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str("" if value is None else value)


def _table(settings: list[SettingRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    wide = console.width >= WIDE
    table = Table(header_style="bold", pad_edge=False, box=None)
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold", style="bold")
    table.add_column("default", overflow="fold")
    table.add_column("unit", no_wrap=wide)
    table.add_column("bounds")
    if wide:
        table.add_column("meaning")
    else:
        table.caption = "a wider terminal shows meanings, as do --json and a pipe"
    for row in settings:
        cells = (row.variable, shown(row.value), shown(row.default), row.unit, row.bounds)
        table.add_row(*cells, *([row.meaning] if wide else []))
    console.print(table)


if __name__ == "__main__":
    print(as_markdown(), end="")
