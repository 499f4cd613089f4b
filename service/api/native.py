"""Quickstudy's own API: `/v1/translate`, `/v1/detect`, `/v1/models` and `/v1/languages`.

`POST /v1/translate/stream` sends each sentence as it is ready, in order, as server-sent events:

| event | data |
| `sentence` | `text` (its place in the list), `index` and `count` of the sentence, `source`,
`target`, `progress` (0 to 1, by characters) |
| `text` | `index`, and what `/v1/translate` gives for a text |
| `end` | `model`, `source`, `target` |
| `error` | as the body of an error; the last event |
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import accumulate
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from export.runtime.manifest import Domain, Formality, Metric
from service.api.glossaries import GLOSSARY_ID, GlossaryId, with_stored
from service.deps import (
    ERRORS,
    TranslatorDep,
    admitted,
    as_api_errors,
    check_text,
    detections,
    get_translator,
    translate_request,
    within_limits,
)
from service.errors import ApiError, native_body
from service.languages import Detection, language_name
from service.models import Model
from service.pivot import (
    TranslatedSentence,
    TranslatedText,
    TranslationRequest,
    TranslationResult,
)
from service.text.document import Format
from service.text.glossary import NO_GLOSSARY, Glossary, GlossaryError
from service.translator import StreamPart, Translator

router = APIRouter()
logger = logging.getLogger("quickstudy.service")

Wish = Literal["scores", "sentences", "timings"]
OptionField = Literal["beam_size", "alternatives", "formality"]
OPTION_FIELDS: tuple[OptionField, ...] = ("beam_size", "alternatives", "formality")
"""Fields of a request that not every model supports."""
MAX_TERMS = 1000
MAX_TERM_CHARS = 200
MAX_DETECTIONS = 5
"""Languages that detection reports at most."""


def _check_texts(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise ValueError("give a string, or a list of one or more strings")
    for item in items:
        check_text(item)
    return value


Texts = Annotated[str | list[str], BeforeValidator(_check_texts)]
Term = Annotated[str, Field(min_length=1, max_length=MAX_TERM_CHARS)]
Code = Annotated[str, Field(max_length=35)]


class TranslateRequest(BaseModel):
    """What to translate, and how."""

    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        json_schema_extra={
            "examples": [
                {"text": "A man is riding a bicycle.", "source": "en", "target": "de"},
                {
                    "text": ["Good morning.", "The train is late."],
                    "source": "auto",
                    "target": "de",
                    "return": ["scores", "sentences", "timings"],
                },
                {
                    "text": "<p>Open the <b>settings</b> page.</p>",
                    "format": "html",
                    "glossary": {"settings": "Einstellungen"},
                },
            ]
        },
    )

    text: Texts = Field(
        description="A text or a list of texts. Lines, blank lines and outer spaces are kept."
    )
    source: Code | None = Field(
        default=None,
        description="Language of the text, or `auto` to detect it for each text; "
        "the first model's if left out.",
    )
    target: Code | None = Field(
        default=None, description="Language to translate to; the first model's if left out."
    )
    format: Format = Field(
        default="text", description="What the text is; markup is kept, and code not translated."
    )
    beam_size: int | None = Field(
        default=None, ge=1, le=8, strict=True, description="1 is greedy; more is slower."
    )
    alternatives: int = Field(
        default=0,
        ge=0,
        le=5,
        strict=True,
        description="Other translations to give at most, likeliest first; `/v1/languages` says "
        "where there are any.",
    )
    formality: Formality | None = Field(
        default=None,
        description="Form of address, as Sie or du in German; the model's own if left out. "
        "`/v1/languages` says where there is a choice.",
    )
    translate_attributes: bool = Field(
        default=False,
        strict=True,
        description="In HTML, also translate what a reader sees of attributes: `alt`, `title`, "
        "`placeholder`, `aria-label`, the description of a page; in Markdown the texts of images "
        "and the titles of links. Files are translated so.",
    )
    glossary: dict[Term, Term] = Field(
        default_factory=dict,
        max_length=MAX_TERMS,
        description="Terms of the source language, each with the translation it must get.",
    )
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
    wishes: list[Wish] = Field(
        default_factory=list,
        alias="return",
        max_length=10,
        description="What else to give: scores, pairs of sentences, times.",
    )
    return_scores: bool = Field(
        default=False, strict=True, description="The same as `scores` in `return`."
    )


class Language(BaseModel):
    """A language that a text may be in."""

    language: str = Field(description="Its code; `und` for a text without a letter.")
    confidence: float = Field(ge=0, le=1)


class SentencePair(BaseModel):
    """A sentence and its translation."""

    source: str
    target: str


class WarningItem(BaseModel):
    """Something that may be wrong with a translation."""

    code: str = Field(
        description="A fixed word for programs: repetition, echo, too_long, too_short, truncated, "
        "low_score, other_language, unknown_characters, number_mismatch."
    )
    message: str = Field(description="For people.")


class TranslationItem(BaseModel):
    """One text's translation."""

    text: str
    truncated: bool = Field(description="Whether the output limit cut a sentence off.")
    score: float | None = Field(
        description="Mean log-probability of a token (nats); null unless asked for, "
        "where nothing was to translate, or where another form of address was chosen."
    )
    warnings: list[WarningItem] = Field(description="What may be wrong, none if nothing is.")
    detected: Language | None = Field(default=None, description="Where the source is `auto`.")
    alternatives: list[str] | None = Field(default=None, description="Where asked for.")
    sentences: list[SentencePair] | None = Field(default=None, description="Where asked for.")


