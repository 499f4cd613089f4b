"""Files that clients of any shape send: received, checked, charged, made into jobs."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from service.api.access import Access
from service.api.errors import ApiError
from service.api.work import CLIENT_GONE, as_api_errors, get_access, get_translator
from service.files import FileError
from service.jobs.jobs import Jobs, TooManyJobsError
from service.jobs.readers import BusyError, FileLimitError
from service.jobs.reading import FileTooLongError
from service.jobs.store import Job
from service.keys import ApiKey
from service.languages import AUTO
from service.settings import Settings
from service.translator import Translator

UPLOAD_S = 300.0
"""Seconds that a file may take to arrive."""
RETRY_S = 30
MAX_FIELDS = 20
MAX_NAME_CHARS = 120
UNSAFE = re.compile(r'[<>:"/\\|?*]')
"""What file names of some system must not have."""


async def get_jobs(request: Request) -> Jobs:
    """The app's jobs, at work. Raises ApiError 403 if files are turned off, 503 before the
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
    """A file that has come, with the other fields of its form."""

    name: str
    data: bytes
    fields: Mapping[str, Any]


@asynccontextmanager
async def receive_upload(
    request: Request, jobs: Jobs, client: str
) -> AsyncIterator[ReceivedUpload]:
    """A form with a file; room is kept for it as long as it is worked on.

    Raises ApiError: 400 for what is no form with a file, 408 if it takes too long, 413 for too
    large a file, 429 and 503 with Retry-After if there is no room.
    """
    settings: Settings = get_translator(request).settings
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else settings.max_file_bytes
    with _as_api_errors(), jobs.room_for(client, min(size, settings.max_file_bytes)):
        yield await _read(request, settings)


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
    is_shared: bool = False,
) -> Job:
    """Make a job of a file, charged to the key. `is_shared`: whoever has its id may ask for it.

    Raises ApiError: 413 for too much text, 422 for languages that are not served and files that
    cannot be translated, 429 over the quota, 503 if too many files are read.
    """
    translator: Translator = get_translator(request)
    door: Access = get_access(request)
    with as_api_errors(translator.settings), _as_api_errors():
        given = None if source == AUTO else source
        found, to = translator.models.pair(given, target)
        wanted = AUTO if source == AUTO else found
        reading = await jobs.read(file.name, file.data, wanted, to, translator)
    door.charge(key, reading.characters)
    job = Job(
        name=clean_name(file.name, reading.kind.extension),
        kind=reading.kind.extension,
        source=reading.source,
        target=to,
        characters=reading.characters,
        units=reading.units,
        bytes=len(file.data),
        client=door.client(request, key),
        owner=key.id if key else None,
        is_shared=is_shared,
        beam_size=beam_size,
        glossary=glossary,
        detected=reading.detected.confidence if reading.detected else None,
    )
    try:
        return await jobs.add(job, file.data)
    except BaseException:
        door.refund(key, reading.characters)
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


async def _read(request: Request, settings: Settings) -> ReceivedUpload:
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
        if not isinstance(file, UploadFile) or not file.filename:
            message = "`file` is required: send multipart/form-data with a file of that name in it"
            raise ApiError(422, "invalid_request", message, "file")
        if (file.size or 0) > settings.max_file_bytes:
            message = f"the file is larger than {settings.max_file_bytes} bytes: send it in parts"
            raise ApiError(413, "too_large", message, "file")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        return ReceivedUpload(file.filename, await file.read(), fields)
    finally:
        await form.close()


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
