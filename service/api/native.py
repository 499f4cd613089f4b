"""Quickstudy's own API: `/v1/translate`, `/v1/models` and the probes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from export.engines import TranslateOptions
from export.manifest import Manifest, Metric
from service.api.errors import ApiError, ErrorBody
from service.batcher import QueueFullError
from service.metrics import exposition
from service.settings import Settings
from service.translator import TranslatedText, Translator

router = APIRouter()
CLIENT_GONE = 499


def _check_text(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise ValueError("give a string, or a list of one or more strings")
    for item in items:
        if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
            raise ValueError("half of a surrogate pair is not text: escape both halves or neither")
    return value


class TranslateRequest(BaseModel):
    """What to translate, and how."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"text": "A man is riding a bicycle.", "source": "en", "target": "de"}]
        },
    )

    text: Annotated[str | list[str], BeforeValidator(_check_text)] = Field(
        description="A text or a list of texts. Lines, blank lines and outer spaces are kept."
    )
    source: str | None = Field(
        default=None, max_length=35, description="Language of the text; the model's if left out."
    )
    target: str | None = Field(
        default=None,
        max_length=35,
        description="Language to translate to; likewise.",
    )
    beam_size: int | None = Field(
        default=None, ge=1, le=8, strict=True, description="1 is greedy; more is slower."
    )
    return_scores: bool = Field(default=False, strict=True, description="Whether to give scores.")


class TranslationItem(BaseModel):
    """One text's translation."""

    text: str
    truncated: bool = Field(description="Whether the output limit cut a sentence off.")
    score: float | None = Field(
        default=None,
        description="Mean log-probability of a token (nats); null unless asked for, "
        "or where nothing was to translate.",
    )


class TranslateResponse(BaseModel):
    """The translations, in the order of the texts; a list of one for a single text."""

    model: str
    source: str
    target: str
    translations: list[TranslationItem]


class ModelInfo(BaseModel):
    """What is served."""

    name: str
    version: str
    description: str
    source: str
    target: str
    engine: str
    precision: str
    parameters: int
    size_bytes: int = Field(description="Size of the engine's files.")
    licence: str
    attribution: str
    metrics: list[Metric]


class ModelList(BaseModel):
    """The models that are served."""

    models: list[ModelInfo]


class Status(BaseModel):
    """A probe's answer."""

    status: str


def translator_of(request: Request) -> Translator:
    """The app's translator. Raises ApiError 503 before it is loaded."""
    translator: Translator | None = getattr(request.app.state, "translator", None)
    if translator is None:
        raise ApiError(503, "not_ready", "the model is still loading: try again", headers=_retry(1))
    return translator


Serving = Annotated[Translator, Depends(translator_of)]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        413: "The body or the text is too large.",
        422: "The request is not valid, or its languages are not served.",
        503: "Too many requests wait; Retry-After says when to come back.",
        504: "The translation took too long.",
    }.items()
}


@router.post("/v1/translate", responses=ERRORS, tags=["translation"])
async def translate(
    request: Request, body: TranslateRequest, translator: Serving
) -> TranslateResponse:
    """Translate a text or a list of texts."""
    manifest = translator.manifest
    texts = [body.text] if isinstance(body.text, str) else body.text
    check_languages(manifest, body.source, body.target)
    check_sizes(texts, translator.settings)
    options = TranslateOptions(
        beam_size=body.beam_size or manifest.decoding.beam_size, return_scores=body.return_scores
    )
    translated = await answer(request, translator, texts, options)
    return TranslateResponse(
        model=manifest.name,
        source=manifest.source_lang,
        target=manifest.target_lang,
        translations=[
            TranslationItem(text=item.text, truncated=item.truncated, score=item.score)
            for item in translated
        ],
    )


@router.get("/v1/models", tags=["models"])
async def models(translator: Serving) -> ModelList:
    """The models that are served, with their quality and licence."""
    manifest = translator.manifest
    engine = translator.bundle.engine(translator.engine_name)
    info = ModelInfo(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        source=manifest.source_lang,
        target=manifest.target_lang,
        engine=engine.name,
        precision=engine.precision,
        parameters=manifest.parameters,
        size_bytes=manifest.engine_bytes(engine),
        licence=manifest.licence,
        attribution=manifest.attribution,
        metrics=list(manifest.metrics),
    )
    return ModelList(models=[info])


@router.get("/healthz", tags=["probes"])
async def healthz() -> Status:
    """Whether the process lives."""
    return Status(status="ok")


@router.get("/readyz", tags=["probes"], responses={503: {"model": ErrorBody}})
async def readyz(translator: Serving) -> Status:
    """Whether a translation has succeeded."""
    if not await translator.ready():
        raise ApiError(503, "not_ready", "no translation has succeeded: see the log")
    return Status(status="ready")


@router.get("/metrics", tags=["probes"], response_class=PlainTextResponse)
async def metrics() -> PlainTextResponse:
    """Metrics in Prometheus' text format."""
    return PlainTextResponse(exposition(), media_type=CONTENT_TYPE_LATEST)


def check_languages(manifest: Manifest, source: str | None, target: str | None) -> None:
    """Raise ApiError 422 unless the languages, where given, are the model's; case is ignored."""
    pair = {"source": manifest.source_lang, "target": manifest.target_lang}
    for field, given in (("source", source), ("target", target)):
        if given is not None and given.lower() != pair[field].lower():
            raise ApiError(
                422,
                "unsupported_language",
                f"`{field}` is {given[:35]!r}, but this service translates "
                f"{pair['source']} → {pair['target']} only: give {pair[field]!r} or leave it out",
                field,
            )


def check_sizes(texts: Sequence[str], settings: Settings, field: str = "text") -> None:
    """Raise ApiError 413 if there are too many texts or characters."""
    longest = max(map(len, texts), default=0)
    total = sum(map(len, texts))
    for size, limit, what in (
        (len(texts), settings.max_texts, "texts in a request"),
        (longest, settings.max_text_chars, "characters in a text"),
        (total, settings.max_request_chars, "characters in a request"),
    ):
        if size > limit:
            message = f"{size} {what} are too many, {limit} are possible: send several requests"
            raise ApiError(413, "too_large", message, field)


async def answer(
    request: Request, translator: Translator, texts: Sequence[str], options: TranslateOptions
) -> list[TranslatedText]:
    """Translate within the time limit, and stop when the client has gone.

    Raises ApiError 503 with Retry-After when too much waits, 504 when time is up.
    """
    settings = translator.settings
    work = asyncio.ensure_future(translator.translate(texts, options))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait(
            {work, gone}, timeout=settings.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if work.done():
            return work.result()
        if gone.done():
            raise ApiError(CLIENT_GONE, "client_gone", "the client closed the connection")
        message = f"not translated within {settings.timeout_s:g} s: send less text at once"
        raise ApiError(504, "timeout", message)
    except QueueFullError as error:
        headers = _retry(settings.retry_after_s)
        message = "too many requests wait: try again after the time that Retry-After names"
        raise ApiError(503, "overloaded", message, headers=headers) from error
    finally:
        work.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _retry(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}