class TranslateResponse(BaseModel):
    """The translations, in the order of the texts; a list of one for a single text."""

    model: str | None = Field(
        description="What translated, two models with ` + ` between where it went through English; "
        "null where nothing had to be translated."
    )
    source: str = Field(description="The source language, or `auto`.")
    target: str
    translations: list[TranslationItem]
    timings: dict[str, float] | None = Field(
        default=None, description="Milliseconds by step, where asked for."
    )


class DetectRequest(BaseModel):
    """Texts whose language is to be told."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "Guten Morgen!"}]}
    )

    text: Texts = Field(description="A text or a list of texts.")


class DetectResponse(BaseModel):
    """For each text the languages that it may be in, likeliest first."""

    detections: list[list[Language]]


class ModelInfo(BaseModel):
    """A model that is served."""

    name: str
    version: str
    description: str
    source: str
    target: str
    engine: str
    runtime: str = Field(
        description="What computes it: `native` with its kernel, `CTranslate2` or `ONNX Runtime`."
    )
    supports: list[OptionField] = Field(
        description="Fields of a request that it supports beside those of every model."
    )
    formality: Formality | None = Field(
        description="Its own form of address, where another may be asked for."
    )
    precision: str
    parameters: int
    size_bytes: int = Field(description="Size of the engine's files.")
    licence: str
    attribution: str
    metrics: list[Metric]
    domains: list[Domain] = Field(description="Quality by kind of text, where it was measured.")


class ModelList(BaseModel):
    """The models that are served; the first is meant where a request names no language."""

    models: list[ModelInfo]


class Source(BaseModel):
    """A language that is translated, and to which ones."""

    code: str
    name: str = Field(description="In English.")
    targets: list[str] = Field(description="Directly, or through English.")
    alternatives: list[str] = Field(description="The targets for which there are alternatives.")
    formality: list[str] = Field(
        description="The targets for which a form of address may be asked for."
    )


class LanguageList(BaseModel):
    """The languages that are served."""

    languages: list[Source]


@router.post(
    "/v1/translate",
    responses=ERRORS,
    tags=["translation"],
    response_model_exclude_unset=True,
)
async def translate(
    request: Request, body: TranslateRequest, translator: TranslatorDep
) -> TranslateResponse:
    """Translate a text or a list of texts."""
    wanted = await with_stored(request, translation_request_of(body), [body.glossary_id])
    return response_to(body, await translate_request(request, translator, wanted))


async def translate_fast(request: Request) -> Response | None:
    """`translate` for `FastPath`."""
    try:
        body = TranslateRequest.model_validate_json(await request.body())
    except ValidationError:
        return None
    wanted = await with_stored(request, translation_request_of(body), [body.glossary_id])
    result = await translate_request(request, get_translator(request), wanted)
    content = response_to(body, result).model_dump_json(exclude_unset=True)
    return Response(content, media_type="application/json")


@router.post("/v1/detect", responses=ERRORS, tags=["translation"])
async def detect(
    request: Request, body: DetectRequest, translator: TranslatorDep
) -> DetectResponse:
    """Tell the language of a text or of each text of a list."""
    texts = [body.text] if isinstance(body.text, str) else body.text
    detected = await detections(request, translator, texts)
    return DetectResponse(
        detections=[[_language(one) for one in each[:MAX_DETECTIONS]] for each in detected]
    )


@router.get("/v1/models", tags=["models"])
async def models(translator: TranslatorDep) -> ModelList:
    """The models that are served, with their quality and licence."""
    return model_list(translator.models.models)


@router.get("/v1/languages", tags=["models"])
async def languages(translator: TranslatorDep) -> LanguageList:
    """The languages that are served, each with those it is translated to."""
    served = translator.models
    return LanguageList(
        languages=[
            Source(
                code=source,
                name=language_name(source),
                targets=sorted(targets),
                alternatives=sorted(t for t in targets if served.has_alternatives(source, t)),
                formality=sorted(t for t in targets if served.has_formality(source, t)),
            )
            for source, targets in sorted(served.targets.items())
        ]
    )


def translation_request_of(body: TranslateRequest) -> TranslationRequest:
    """The translation that a client requests."""
    return TranslationRequest(
        texts=[body.text] if isinstance(body.text, str) else body.text,
        source=body.source,
        target=body.target,
        format=body.format,
        beam_size=body.beam_size,
        alternatives=body.alternatives,
        scores=body.return_scores or "scores" in body.wishes,
        glossary=glossary_of(body.glossary),
        formality=body.formality,
        translate_attributes=body.translate_attributes,
    )


def glossary_of(terms: dict[str, str]) -> Glossary:
    """The glossary of a request. Raises ApiError 422."""
    try:
        return Glossary(terms) if terms else NO_GLOSSARY
    except GlossaryError as error:
        raise ApiError(422, "invalid_request", f"`glossary`: {error}", "glossary") from error


def response_to(body: TranslateRequest, result: TranslationResult) -> TranslateResponse:
    """The response; keys that were not requested are not set."""
    response = TranslateResponse(
        model=" + ".join(result.models) or None,
        source=result.source,
        target=result.target,
        translations=[item_of(text, body) for text in result.texts],
    )
    if "timings" in body.wishes:
        response.timings = {f"{step}_ms": round(s * 1e3, 3) for step, s in result.seconds.items()}
    return response


def model_list(models: tuple[Model, ...]) -> ModelList:
    """Models as clients see them."""
    return ModelList(models=[_model_info(model) for model in models])


def item_of(text: TranslatedText, body: TranslateRequest) -> TranslationItem:
    """A text's translation; keys that were not requested are not set."""
    item = TranslationItem(
        text=text.text,
        truncated=text.truncated,
        score=text.score,
        warnings=[WarningItem(code=w.code, message=w.message) for w in text.warnings],
    )
    if text.detected is not None:
        item.detected = _language(text.detected)
    if body.alternatives:
        item.alternatives = list(text.alternatives)
    if "sentences" in body.wishes:
        item.sentences = [SentencePair(source=src, target=trg) for src, trg in text.sentences]
    return item


