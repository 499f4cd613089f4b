"""Files as jobs: `POST /v1/translate/file`, and their status and result under `/v1/files/{id}`.

`receive_upload`, `submit_job`, `find` and `result_of` serve the other APIs, too.
"""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from export.runtime.manifest import FORMALITY, Formality
from service.api.glossaries import GLOSSARY_ID, GlossaryId, with_stored_terms
from service.api.native import MAX_TERMS, Code, Language, Term, glossary_of
from service.api_keys import ApiKey
from service.auth import Access
from service.deps import CLIENT_GONE, ERRORS, AccessDep, as_api_errors, get_access, get_translator
from service.documents import FILE_KINDS, FileError
from service.errors import ApiError, ErrorDetail, explain
from service.jobs.queue import Jobs, TooManyJobsError
from service.jobs.reader import FileTooLongError
from service.jobs.readers import BusyError, FileLimitError
from service.jobs.storage import Job
from service.languages import AUTO
from service.middleware import repeated_key
from service.pivot import TranslationRequest, check_search
from service.settings import Settings
from service.translator import Translator

UPLOAD_S = 300.0
"""Seconds that a file may take to arrive."""
RETRY_S = 30
MAX_FIELDS = 20
MAX_NAME_CHARS = 120
NO_TEXT = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
"""What bytes that are not UTF-8 become when a form is read as text, or almost always have."""
UNSAFE = re.compile(r'[<>:"/\\|?*]')
"""Characters that file names must not have on some system."""


async def get_jobs(request: Request) -> Jobs:
    """The app's jobs, started. Raises ApiError 403 if files are turned off, 503 before the
    translator is loaded."""
    jobs: Jobs = request.app.state.jobs
    translator = get_translator(request)
    if not translator.settings.max_file_bytes:
        raise ApiError(403, "turned_off", "Files translation is disabled on this server.")
    jobs.start(translator)
    return jobs


JobsDep = Annotated[Jobs, Depends(get_jobs)]


@dataclass(frozen=True)
class ReceivedUpload:
    """A received file, with the other fields of its form."""

    name: str
    data: bytes
    fields: Mapping[str, Any]


@asynccontextmanager
async def receive_upload(
    request: Request, jobs: Jobs, client: str, name_field: str | None = None
) -> AsyncIterator[ReceivedUpload]:
    """Receive a form with a file, and keep room for it within this context. The form's
    `name_field`, if it is there, has the file's name.

    Raises ApiError: 400 for what is not a form with a file, 408 if it takes too long, 413 for too
    large a file, 429 and 503 with Retry-After if there is no room.
    """
    settings: Settings = get_translator(request).settings
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else settings.max_file_bytes
    with _as_api_errors(), jobs.room_for(client, min(size, settings.max_file_bytes)):
        yield await _read(request, settings, name_field)


async def submit_job(
    request: Request,
    jobs: Jobs,
    key: ApiKey | None,
    file: ReceivedUpload,
    *,
    source: str | None,
    target: str | None,
    beam_size: int | None = None,
    glossary: str = "{}",
    formality: Formality | None = None,
    needs_formality: bool = True,
    is_shared: bool = False,
    replace: bool = False,
) -> Job:
    """Make a job for a file, charged to the key. If `is_shared`, its id is enough to access it.
    `replace` also translates what has a translation.

    Without `needs_formality`, a model that has one form of address translates in that. Raises
    ApiError: 413 for too much text, 422 for languages that are not served, a beam or a form of
    address that the model does not have and files that cannot be translated, 429 over the quota,
    503 if too many files are read.
    """
    translator: Translator = get_translator(request)
    access: Access = get_access(request)
    with as_api_errors(translator.settings), _as_api_errors():
        pair = translator.models.pair(None if source == AUTO else source, target)
        source = AUTO if source == AUTO else pair[0]
        reading = await jobs.read(
            file.name, file.data, source, pair[1], translator, replace=replace
        )
        if reading.source != pair[1]:
            route = translator.models.route(reading.source, pair[1])
            if not needs_formality and not route[-1].supports(FORMALITY):
                formality = None
            asked = TranslationRequest([], beam_size=beam_size, formality=formality)
            check_search(route, asked)
    access.charge(key, reading.characters)
    job = Job(
        name=clean_name(file.name, reading.kind.extension),
        kind=reading.kind.extension,
        source=reading.source,
        target=pair[1],
        characters=reading.characters,
        units=reading.units,
        bytes=len(file.data),
        client=access.client(request, key),
        owner=key.id if key else None,
        is_shared=is_shared,
        replaces=replace,
        beam_size=beam_size,
        formality=formality,
        glossary=glossary,
        detected=reading.detected.confidence if reading.detected else None,
    )
    try:
        return await jobs.add(job, file.data)
    except BaseException:
        access.refund(key, reading.characters)
        raise


