"""DeepL's API, version 2, for its clients; JSON or forms.

`context` and `model_type` are accepted and change nothing; formatting is always preserved.
Languages lose their region: a target of `EN-GB` is our `en`. Documents are the jobs of
`/v1/translate/file`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from export.runtime.manifest import Formality
from service.api.documents import JobsDep, find, receive_upload, result_of, submit_job
from service.api.forms import described, described_query, read_body
from service.deps import AccessDep, TranslatorDep, check_text, get_translator, translate_request
from service.errors import ApiError, ErrorDialect, explain, register_dialect
from service.jobs.storage import Job
from service.languages import AUTO, language_name
from service.models import ModelSet
from service.pivot import TranslationRequest

router = APIRouter(tags=["DeepL"], prefix="/v2")

PATHS = ("/v2/translate", "/v2/languages", "/v2/usage")
DIALECT = ErrorDialect(
    body=lambda error: {"message": error.message},
    statuses={
        "unsupported_language": 400,
        "unsupported_formality": 400,
        "invalid_request": 400,
        "key_missing": 403,
        "quota": 456,
        "timeout": 503,
        "bad_file": 400,
        "unfinished": 503,
    },
    names={"source": "source_lang", "target": "target_lang"},
)
register_dialect(DIALECT, "/v2")
UNLIMITED = 1_000_000_000_000
"""The limit that `/v2/usage` reports where there is none."""
VARIANTS = {
    "en": {"EN-GB": "English (British)", "EN-US": "English (American)"},
    "pt": {"PT-BR": "Portuguese (Brazilian)", "PT-PT": "Portuguese (European)"},
}
"""Targets that the official client wants with a region."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _at_commas(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [tag.strip() for item in value for tag in item.split(",") if tag.strip()]
    return value


def _text_of_number(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(check_text)]
Code = Annotated[str, BeforeValidator(_upper), Field(min_length=1, max_length=35)]
FormalityWish = Literal["default", "prefer_more", "prefer_less", "more", "less"]
FORMS: dict[str, Formality] = {"more": "formal", "less": "informal"}
Tags = Annotated[
    list[Annotated[str, Field(max_length=100)]], BeforeValidator(_at_commas), Field(max_length=100)
]


class TranslateRequest(BaseModel):
    """What DeepL's clients send to be translated; other fields are not read."""

    text: Annotated[list[Text], BeforeValidator(_as_list), Field(min_length=1)] = Field(
        description="Texts to translate.", examples=[["Hello, world!"]]
    )
    target_lang: Code = Field(examples=["DE"])
    source_lang: Code | None = Field(default=None, description="Detected if left out.")
    context: str | None = Field(default=None, description="Taken, and not used.")
    split_sentences: Annotated[
        Literal["0", "1", "nonewlines"] | None, BeforeValidator(_text_of_number)
    ] = Field(
        default=None,
        description="`1`: at punctuation and line breaks; `nonewlines`: at punctuation only; `0`: "
        "not at all, unless it is too long for the model. Blank lines part in any case. `1` if "
        "left out; line breaks of HTML are never ends.",
    )
    preserve_formatting: bool | Literal[""] | None = Field(
        default=None, description="Taken; formatting is always preserved."
    )
    formality: FormalityWish | None = Field(
        default=None,
        description="`more` (Sie in German) or `less` (du), refused where the model has one form; "
        "with `prefer_` it has no effect there.",
    )
    glossary_id: str | None = None
    tag_handling: Literal["html", "xml", ""] | None = None
    ignore_tags: Tags = Field(
        default=[], description="Tags whose content is not translated; with `tag_handling`."
    )
    show_billed_characters: bool | Literal[""] | None = None


class LanguagesRequest(BaseModel):
    """Which languages: of texts, or to translate to. The official client sends this GET a form."""

    type: Literal["source", "target"] = "source"


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/json": {"example": {"message": "`target_lang` is required"}}},
    }
    for status, text in {
        400: "A parameter is missing or not valid, or a language is not served.",
        403: "The key is missing or not valid.",
        404: "There is no such glossary.",
        413: "The body or the text is too large.",
        415: "The body is compressed.",
        429: "Too many requests or wrong keys; Retry-After says when to come back.",
        456: "The key's quota of this month is used up.",
        503: "Too many requests wait, or the translation took too long.",
    }.items()
}


@router.post("/translate", responses=ERRORS, openapi_extra=described(TranslateRequest))
async def translate(request: Request, translator: TranslatorDep) -> dict[str, Any]:
    """Translate texts, in DeepL's shape."""
    body = await read_body(request, TranslateRequest)
    check_glossary(body.glossary_id)
    mark = f' translate="no" qs{secrets.token_hex(8)}'
    result = await translate_request(request, translator, _translation_request(body, mark))
    billed = body.show_billed_characters
    return {
        "translations": [
            {
                "detected_source_language": text.source.partition("-")[0].upper(),
                "text": text.text.replace(mark, ""),
                **({"billed_characters": len(source)} if billed else {}),
            }
            for source, text in zip(body.text, result.texts, strict=True)
        ]
    }


async def translate_fast(request: Request) -> Response:
    """`translate` for `FastPath`."""
    return JSONResponse(await translate(request, get_translator(request)))


