"""LibreTranslate's API, for its clients; JSON or forms.

Suggestions are kept where the settings name a file for them. A file is one request that waits for
the job of `/v1/translate/file`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from service.api.documents import JobsDep, receive_upload, result_of, submit_job
from service.api.forms import described, read_body
from service.api.glossaries import GLOSSARY_ID, GlossaryId, with_stored, with_stored_terms
from service.deps import (
    AccessDep,
    TranslatorDep,
    admitted,
    as_api_errors,
    check_text,
    detections,
    get_access,
    get_translator,
    translate_request,
    within_limits,
)
from service.documents import FILE_KINDS
from service.errors import ApiError, ErrorDialect, explain, register_dialect
from service.languages import AUTO, UNDETERMINED, Detection, language_name
from service.pivot import TranslationRequest
from service.suggestions import MAX_CHARS, Suggestion, SuggestionRoomError, SuggestionStore
from service.translator import Translator

router = APIRouter(tags=["LibreTranslate"])

PATHS = (
    "/translate",
    "/detect",
    "/languages",
    "/health",
    "/frontend/settings",
    "/suggest",
    "/translate_file",
    "/download_file/{id}",
)
DIALECT = ErrorDialect(
    body=lambda error: {"error": error.message},
    statuses={
        "unsupported_language": 400,
        "too_large": 400,
        "key_missing": 400,
        "bad_file": 400,
        "invalid_request": 400,
    },
    names={"text": "q"},
)
register_dialect(DIALECT, *(path.removesuffix("/{id}") for path in PATHS))
MAX_ALTERNATIVES = 5
MAX_DETECTIONS = 5
FULL_RETRY_S = 3600


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value


Text = Annotated[str, AfterValidator(check_text)]
SuggestedText = Annotated[
    str, AfterValidator(check_text), AfterValidator(_not_blank), Field(max_length=MAX_CHARS)
]
Code = Annotated[str, Field(min_length=1, max_length=35)]


class TranslateRequest(BaseModel):
    """What LibreTranslate's clients send to be translated; other fields are not read."""

    q: Text | Annotated[list[Text], Field(min_length=1)] = Field(
        description="A text or a list of texts."
    )
    source: Code = Field(description="Language of the text, or `auto`.", examples=["auto"])
    target: Code = Field(description="Language to translate to.", examples=["de"])
    format: Annotated[Literal["text", "html"] | None, BeforeValidator(_none_if_empty)] = "text"
    alternatives: Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_none_if_empty)] = (
        Field(
            default=0,
            description="Other translations to give: five at most, where there are any.",
        )
    )
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
    api_key: str | None = None


class DetectRequest(BaseModel):
    """What LibreTranslate's clients send to be told its language."""

    q: Text
    api_key: str | None = None


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/json": {"example": {"error": "`q` is required"}}},
    }
    for status, text in {
        400: "A parameter is missing or not valid, a language not served, a text or body too long.",
        403: "The key is not valid.",
        415: "The body is compressed.",
        429: "Too many requests or wrong keys; Retry-After says when to come back.",
        503: "Too many requests wait; Retry-After says when to come back.",
        504: "The translation took too long.",
    }.items()
}


@router.post("/translate", responses=ERRORS, openapi_extra=described(TranslateRequest))
async def translate(request: Request, translator: TranslatorDep) -> dict[str, Any]:
    """Translate a text or a list of texts, in LibreTranslate's shape."""
    get_access(request).check_query(request)
    body = await read_body(request, TranslateRequest)
    texts = [body.q] if isinstance(body.q, str) else body.q
    if body.source.lower() == body.target.lower():
        async with admitted(request, translator, texts, body.api_key):
            return _response(body, {"translatedText": texts})
    translation_request = TranslationRequest(
        texts=texts,
        source=AUTO if body.source.lower() == AUTO else body.source,
        target=body.target,
        format=body.format or "text",
        alternatives=min(body.alternatives or 0, MAX_ALTERNATIVES),
        needs_alternatives=False,
    )
    wanted = await with_stored(request, translation_request, [body.glossary_id], body.api_key)
    result = await translate_request(request, translator, wanted, body.api_key)
    columns: dict[str, list[Any]] = {"translatedText": [text.text for text in result.texts]}
    if translation_request.source == AUTO:
        columns["detectedLanguage"] = [_detected(text.detected) for text in result.texts]
    if body.alternatives:
        columns["alternatives"] = [list(text.alternatives) for text in result.texts]
    return _response(body, columns)


async def translate_fast(request: Request) -> Response:
    """`translate` for `FastPath`."""
    return JSONResponse(await translate(request, get_translator(request)))


@router.post("/detect", responses=ERRORS, openapi_extra=described(DetectRequest))
async def detect(request: Request, translator: TranslatorDep) -> list[dict[str, Any]]:
    """The languages that a text may be in, likeliest first, in LibreTranslate's shape."""
    get_access(request).check_query(request)
    body = await read_body(request, DetectRequest)
    (detected,) = await detections(request, translator, [body.q], body.api_key)
    return [_detected(_with_default(one, translator)) for one in detected[:MAX_DETECTIONS]]


@router.get("/languages")
@router.post("/languages")
async def languages(translator: TranslatorDep) -> list[dict[str, Any]]:
    """The languages that are served, each with those it is translated to. As in the original, a
    language is a target of its own, and one that is only a target is listed with itself alone."""
    targets = translator.models.targets
    return [
        {
            "code": code,
            "name": language_name(code),
            "targets": sorted({code, *targets.get(code, ())}),
        }
        for code in translator.models.languages
    ]


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "ok"}


