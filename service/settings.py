"""What can be set from outside: environment variables `QUICKSTUDY_*`, each with unit and bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_BUNDLE = Path("models", "en-de")


def find_bundle() -> Path:
    """The default bundle: beside the code (a checkout, a built Bento), else in the working folder.

    The path is returned whether or not anything is there; loading says what to do.
    """
    beside_code = Path(__file__).resolve().parents[1] / DEFAULT_BUNDLE
    return beside_code if beside_code.exists() else Path.cwd() / DEFAULT_BUNDLE


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in(unit: str) -> dict[str, JsonValue]:
    """What a field counts, or what kind of thing it is."""
    return {"unit": unit}


class Settings(BaseSettings):
    """Settings of the service; a value out of bounds stops it at the start, naming the field."""

    model_config = SettingsConfigDict(
        env_prefix="QUICKSTUDY_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    model: Path = Field(
        default_factory=find_bundle,
        description="Bundle folder to serve.",
        json_schema_extra=_in("folder"),
    )
    models: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Several bundle folders, with commas between; the first is the default.",
        json_schema_extra=_in("folders"),
    )
    engine: str | None = Field(
        default=None,
        description="Engine of the bundle by name; its default one if unset.",
        json_schema_extra=_in("name"),
    )
    inter_threads: int = Field(
        default_factory=usable_cores,
        ge=1,
        le=256,
        description="Translations at the same time.",
        json_schema_extra=_in("threads"),
    )
    intra_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Threads that one translation uses.",
        json_schema_extra=_in("threads"),
    )
    max_batch_tokens: int = Field(
        default=1024,
        ge=64,
        le=65536,
        description="Padded source tokens the engine takes at once.",
        json_schema_extra=_in("tokens"),
    )
    max_batch_sentences: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Sentences taken from the queue at once.",
        json_schema_extra=_in("sentences"),
    )
    queue_size: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Sentences that may wait; more get 503.",
        json_schema_extra=_in("sentences"),
    )
    queue_tokens: int = Field(
        default=16_384,
        ge=64,
        le=10_000_000,
        description="Padded source tokens that may wait; more get 503.",
        json_schema_extra=_in("tokens"),
    )
    cache_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        le=16 * 1024**3,
        description="Memory for translations made before; 0 keeps none.",
        json_schema_extra=_in("bytes"),
    )
    second_tries: bool = Field(
        default=True,
        description="Whether a translation that looks wrong is tried again, and warned of.",
        json_schema_extra=_in("true or false"),
    )
    grace_s: float = Field(
        default=5.0,
        ge=0,
        le=300,
        description="Seconds for requests to finish when it stops.",
        json_schema_extra=_in("seconds"),
    )
    max_texts: int = Field(
        default=128,
        ge=1,
        le=10_000,
        description="Texts in one request.",
        json_schema_extra=_in("texts"),
    )
    max_text_chars: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Characters in one text.",
        json_schema_extra=_in("characters"),
    )
    max_request_chars: int = Field(
        default=20_000,
        ge=1,
        le=10_000_000,
        description="Characters in all texts of a request.",
        json_schema_extra=_in("characters"),
    )
    max_body_bytes: int = Field(
        default=262_144,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Size of a request's body.",
        json_schema_extra=_in("bytes"),
    )
    timeout_s: float = Field(
        default=9.0,
        gt=0,
        le=9.5,
        description="Seconds until a request gets 504.",
        json_schema_extra=_in("seconds"),
    )
    stream_timeout_s: float = Field(
        default=300.0,
        gt=0,
        le=3600,
        description="Seconds that a text of a stream may take.",
        json_schema_extra=_in("seconds"),
    )
    retry_after_s: int = Field(
        default=1,
        ge=1,
        le=3600,
        description="Seconds named by Retry-After when overloaded.",
        json_schema_extra=_in("seconds"),
    )

    jobs_dir: Path | None = Field(
        default=None,
        description="Folder of files to translate, so that jobs outlive a restart; a private one "
        "that is deleted at the end if unset.",
        json_schema_extra=_in("folder"),
    )
    jobs_bytes: int = Field(
        default=134_217_728,
        ge=1_048_576,
        le=1024**4,
        description="Room for all files and translations in that folder; more get 503.",
        json_schema_extra=_in("bytes"),
    )
    jobs_keep_s: float = Field(
        default=3600.0,
        ge=1,
        le=30 * 86_400,
        description="Seconds until an ended job is deleted.",
        json_schema_extra=_in("seconds"),
    )
    max_jobs: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Files that may wait; more get 503.",
        json_schema_extra=_in("files"),
    )
    max_client_jobs: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Files of one key or address that may wait; more get 429.",
        json_schema_extra=_in("files"),
    )
    max_file_bytes: int = Field(
        default=10_000_000,
        ge=0,
        le=10**9,
        description="Size of a file; 0 takes no files.",
        json_schema_extra=_in("bytes"),
    )
    max_file_chars: int = Field(
        default=10_000_000,
        ge=1,
        le=10**9,
        description="Characters to translate in a file.",
        json_schema_extra=_in("characters"),
    )

    keys_file: Path | None = Field(
        default=None,
        description="SQLite file of API keys, see `quickstudy keys`.",
        json_schema_extra=_in("file"),
    )
    require_key: bool = Field(
        default=False,
        description="Whether only requests with an API key are answered.",
        json_schema_extra=_in("true or false"),
    )
    quota_chars: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Characters a month for a key that has no quota of its own; 0 is no limit.",
        json_schema_extra=_in("characters"),
    )
    rate_limit: str = Field(
        default="",
        max_length=200,
        description="Requests of a key or address, like `10/second; 300/minute`; none if empty.",
        json_schema_extra=_in("rates"),
    )
    rate_storage: str = Field(
        default="memory://",
        pattern=r"^(memory|redis|rediss)://",
        description="Where rate limits count: `memory://`, or `redis://host:port` for several "
        "services.",
        json_schema_extra=_in("URL"),
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Proxies in front, each of which adds to X-Forwarded-For.",
        json_schema_extra=_in("proxies"),
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=100,
        description="Origins of other pages that may ask, with commas between; `*` is any.",
        json_schema_extra=_in("origins"),
    )

    log_format: Literal["json", "text"] = Field(
        default="json",
        description="How lines of the log are written: for programs or for people.",
        json_schema_extra=_in("word"),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least that is logged: requests at `info`, probes at `debug`.",
        json_schema_extra=_in("word"),
    )
    drain_s: float = Field(
        default=1.0,
        ge=0,
        le=300,
        description="Seconds after SIGTERM in which requests are still taken, while `/readyz` "
        "says 503.",
        json_schema_extra=_in("seconds"),
    )

    @field_validator("models", "cors_origins", mode="before")
    @classmethod
    def _at_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @property
    def bundle_folders(self) -> tuple[Path, ...]:
        """The bundles to serve: `models`, else `model` alone."""
        return self.models or (self.model,)

    @field_validator("rate_limit")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        from limits import parse_many

        if value:
            parse_many(value)
        return value

    @model_validator(mode="after")
    def _keys_are_somewhere(self) -> Settings:
        if self.require_key and self.keys_file is None:
            raise ValueError("require_key: set keys_file too, or no request can be answered")
        return self
