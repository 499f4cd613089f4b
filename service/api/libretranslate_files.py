"""LibreTranslate's files: one request that waits for the job of `/v1/translate/file`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError

from service.api.errors import ApiError, explain
from service.api.files import result_of
from service.api.libretranslate import ERRORS, Code
from service.api.upload import JobsDep, receive_upload, submit_job
from service.api.work import AccessDep, TranslatorDep, within_limits
from service.languages import AUTO

router = APIRouter(tags=["LibreTranslate"])

UPLOAD_PATH = "/translate_file"


class LibreFileRequest(BaseModel):
    """What LibreTranslate's clients send with a file; other fields are not read."""

    source: Code = Field(description="Language of the file, or `auto`.", examples=["auto"])
    target: Code = Field(description="Language to translate to.", examples=["de"])
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
    request: Request, door: AccessDep, jobs: JobsDep, translator: TranslatorDep
) -> dict[str, str]:
    """Translate a file, in LibreTranslate's shape; the answer comes when it is done."""
    async with receive_upload(request, jobs, door.client(request, None)) as file:
        try:
            wanted = LibreFileRequest.model_validate(file.fields)
        except ValidationError as error:
            field, message = explain(error.errors()[0])
            raise ApiError(400, "invalid_request", message, field) from error
        key = await door.enter(request, wanted.api_key)
        job = await submit_job(
            request,
            jobs,
            key,
            file,
            source=AUTO if wanted.source.lower() == AUTO else wanted.source,
            target=wanted.target,
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
    address = request.url_for("download_file", id=job.id).replace(scheme=door.scheme(request))
    return {"translatedFileUrl": str(address)}


@router.get("/download_file/{id}", response_class=FileResponse, responses={404: ERRORS[400]})
async def download_file(id: str, jobs: JobsDep) -> FileResponse:
    """The file that the answer of `/translate_file` names; its address is all one needs."""
    job = jobs.find(id, None)
    if job is None:
        raise ApiError(404, "not_found", "there is no such file: it is deleted or has expired")
    return result_of(job, jobs)
