"""DeepL's documents, version 2: sent, asked for, downloaded; the jobs of `/v1/translate/file`."""

from __future__ import annotations

import hashlib
import hmac
import math
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError

from service.api.body import described, read_body
from service.api.deepl import ERRORS, Code, Formality, check_options
from service.api.errors import ApiError, explain
from service.api.files import find, result_of
from service.api.upload import JobsDep, receive_upload, submit_job
from service.api.work import AccessDep
from service.jobs.store import Job
from service.languages import AUTO

router = APIRouter(tags=["DeepL"], prefix="/v2")

UPLOAD_PATH = "/v2/document"
PATHS = (UPLOAD_PATH, "/v2/document/{id}", "/v2/document/{id}/result")
STATES = {"queued": "queued", "running": "translating", "done": "done", "failed": "error"}


class DocumentRequest(BaseModel):
    """What DeepL's clients send with a document; other fields are not read."""

    target_lang: Code = Field(examples=["DE"])
    source_lang: Code | None = Field(default=None, description="Detected if left out.")
    output_format: str | None = Field(default=None, description="The format that it has.")
    formality: Formality | None = None
    glossary_id: str | None = None


class KeyRequest(BaseModel):
    """The second secret of a document."""

    document_key: str = Field(max_length=200)


def _form() -> dict[str, Any]:
    schema = DocumentRequest.model_json_schema()
    file = {"type": "string", "format": "binary"}
    schema["properties"] = {"file": file, **schema["properties"]}
    schema["required"] = ["file", *schema["required"]]
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


@router.post("/document", responses=ERRORS, openapi_extra=_form())
async def upload(request: Request, door: AccessDep, jobs: JobsDep) -> dict[str, str]:
    """Take a document to be translated, in DeepL's shape."""
    key = await door.enter(request)
    async with receive_upload(request, jobs, door.client(request, key)) as file:
        try:
            wanted = DocumentRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(400, "invalid_request", message, field) from error
        check_options(wanted.glossary_id, wanted.formality)
        extension = file.name.rpartition(".")[2].lower()
        if wanted.output_format and wanted.output_format.lower() != extension:
            message = f"`output_format`: the format stays as it is, {extension}: leave it out"
            raise ApiError(400, "invalid_request", message, "output_format")
        source = wanted.source_lang or AUTO
        job = await submit_job(request, jobs, key, file, source=source, target=wanted.target_lang)
    return {"document_id": job.id, "document_key": _key(job)}


@router.post("/document/{id}", responses=ERRORS, openapi_extra=described(KeyRequest))
async def status(request: Request, id: str, door: AccessDep, jobs: JobsDep) -> dict[str, Any]:
    """How far a document is, in DeepL's shape."""
    job = await _document(request, id, door, jobs)
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
async def result(request: Request, id: str, door: AccessDep, jobs: JobsDep) -> FileResponse:
    """The translated document, once it is done."""
    return result_of(await _document(request, id, door, jobs), jobs)


async def _document(request: Request, id: str, door: AccessDep, jobs: JobsDep) -> Job:
    job = find(request, id, door, jobs)
    wanted = await read_body(request, KeyRequest)
    if not hmac.compare_digest(wanted.document_key.encode(), _key(job).encode()):
        raise ApiError(404, "not_found", "`document_key` is not this document's")
    return job


def _key(job: Job) -> str:
    return hashlib.sha256(f"document {job.id}".encode()).hexdigest()
