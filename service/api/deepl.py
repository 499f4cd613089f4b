"""DeepL's API, version 2, for its clients; JSON or forms.

Models translate sentence by sentence, so `context` changes nothing; formatting is always preserved.
Languages lose their region: a target of `EN-GB` is our `en`. Documents are the jobs of
`/v1/translate/file`. Stored glossaries are in `service/api/deepl_glossaries.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from export.runtime.manifest import Formality
from service.api.documents import JobsDep, find, receive_upload, result_of, submit_job
from service.api.forms import described, described_query, read_body
from service.api.glossaries import GLOSSARY_ID, GlossaryId, with_stored, with_stored_terms
from service.deps import AccessDep, TranslatorDep, check_text, get_translator, translate_request
from service.errors import ApiError, ErrorDialect, explain, register_dialect
from service.jobs.storage import Job
from service.languages import AUTO, language_name
from service.models import ModelSet
from service.pivot import TranslationRequest
from service.text.html import INLINE, PROTECTED

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
register_dialect(DIALECT, "/v2", "/v3")
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
    if value is None:
        return []
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


Ids = Annotated[list[GlossaryId], BeforeValidator(_at_commas), Field(max_length=5)]
ModelType = Literal["latency_optimized", "prefer_quality_optimized", "quality_optimized", ""]


class Options(BaseModel):
    """Options of texts and documents that are honoured in part, or refused."""

    glossary_ids: Ids = Field(
        default=[], description="Stored glossaries; of a term that several have, the first counts."
    )
    model_type: ModelType | None = Field(
        default=None, description="There is one model, and no `quality_optimized` one: refused."
    )
    tag_handling_version: Literal["v1", "v2", ""] | None = Field(
        default=None, description="Taken; tags are handled in one way."
    )
    splitting_tags: Tags = Field(
        default=[], description="Tags that part sentences; with `tag_handling`."
    )
    non_splitting_tags: Tags = Field(
        default=[], description="Tags within sentences; with `tag_handling`."
    )
    outline_detection: bool | Literal[""] | None = Field(
        default=None,
        description="Whether tags other than those of HTML's inline text part sentences; if false, "
        "`splitting_tags` alone do.",
    )
    enable_beta_languages: bool | Literal[""] | None = Field(
        default=None, description="Taken; every language that is served may be asked for."
    )
    style_id: str | None = Field(default=None, description="Refused.")
    translation_memory_id: str | None = Field(default=None, description="Refused.")
    custom_instructions: Any = Field(default=None, description="Refused.")


class TranslateRequest(Options):
    """What DeepL's clients send to be translated; other fields are not read."""

    text: Annotated[list[Text], BeforeValidator(_as_list), Field(min_length=1)] = Field(
        description="Texts to translate.", examples=[["Hello, world!"]]
    )
    target_lang: Code = Field(examples=["DE"])
    source_lang: Code | None = Field(default=None, description="Detected if left out.")
    context: str | None = Field(
        default=None, description="Taken; sentences are translated by themselves."
    )
    split_sentences: Annotated[
        Literal["0", "1", "nonewlines"] | None, BeforeValidator(_text_of_number)
    ] = Field(
        default=None,
        description="`1`: at punctuation and line breaks; `nonewlines` and `0`: at punctuation "
        "only, since models translate sentence by sentence. Blank lines part in any case. `1` if "
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
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
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
        404: "There is no such glossary, style rule or translation memory.",
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
    check_options(body)
    marks = TagMarks(f"qs{secrets.randbelow(10**16):016}")
    wanted = await with_stored(request, _translation_request(body, marks), _glossary_ids(body))
    result = await translate_request(request, translator, wanted, sent=body.text)
    billed, model_type = body.show_billed_characters, body.model_type
    return {
        "translations": [
            {
                "detected_source_language": text.source.partition("-")[0].upper(),
                "text": marks.remove(text.text),
                **({"billed_characters": len(source)} if billed else {}),
                **({"model_type_used": "latency_optimized"} if model_type else {}),
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


def _form(wish: FormalityWish | None) -> Formality | None:
    """The form of address that a client asks for or prefers."""
    return None if wish is None else FORMS.get(wish.removeprefix("prefer_"))


def _is_needed(wish: FormalityWish | None) -> bool:
    """Whether a translation without that form of address is refused."""
    return wish in FORMS


def check_options(body: TranslateRequest | DocumentRequest) -> None:
    """Refuse options that are not supported and would change the translation.

    Raises ApiError 400, 404.
    """
    for field, kind in (
        ("style_id", "style rule"),
        ("translation_memory_id", "translation memory"),
    ):
        if id := getattr(body, field):
            message = f"`{field}`: there is no {kind} {id[:50]!r} here: leave it out"
            raise ApiError(404, "not_found", message, field)
    if body.custom_instructions:
        raise _unsupported("custom_instructions", "models follow no instructions: leave it out")
    if body.model_type == "quality_optimized":
        raise _unsupported("model_type", "there is one model: leave it out, or prefer_… it")
    if body.glossary_id and body.glossary_ids:
        raise _unsupported("glossary_ids", "give this or `glossary_id`, not both")
    if isinstance(body, DocumentRequest):
        given = (body.splitting_tags, body.non_splitting_tags, body.outline_detection is False)
        for field, value in zip(TAG_FIELDS, given, strict=True):
            if value:
                raise _unsupported(field, "documents are parted as their format is: leave it out")


TAG_FIELDS = ("splitting_tags", "non_splitting_tags", "outline_detection")


def _unsupported(field: str, message: str) -> ApiError:
    return ApiError(400, "invalid_request", f"`{field}`: {message}", field)


def _glossary_ids(body: TranslateRequest | DocumentRequest) -> list[str | None]:
    return [body.glossary_id, *body.glossary_ids]


@dataclass(frozen=True)
class TagMarks:
    """Marks in tags by which they are read as the options of a request ask; translations keep tags
    as they are, and so the marks, which then are removed.

    `secret` is a word that no text has, with few letters, which language detection sees. A name
    with a colon is an element within a sentence, an unknown one parts sentences
    (`service/text/html.py`).
    """

    secret: str

    def put(self, text: str, body: TranslateRequest) -> str:
        """A text with marks in its tags."""
        if body.ignore_tags:
            ignored = "|".join(map(re.escape, body.ignore_tags))
            text = re.sub(rf"<(?:{ignored})(?=[\s/>])", rf"\g<0>{self._ignored}", text)
        for names, sign in ((body.splitting_tags, "-"), (body.non_splitting_tags, ":")):
            if names:
                text = _tags(names).sub(rf"\1{self.secret}{sign}\2", text)
        if body.outline_detection is False:
            text = ANY_TAG.sub(self._outline, text)
        return text

    def remove(self, text: str) -> str:
        """A text without the marks."""
        if self.secret not in text:
            return text
        text = text.replace(self._ignored, "")
        return text.replace(f"{self.secret}:", "").replace(f"{self.secret}-", "")

    @property
    def _ignored(self) -> str:
        return f' translate="no" {self.secret}'

    def _outline(self, tag: re.Match[str]) -> str:
        """A tag within a sentence, unless its name is marked or known."""
        is_left = tag[2].startswith(self.secret) or tag[2].lower() in INLINE | PROTECTED
        return tag[0] if is_left else f"{tag[1]}{self.secret}:{tag[2]}"


ANY_TAG = re.compile(r"(</?)([A-Za-z_][^\s<>/]{0,199})(?=[^<>]*>)")


def _tags(names: Sequence[str]) -> re.Pattern[str]:
    """The beginnings of tags with these names."""
    choices = "|".join(map(re.escape, names))
    return re.compile(rf"(</?)({choices})(?=[\s/>])(?=[^<>]*>)")


def _translation_request(body: TranslateRequest, marks: TagMarks) -> TranslationRequest:
    """The translation that a client requests."""
    return TranslationRequest(
        texts=[marks.put(text, body) for text in body.text] if body.tag_handling else body.text,
        source=body.source_lang or AUTO,
        target=body.target_lang,
        format="html" if body.tag_handling else "text",
        wrapped=body.split_sentences in ("0", "nonewlines"),
        formality=_form(body.formality),
        needs_formality=_is_needed(body.formality),
    )


UPLOAD_PATH = "/v2/document"
DOCUMENT_PATHS = (UPLOAD_PATH, "/v2/document/{id}", "/v2/document/{id}/result")
STATES = {"queued": "queued", "running": "translating", "done": "done", "failed": "error"}


class DocumentRequest(Options):
    """What DeepL's clients send with a document; other fields are not read."""

    target_lang: Code = Field(examples=["DE"])
    source_lang: Code | None = Field(default=None, description="Detected if left out.")
    output_format: str | None = Field(default=None, description="The format that it has.")
    formality: FormalityWish | None = None
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
    filename: str | None = Field(
        default=None, max_length=1000, description="The document's name, in place of its part's."
    )


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
    async with receive_upload(request, jobs, access.client(request, key), "filename") as file:
        try:
            body = DocumentRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(400, "invalid_request", message, field) from error
        check_options(body)
        extension = file.name.rpartition(".")[2].lower()
        if body.output_format and body.output_format.lower() != extension:
            message = f"`output_format`: the format stays as it is, {extension}: leave it out"
            raise ApiError(400, "invalid_request", message, "output_format")
        source = body.source_lang or AUTO
        terms = await with_stored_terms(request, {}, _glossary_ids(body), source, body.target_lang)
        job = await submit_job(
            request,
            jobs,
            key,
            file,
            source=source,
            target=body.target_lang,
            glossary=json.dumps(terms),
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