def clean_name(name: str, extension: str) -> str:
    """A file name that is safe to show and to save under: no folders, no control characters."""
    base = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    base = "".join(char for char in base if unicodedata.category(char)[0] != "C")
    stem, dot, end = base.rpartition(".")
    if not dot:
        stem, end = end, extension
    stem = UNSAFE.sub("_", stem).strip(" .")[:MAX_NAME_CHARS].strip()
    return f"{stem or 'file'}.{UNSAFE.sub('_', end)[:20]}"


def translated_name(job: Job) -> str:
    """`report.docx` translated to German: `report.de.docx`."""
    stem, _, end = job.name.rpartition(".")
    return f"{stem}.{job.target}.{end}"


def attachment(name: str) -> str:
    """A Content-Disposition for a file to save (RFC 6266): in ASCII, and as it is (RFC 8187)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r'[^\w .()+,;=@~!#$&\'-]|["\\;]', "_", plain)
    plain = plain if not plain.startswith(".") else f"file{plain}"
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


async def _read(request: Request, settings: Settings, name_field: str | None) -> ReceivedUpload:
    try:
        async with asyncio.timeout(UPLOAD_S):
            form = await request.form(
                max_files=1, max_fields=MAX_FIELDS, max_part_size=settings.max_body_bytes
            )
    except TimeoutError:
        message = f"the file did not arrive within {UPLOAD_S:g} s: send a smaller one"
        raise ApiError(408, "timeout", message, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ApiError(CLIENT_GONE, "client_gone", "the client closed the connection") from None
    except (HTTPException, MultiPartException, UnicodeDecodeError) as error:
        reason = getattr(error, "detail", None) or str(error)
        raise ApiError(400, "invalid_request", f"the form cannot be read: {reason}") from error
    try:
        file = form.get("file")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        named = (fields.get(name_field) if name_field else None) or ""
        if named and isinstance(file, str):
            return ReceivedUpload(named, _bytes_of(fields.pop("file")), fields)
        if not isinstance(file, UploadFile) or not (named or file.filename):
            message = "`file` is required: send multipart/form-data with a file of that name in it"
            raise ApiError(422, "invalid_request", message, "file")
        if (file.size or 0) > settings.max_file_bytes:
            message = f"the file is larger than {settings.max_file_bytes} bytes: send it in parts"
            raise ApiError(413, "too_large", message, "file")
        return ReceivedUpload(named or file.filename or "", await file.read(), fields)
    finally:
        await form.close()


def _bytes_of(text: str) -> bytes:
    """A file whose part of the form has no name of a file, and so was read as text.

    Raises ApiError 400 for what is not UTF-8, whose bytes are lost.
    """
    if NO_TEXT.search(text):
        message = "`file` is not UTF-8: send it with the name of a file in its part of the form"
        raise ApiError(400, "invalid_request", message, "file")
    return text.encode()


@contextmanager
def _as_api_errors() -> Iterator[None]:
    try:
        yield
    except TooManyJobsError as error:
        status, code = (429, "too_many_files") if error.of_client else (503, "overloaded")
        raise ApiError.later(status, code, str(error), RETRY_S) from error
    except BusyError as error:
        raise ApiError.later(503, "overloaded", str(error), RETRY_S) from error
    except FileError as error:
        raise ApiError(422, "bad_file", str(error), "file") from error
    except (FileTooLongError, FileLimitError) as error:
        raise ApiError(413, "too_large", str(error), "file") from error


router = APIRouter(tags=["files"])

UPLOAD_PATH = "/v1/translate/file"
PATHS = (
    UPLOAD_PATH,
    "/v1/files/{id}",
    "/v1/files/{id}/result",
    "/v1/files/{id}/events",
)
POLL_S = 0.25


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        terms = from_json(value) if value.strip() else {}
    except ValueError:
        raise ValueError('give a JSON object, like {"term": "its translation"}') from None
    if (key := repeated_key(value)) is not None:
        raise ValueError(f"the term {key[:100]!r} comes twice: leave one of them out")
    return terms


class FileRequest(BaseModel):
    """The fields beside the file."""

    model_config = ConfigDict(extra="forbid")

    source: Code | None = Field(
        default=None,
        description="Language of the file, or `auto` to detect it; the first model's if left out.",
        examples=["auto"],
    )
    target: Code | None = Field(
        default=None,
        description="Language to translate to; the first model's if left out.",
        examples=["de"],
    )
    beam_size: int | None = Field(
        default=None, ge=1, le=8, description="1 is greedy; more is slower."
    )
    formality: Formality | None = Field(
        default=None, description="Form of address; the model's own if left out."
    )
    glossary: Annotated[dict[Term, Term], BeforeValidator(_from_json)] = Field(
        default_factory=dict,
        max_length=MAX_TERMS,
        description="A JSON object of terms, each with the translation it must get.",
    )
    glossary_id: GlossaryId | None = Field(default=None, description=GLOSSARY_ID)
    replace_translations: bool = Field(
        default=False,
        description="In TMX, XLIFF and gettext files, also translate what has a translation, in "
        "place of it; what is approved stays.",
    )


class Units(BaseModel):
    """The texts that the file consists of."""

    done: int
    total: int


class UnitWarningItem(BaseModel):
    """A text of the file that is as it was, or should be looked at."""

    place: str = Field(description="How the file names the text: its id or line.")
    code: str
    message: str


class FileStatus(BaseModel):
    """A file that is being translated, and how far it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "T4kX2vTqDq8cVbY0fJm1sWzN7uLhPa3e",
                    "status": "running",
                    "name": "report.docx",
                    "source": "en",
                    "target": "de",
                    "detected": {"language": "en", "confidence": 0.9996},
                    "progress": 0.42,
                    "characters": 18250,
                    "units": {"done": 131, "total": 310},
                    "warnings": {"repetition": 1},
                    "unit_warnings": [],
                    "eta_s": 12.5,
                    "created": "2026-01-31T09:30:00Z",
                    "expires": None,
                    "error": None,
                    "result": None,
                }
            ]
        }
    )

    id: str = Field(description="Keep it to yourself: without API keys, it is all one needs.")
    status: Literal["queued", "running", "done", "failed"]
    name: str = Field(description="The file's name.")
    source: str
    target: str
    detected: Language | None = Field(description="Where the source was `auto`.")
    progress: float = Field(ge=0, le=1, description="By characters.")
    characters: int = Field(description="Characters to translate; they count for the quota.")
    units: Units
    warnings: dict[str, int] = Field(
        description="How many units have a warning, by its code (see `/v1/translate`)."
    )
    unit_warnings: list[UnitWarningItem] = Field(
        description="Which texts have a warning: are left as they were, do not fit their place, or "
        "may be translated wrongly; known once the file is done, the first 100."
    )
    eta_s: float | None = Field(description="Seconds that are left, if they can be told.")
    created: str
    expires: str | None = Field(description="When it is deleted, once it has ended.")
    error: ErrorDetail | None = Field(description="Why it failed.")
    result: str | None = Field(description="Where the translated file is, once it is done.")