@router.get("/languages", responses=ERRORS, openapi_extra=described_query(LanguagesRequest))
async def languages(
    request: Request, access: AccessDep, translator: TranslatorDep
) -> list[dict[str, Any]]:
    """The languages that are translated from, or to."""
    access.key(request)
    body = await read_body(request, LanguagesRequest)
    models = translator.models
    targets = models.targets
    if body.type == "source":
        return [{"language": code.upper(), "name": language_name(code)} for code in sorted(targets)]
    codes = {target for each in targets.values() for target in each}
    return [
        {"language": variant, "name": name, "supports_formality": _has_formality(models, code)}
        for code in sorted(codes)
        for variant, name in VARIANTS.get(code, {code.upper(): language_name(code)}).items()
    ]


def _has_formality(models: ModelSet, target: str) -> bool:
    """Whether a form of address may be asked for from whatever language a text is in."""
    return all(models.has_formality(source, target) for source in models.sources_of(target))


@router.get("/usage", responses={status: ERRORS[status] for status in (403, 429)})
async def usage(request: Request, access: AccessDep) -> dict[str, int]:
    """Characters that the key has had translated this month, and how many it may."""
    count, limit = access.usage(request)
    return {"character_count": count, "character_limit": UNLIMITED if limit is None else limit}


def check_glossary(glossary_id: str | None) -> None:
    """Refuse a stored glossary: there are none. Raises ApiError 404."""
    if glossary_id:
        raise ApiError(404, "not_found", f"there is no glossary {glossary_id[:50]!r} here")


def _form(wish: FormalityWish | None) -> Formality | None:
    """The form of address that a client asks for or prefers."""
    return None if wish is None else FORMS.get(wish.removeprefix("prefer_"))


def _is_needed(wish: FormalityWish | None) -> bool:
    """Whether a translation without that form of address is refused."""
    return wish in FORMS


def _translation_request(body: TranslateRequest, mark: str) -> TranslationRequest:
    """The translation that a client requests; `mark` are attributes that keep the tags to ignore
    from being translated."""
    texts = body.text
    if body.tag_handling and body.ignore_tags:
        names = "|".join(map(re.escape, body.ignore_tags))
        texts = [re.sub(rf"<(?:{names})(?=[\s/>])", rf"\g<0>{mark}", text) for text in texts]
    return TranslationRequest(
        texts=texts,
        source=body.source_lang or AUTO,
        target=body.target_lang,
        format="html" if body.tag_handling else "text",
        wrapped=body.split_sentences in ("0", "nonewlines"),
        split=body.split_sentences != "0",
        formality=_form(body.formality),
        needs_formality=_is_needed(body.formality),
    )


UPLOAD_PATH = "/v2/document"
DOCUMENT_PATHS = (UPLOAD_PATH, "/v2/document/{id}", "/v2/document/{id}/result")
STATES = {"queued": "queued", "running": "translating", "done": "done", "failed": "error"}


class DocumentRequest(BaseModel):
    """What DeepL's clients send with a document; other fields are not read."""

    target_lang: Code = Field(examples=["DE"])
    source_lang: Code | None = Field(default=None, description="Detected if left out.")
    output_format: str | None = Field(default=None, description="The format that it has.")
    formality: FormalityWish | None = None
    glossary_id: str | None = None


class KeyRequest(BaseModel):
    """The second secret of a document."""

    document_key: str = Field(max_length=200)


def _upload_form() -> dict[str, Any]:
    schema = DocumentRequest.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] = {"file": file, **schema["properties"]}
    schema["required"] = ["file", *schema["required"]]
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


@router.post("/document", responses=ERRORS, openapi_extra=_upload_form())
async def upload(request: Request, access: AccessDep, jobs: JobsDep) -> dict[str, str]:
    """Take a document to be translated, in DeepL's shape."""
    key = await access.authenticate(request)
    async with receive_upload(request, jobs, access.client(request, key)) as file:
        try:
            body = DocumentRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(400, "invalid_request", message, field) from error
        check_glossary(body.glossary_id)
        extension = file.name.rpartition(".")[2].lower()
        if body.output_format and body.output_format.lower() != extension:
            message = f"`output_format`: the format stays as it is, {extension}: leave it out"
            raise ApiError(400, "invalid_request", message, "output_format")
        source = body.source_lang or AUTO
        job = await submit_job(
            request,
            jobs,
            key,
            file,
            source=source,
            target=body.target_lang,
            formality=_form(body.formality),
            needs_formality=_is_needed(body.formality),
        )
    return {"document_id": job.id, "document_key": _key(job)}


@router.post("/document/{id}", responses=ERRORS, openapi_extra=described(KeyRequest))
async def status(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> dict[str, Any]:
    """How far a document is, in DeepL's shape."""
    job = await _document(request, id, access, jobs)
    answer: dict[str, Any] = {"document_id": job.id, "status": STATES[job.status]}
    left = jobs.seconds_left(job)
    if left is not None:
        answer["seconds_remaining"] = math.ceil(left)
    if job.status == "done":
        answer["billed_characters"] = job.characters
    if job.status == "failed":
        answer["error_message"] = job.error_message
    return answer


@router.post(
    "/document/{id}/result",
    responses=ERRORS,
    response_class=FileResponse,
    openapi_extra=described(KeyRequest),
)
async def result(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> FileResponse:
    """The translated document, once it is done."""
    return result_of(await _document(request, id, access, jobs), jobs)


async def _document(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> Job:
    job = find(request, id, access, jobs)
    body = await read_body(request, KeyRequest)
    if not hmac.compare_digest(body.document_key.encode(), _key(job).encode()):
        raise ApiError(404, "not_found", "`document_key` is not this document's")
    return job


def _key(job: Job) -> str:
    return hashlib.sha256(f"document {job.id}".encode()).hexdigest()