@router.get("/frontend/settings")
async def frontend_settings(request: Request, translator: TranslatorDep) -> dict[str, Any]:
    """What a page that speaks this API needs to know; it begins with the best direction."""
    source, target = translator.models.best.pair
    file_bytes = translator.settings.max_file_bytes
    return {
        "charLimit": translator.settings.max_text_chars,
        "frontendTimeout": 500,
        "apiKeys": translator.settings.keys_file is not None,
        "keyRequired": translator.settings.require_key,
        "suggestions": request.app.state.suggestions is not None,
        "filesTranslation": bool(file_bytes),
        "supportedFilesFormat": [f".{name}" for name in FILE_KINDS] if file_bytes else [],
        "fileBytesLimit": file_bytes,
        "language": {
            "source": {"code": source, "name": language_name(source)},
            "target": {"code": target, "name": language_name(target)},
        },
    }


class SuggestRequest(BaseModel):
    """A text and a better translation of it."""

    q: SuggestedText = Field(description="The text.")
    s: SuggestedText = Field(description="The translation that it should have.")
    source: Code = Field(description="Language of the text, or `auto`.", examples=["en"])
    target: Code = Field(description="Language of the translation.", examples=["de"])
    api_key: str | None = None


@router.post("/suggest", responses=ERRORS, openapi_extra=described(SuggestRequest))
async def suggest(
    request: Request, access: AccessDep, translator: TranslatorDep
) -> dict[str, bool]:
    """Keep a suggested translation, for the operator to train on."""
    store: SuggestionStore | None = request.app.state.suggestions
    if store is None:
        raise ApiError(403, "turned_off", "Suggestions are disabled on this server.")
    access.check_query(request)
    body = await read_body(request, SuggestRequest)
    key = await access.authenticate(request, body.api_key)
    source: str | None = body.source
    with as_api_errors(translator.settings):
        if body.source.lower() == AUTO:
            target = translator.models.pair(None, body.target)[1]
            detected = await asyncio.to_thread(translator.choose_source, body.q, target)
            source = detected.language
        source, target = translator.models.pair(source, body.target)
    new = Suggestion(
        access.client(request, key), key.id if key else None, source, target, body.q, body.s
    )
    try:
        store.add(new)
    except SuggestionRoomError as error:
        status, code = (429, "too_many_suggestions") if error.of_client else (503, "overloaded")
        raise ApiError.later(status, code, str(error), FULL_RETRY_S) from error
    return {"success": True}


def _response(body: TranslateRequest, columns: dict[str, list[Any]]) -> dict[str, Any]:
    """A list for a list, the one item for a single text."""
    if isinstance(body.q, list):
        return dict(columns)
    return {name: items[0] for name, items in columns.items()}


def _with_default(one: Detection, translator: Translator) -> Detection:
    """A text without a letter is in the default source language, at confidence 0."""
    if one.language == UNDETERMINED:
        return replace(one, language=translator.models.default.pair[0])
    return one


def _detected(one: Detection | None) -> dict[str, Any]:
    assert one is not None
    return {"confidence": round(100 * one.confidence, 2), "language": one.language}


UPLOAD_PATH = "/translate_file"


class LibreFileRequest(BaseModel):
    """What LibreTranslate's clients send with a file; other fields are not read."""

    model_config = ConfigDict(title="FileRequest")  # as the OpenAPI document has named it before

    source: Code = Field(description="Language of the file, or `auto`.", examples=["auto"])
    target: Code = Field(description="Language to translate to.", examples=["de"])
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
    api_key: str | None = None


def _form() -> dict[str, Any]:
    schema = LibreFileRequest.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] = {"file": file, **schema["properties"]}
    schema["required"] = ["file", *schema["required"]]
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


@router.post(UPLOAD_PATH, responses=ERRORS, openapi_extra=_form())
async def translate_file(
    request: Request, access: AccessDep, jobs: JobsDep, translator: TranslatorDep
) -> dict[str, str]:
    """Translate a file, in LibreTranslate's shape; the answer comes when it is done."""
    async with receive_upload(request, jobs, access.client(request, None)) as file:
        try:
            body = LibreFileRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(400, "invalid_request", message, field) from error
        key = await access.authenticate(request, body.api_key)
        source = AUTO if body.source.lower() == AUTO else body.source
        terms = await with_stored_terms(
            request, {}, [body.glossary_id], source, body.target, body.api_key
        )
        job = await submit_job(
            request,
            jobs,
            key,
            file,
            source=source,
            target=body.target,
            glossary=json.dumps(terms),
            is_shared=True,
        )
    settings = translator.settings
    try:
        ended = await within_limits(request, settings, jobs.wait(job.id), settings.stream_timeout_s)
        if ended is None:
            raise ApiError(404, "not_found", "the file was deleted before it was translated")
        if ended.error_code is not None:
            status = 500 if ended.error_code == "internal" else 400
            raise ApiError(status, ended.error_code, ended.error_message or "")
    except BaseException:
        await jobs.remove(job.id)
        raise
    address = request.url_for("download_file", id=job.id).replace(scheme=access.scheme(request))
    return {"translatedFileUrl": str(address)}


@router.get("/download_file/{id}", response_class=FileResponse, responses={404: ERRORS[400]})
async def download_file(id: str, jobs: JobsDep) -> FileResponse:
    """The file that the answer of `/translate_file` names; its address is all one needs."""
    job = jobs.find(id, None)
    if job is None:
        raise ApiError(404, "not_found", "there is no such file: it is deleted or has expired")
    return result_of(job, jobs)