def _language(detection: Detection) -> Language:
    return Language(language=detection.language, confidence=detection.confidence)


def _model_info(model: Model) -> ModelInfo:
    manifest = model.manifest
    engine = model.bundle.engine(model.engine_name)
    return ModelInfo(
        name=manifest.name,
        version=manifest.version,
        description=manifest.description,
        source=manifest.source_lang,
        target=manifest.target_lang,
        engine=engine.name,
        runtime=model.engine.runtime,
        supports=[option for option in OPTION_FIELDS if model.supports(option)],
        formality=manifest.formality.default if manifest.formality is not None else None,
        precision=engine.precision,
        parameters=manifest.parameters,
        size_bytes=manifest.engine_bytes(engine),
        licence=manifest.licence,
        attribution=manifest.attribution,
        metrics=list(manifest.metrics),
        domains=list(manifest.domains),
    )


@router.post(
    "/v1/translate/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `sentence`, `text` and `end`, or `error`.",
            "content": {
                "text/event-stream": {
                    "example": 'event: sentence\ndata: {"text": 0, "index": 0, "count": 1, '
                    '"source": "Hello.", "target": "Hallo.", "progress": 1.0}\n\n'
                }
            },
        },
        **ERRORS,
    },
    tags=["translation"],
)
async def stream(
    request: Request, body: TranslateRequest, translator: TranslatorDep
) -> StreamingResponse:
    """Translate a text or a list of texts, sending each sentence as soon as it is ready.

    What goes wrong before the first sentence has a status; later, it is an `error` event.
    """
    asked = translation_request_of(body)
    translation_request = await with_stored(request, asked, [body.glossary_id])
    parts = translator.stream(translation_request)
    async with admitted(request, translator, translation_request.texts, None):
        with as_api_errors(translator.settings):
            first = await within_limits(request, translator.settings, anext(parts))
    events = _events(body, translation_request, translator, first, parts)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    body: TranslateRequest,
    translation_request: TranslationRequest,
    translator: Translator,
    first: StreamPart,
    parts: AsyncGenerator[StreamPart, None],
) -> AsyncIterator[str]:
    """The events from the first part on; an error is the last one."""
    lengths = list(map(len, translation_request.texts))
    chars_before = [0, *accumulate(lengths)]
    total = sum(lengths) or 1
    try:
        with as_api_errors(translator.settings):
            async with aclosing(parts):
                part: StreamPart | None = first
                while part is not None:
                    content = part.content
                    if isinstance(content, TranslatedSentence):
                        share = (content.index + 1) / content.count
                        done = chars_before[part.row] + share * lengths[part.row]
                        yield _event("sentence", _sentence(part.row, content, done / total))
                    else:
                        item = item_of(content, body).model_dump(exclude_unset=True)
                        yield _event("text", {"index": part.row, **item})
                        last = part
                    part = await anext(parts, None)
        summary = {"model": last.model, "source": translation_request.source or last.source}
        yield _event("end", {**summary, "target": last.target})
    except ApiError as error:
        yield _event("error", native_body(error))
    except Exception:
        logger.exception("a stream failed")
        message = "the service failed on this request: see its log"
        yield _event("error", native_body(ApiError(500, "internal", message)))


def _sentence(row: int, sentence: TranslatedSentence, progress: float) -> dict[str, Any]:
    return {
        "text": row,
        "index": sentence.index,
        "count": sentence.count,
        "source": sentence.source,
        "target": sentence.target,
        "progress": round(progress, 4),
    }


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