def _upload_form() -> dict[str, Any]:
    schema = FileRequest.model_json_schema()
    properties = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": f"The file, with its name: {', '.join(FILE_KINDS)}.",
        },
        **schema["properties"],
    }
    properties["glossary"] = {
        "type": "string",
        "description": schema["properties"]["glossary"]["description"],
        "examples": ['{"settings": "Einstellungen"}'],
    }
    form = {"type": "object", "required": ["file"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _errors(*statuses: int, **more: str) -> dict[int | str, dict[str, Any]]:
    own = {int(name[1:]): text for name, text in more.items()}
    return {
        status: {**ERRORS[413], "description": own.get(status) or ERRORS[status]["description"]}
        for status in (*statuses, *own)
    }


UPLOAD_ERRORS = _errors(
    401,
    403,
    415,
    503,
    s400="The form cannot be read.",
    s408="The file takes too long to arrive.",
    s413="The file is too large, or has too many characters.",
    s422="A field is not valid, the file cannot be translated, or its languages are not served.",
    s429="Too many requests or files, or the quota is used up; Retry-After says when to come back.",
)
FIND_ERRORS = _errors(
    401,
    403,
    503,
    s404="There is no such file, or it is another key's.",
    s429="Too many wrong keys; Retry-After says when to come back.",
)


@router.post(
    UPLOAD_PATH,
    status_code=202,
    responses={
        202: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **UPLOAD_ERRORS,
    },
    openapi_extra=_upload_form(),
)
async def translate_file(
    request: Request, response: Response, access: AccessDep, jobs: JobsDep
) -> FileStatus:
    """Take a file to be translated; Location says where to ask how far it is."""
    key = await access.authenticate(request)
    async with receive_upload(request, jobs, access.client(request, key)) as file:
        try:
            body = FileRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(422, "invalid_request", message, field) from error
        glossary_of(body.glossary)
        ids = [body.glossary_id]
        terms = await with_stored_terms(request, body.glossary, ids, body.source, body.target)
        job = await submit_job(
            request,
            jobs,
            key,
            file,
            source=body.source,
            target=body.target,
            beam_size=body.beam_size,
            formality=body.formality,
            glossary=json.dumps(terms),
            replace=body.replace_translations,
        )
    response.headers["Location"] = f"/v1/files/{job.id}"
    return status_of(job, jobs)


@router.get("/v1/files/{id}", responses=FIND_ERRORS)
async def file_status(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> FileStatus:
    """How far a file is."""
    return status_of(find(request, id, access, jobs), jobs)


@router.get(
    "/v1/files/{id}/result",
    response_class=FileResponse,
    responses={
        200: {
            "description": "The translated file.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        **FIND_ERRORS,
        409: {**ERRORS[413], "description": "It is not done, or has failed."},
    },
)
async def file_result(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> FileResponse:
    """The translated file, once it is done."""
    return result_of(find(request, id, access, jobs), jobs)


@router.get(
    "/v1/files/{id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `status`, each with the file's status; the last one when it is "
            "done, has failed, or is deleted (`gone`).",
            "content": {"text/event-stream": {"example": 'event: status\ndata: {"id": "…"}\n\n'}},
        },
        **FIND_ERRORS,
    },
)
async def file_events(
    request: Request, id: str, access: AccessDep, jobs: JobsDep
) -> StreamingResponse:
    """Server-sent events: the file's status whenever it changes."""
    job = find(request, id, access, jobs)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(job, jobs), media_type="text/event-stream", headers=headers)


@router.delete("/v1/files/{id}", status_code=204, response_class=Response, responses=FIND_ERRORS)
async def delete_file(request: Request, id: str, access: AccessDep, jobs: JobsDep) -> Response:
    """Stop the work on a file, if it is not done, and delete all that there is of it."""
    await jobs.remove(find(request, id, access, jobs).id)
    return Response(status_code=204)


def find(request: Request, id: str, access: AccessDep, jobs: Jobs) -> Job:
    """The job of an id, if it is the key's. Raises ApiError 401, 403, 404."""
    key = access.key(request)
    job = jobs.find(id, key.id if key else None)
    if job is None:
        message = "there is no such file: it is deleted, has expired, or is another key's"
        raise ApiError(404, "not_found", message)
    return job


def result_of(job: Job, jobs: Jobs) -> FileResponse:
    """A job's translated file. Raises ApiError 404, 409."""
    if job.status == "failed":
        raise ApiError(409, "failed", f"the file could not be translated: {job.error_message}")
    if job.status != "done":
        message = f"the file is not translated yet ({job.progress:.0%}): ask again later"
        raise ApiError(409, "unfinished", message)
    path = jobs.folder.result(job.id)
    if not path.exists():
        raise ApiError(404, "not_found", "the file is deleted")
    return FileResponse(
        path,
        media_type=FILE_KINDS[job.kind].media_type,
        headers={"Content-Disposition": attachment(translated_name(job))},
    )


def status_of(job: Job, jobs: Jobs) -> FileStatus:
    """A job as clients see it."""
    left = jobs.seconds_left(job)
    error = None
    if job.error_code is not None:
        error = ErrorDetail(code=job.error_code, message=job.error_message or "")
    return FileStatus(
        id=job.id,
        status=job.status,
        name=job.name,
        source=job.source,
        target=job.target,
        detected=None
        if job.detected is None
        else Language(language=job.source, confidence=job.detected),
        progress=round(job.progress, 4),
        characters=job.characters,
        units=Units(done=job.units_done, total=job.units),
        warnings=job.warning_counts,
        unit_warnings=[UnitWarningItem(**asdict(one)) for one in job.named_warnings],
        eta_s=None if left is None else round(left, 1),
        created=_time(job.created),
        expires=None if job.is_over is False else _time(jobs.expires(job) or 0),
        error=error,
        result=f"/v1/files/{job.id}/result" if job.status == "done" else None,
    )


async def _events(job: Job, jobs: Jobs) -> AsyncIterator[str]:
    sent = ""
    while True:
        data = status_of(job, jobs).model_dump_json()
        if data != sent:
            yield f"event: status\ndata: {data}\n\n"
            sent = data
        if job.is_over:
            return
        await asyncio.sleep(POLL_S)
        current = jobs.find(job.id, job.owner)
        if current is None:
            yield "event: gone\ndata: {}\n\n"
            return
        job = current


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
