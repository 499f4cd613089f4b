"""The job queue: files are accepted, translated a few at a time, and deleted when they expire.

`run_job` translates one file, `Runner` runs the queued jobs, and `Jobs` is what the APIs use. Jobs
resume after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from service import observability
from service.batching import ClosedError, QueueFullError
from service.documents import FileError
from service.fair_queue import Priority
from service.jobs.reader import Reading, in_parts
from service.jobs.readers import (
    FileLimitError,
    Look,
    Readers,
    RebuiltFile,
    Translated,
    WorkItem,
)
from service.jobs.storage import Job, JobsFolder, JobStore, StoredTranslation, UnitDone
from service.languages import AUTO
from service.models import LanguageError
from service.pivot import SearchError, TranslatedText, TranslationRequest
from service.settings import Settings
from service.text.glossary import Glossary
from service.translator import Translator, all_or_none

logger = logging.getLogger("quickstudy.service")

GROUP_CHARS = 4000
GROUP_UNITS = 32
GROUPS_IN_FLIGHT = 2
"""The groups of a job's units in the translator at a time; they are lost in a crash."""
FILE_S = 120.0
"""Seconds to read a file, and to write its translation."""
TRIES = 3
PAUSE_S = 1.0
CONCURRENT_JOBS = 4
"""Jobs that run at a time, so a short file does not wait for a long one."""
MAX_STARTS = 3
"""A job is given up after the service has died during it this often without progress."""
READ_S = 30.0
"""Seconds to read an uploaded file."""
WAIT_S = 5.0
"""Seconds that it waits for a reader process."""
SWEEP_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class JobContext:
    """What running a job needs."""

    folder: JobsFolder
    store: JobStore
    readers: Readers
    translator: Translator


async def run_job(
    job: Job, context: JobContext, is_stopping: Callable[[], bool]
) -> RebuiltFile | None:
    """Translate the missing units of a job and write its result.

    Returns the result, None if the job was stopped. Raises FileError and
    FileLimitError for a file that cannot be translated after all, LanguageError and SearchError if
    the served models no longer support it, ClosedError when the service stops, and what the engine
    keeps raising for a group of units.
    """
    folder, readers, store = context.folder, context.readers, context.store
    data = await asyncio.to_thread(folder.source(job.id).read_bytes)
    if job.source == job.target:
        await asyncio.to_thread(folder.write_result, job.id, data)
        return RebuiltFile(data, {}, ())
    replaces = bool(job.replaces)
    items = await readers.units(data, job.kind, job.source, job.target, FILE_S, replace=replaces)
    translated = {digest async for page in _pages(store, job.id) for digest, _, _ in page}
    groups = _groups(item for item in items if item.digest not in translated)
    glossary = Glossary(job.terms)

    async def translate_groups() -> None:
        for group in groups:
            if is_stopping():
                return
            request = _translation_request(job, group, glossary)
            texts = await _translate_with_retry(request, context.translator)
            store.keep(job.id, [_unit_done(*pair) for pair in zip(group, texts, strict=True)])

    await all_or_none([translate_groups() for _ in range(GROUPS_IN_FLIGHT)])
    if is_stopping():
        return None

    async def translations() -> AsyncIterator[list[Translated]]:
        async for page in _pages(store, job.id):
            for part in in_parts(page, lambda row: len(row[1])):
                yield [(digest.hex(), text, warnings) for digest, text, warnings in part]

    result = await readers.rebuild(
        data, job.kind, job.source, job.target, translations, FILE_S, replace=replaces
    )
    await asyncio.to_thread(folder.write_result, job.id, result.data)
    return result


async def _pages(store: JobStore, id: str) -> AsyncIterator[list[StoredTranslation]]:
    """A job's translations in pages, so others are answered in between."""
    for page in store.pages(id):
        yield page
        await asyncio.sleep(0)


def _groups(items: Iterator[WorkItem]) -> Iterator[list[WorkItem]]:
    """Groups of units with one format, which are translated together."""
    group: list[WorkItem] = []
    chars = 0
    for item in items:
        chars += len(item.unit.text)
        is_full = len(group) == GROUP_UNITS or chars > GROUP_CHARS
        if group and (is_full or item.unit.format != group[0].unit.format):
            yield group
            group, chars = [], len(item.unit.text)
        group.append(item)
    if group:
        yield group


def _translation_request(
    job: Job, group: Sequence[WorkItem], glossary: Glossary
) -> TranslationRequest:
    return TranslationRequest(
        texts=[item.unit.text for item in group],
        source=job.source,
        target=job.target,
        format=group[0].unit.format,
        beam_size=job.beam_size,
        formality=job.formality,
        glossary=glossary,
        priority=Priority.BULK,
        translate_attributes=True,
    )


def _unit_done(item: WorkItem, translated: TranslatedText) -> UnitDone:
    return UnitDone(
        digest=item.digest,
        text=translated.text,
        characters=item.times * len(item.unit.text),
        units=item.times,
        warnings=[(warning.code, warning.message) for warning in translated.warnings],
    )


async def _translate_with_retry(
    request: TranslationRequest, translator: Translator
) -> Sequence[TranslatedText]:
    """Translate as soon as the queue has room; retry twice after an engine failure."""
    failures = 0
    while True:
        try:
            return (await translator.translate(request)).texts
        except QueueFullError:
            await asyncio.sleep(translator.settings.retry_after_s)
        except (LanguageError, SearchError, ClosedError):
            raise
        except Exception:
            failures += 1
            if failures == TRIES:
                raise
            logger.warning("units of a file failed: retrying")
            await asyncio.sleep(PAUSE_S)


class Runner:
    """Runs the queued jobs: clients take turns, the oldest job first.

    `on_end` is called with each job that is done or has failed. A runner belongs to the running
    event loop.
    """

    def __init__(self, context: JobContext, on_end: Callable[[Job], None]) -> None:
        self._context = context
        self._store = context.store
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._client_of: dict[str, str] = {}
        self._starts: dict[str, tuple[float, int]] = {}
        self._stopping = False

    def wake(self) -> None:
        """Start jobs while there is room."""
        while not self._stopping and len(self._tasks) < CONCURRENT_JOBS:
            job = self._next()
            if job is None:
                return
            self._store.begin(job.id)
            self._client_of[job.id] = job.client
            self._starts[job.id] = (time.monotonic(), job.characters_done)
            self._tasks[job.id] = asyncio.create_task(self._run(job))

    def seconds_left(self, job: Job) -> float | None:
        """How long a running job may still take, by its speed so far; None if unknown."""
        if job.id not in self._starts:
            return None
        started, done_before = self._starts[job.id]
        done = job.characters_done - done_before
        if not done:
            return None
        return (job.characters - job.characters_done) * (time.monotonic() - started) / done

    async def cancel(self, id: str) -> None:
        """Stop a job, and wait until it has ended."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def close(self, grace_s: float) -> None:
        """Start no more jobs; what is translated within `grace_s` seconds is kept."""
        self._stopping = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self) -> Job | None:
        """The oldest job of the client with the fewest running jobs."""
        running = Counter(self._client_of.values())
        queued = [job for job in self._store.with_status("queued") if job.id not in self._tasks]
        return min(queued, key=lambda job: (running[job.client], job.created), default=None)

    async def _run(self, job: Job) -> None:
        try:
            if job.starts >= MAX_STARTS:
                logger.error("a file ended the service %d times: given up", job.starts)
                self._fail(job, "internal", "the service broke off on this file several times")
            else:
                await self._translate(job)
        except Exception:
            logger.exception("translating a file failed")
            self._fail(job, "internal", "the service failed on this file: see its log")
        finally:
            for of_job in (self._tasks, self._client_of, self._starts):
                of_job.pop(job.id, None)
            if not self._stopping:
                self.wake()

    async def _translate(self, job: Job) -> None:
        try:
            result = await run_job(job, self._context, lambda: self._stopping)
        except (FileError, FileLimitError) as error:
            self._fail(job, "bad_file", str(error))
        except LanguageError as error:
            self._fail(job, "unsupported_language", str(error))
        except SearchError as error:
            self._fail(job, error.code, str(error))
        except (ClosedError, asyncio.CancelledError):
            self._store.pause(job.id)
        else:
            if result is None:
                self._store.pause(job.id)
            else:
                self._store.finish(job.id, len(result.data), result.counts, result.warnings)
                self._report_end(job)

    def _fail(self, job: Job, code: str, message: str) -> None:
        self._context.folder.remove(job.id)
        self._store.fail(job.id, code, message)
        self._report_end(job)

    def _report_end(self, job: Job) -> None:
        ended = self._store.find(job.id)
        if ended is not None:
            self._on_end(ended)


class TooManyJobsError(Exception):
    """Too many files wait, or they take too much room. `of_client`: they are the same client's."""

    def __init__(self, message: str, of_client: bool = False) -> None:
        super().__init__(message)
        self.of_client = of_client


class Jobs:
    """All jobs of a service. `refund(key id, characters, requests)` refunds what was charged but
    not translated."""

    def __init__(self, settings: Settings, refund: Callable[[int, int, int], None]) -> None:
        self._settings = settings
        self._refund = refund
        self._uploading: Counter[str] = Counter()
        self._reserved = 0
        self._runner: Runner | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._scrubbing: set[asyncio.Future[None]] = set()
        self._is_open = False

    @cached_property
    def folder(self) -> JobsFolder:
        """The folder, locked at the first use. Raises JobsFolderError."""
        self._is_open = True
        return JobsFolder(self._settings.jobs_dir)

    @cached_property
    def store(self) -> JobStore:
        """The database in the folder. Raises JobsFolderError."""
        store = JobStore(self.folder.database)
        store.requeue()
        self.folder.remove_others(store.ids())
        observability.watch_files(self._waiting)
        return store

    @cached_property
    def readers(self) -> Readers:
        """The reader processes."""
        return Readers(self._settings.file_memory_bytes)

    def start(self, translator: Translator) -> None:
        """Run jobs in the running event loop, unless they run already."""
        if self._runner is None:
            context = JobContext(self.folder, self.store, self.readers, translator)
            self._runner = Runner(context, self._on_end)
            self._sweeper = asyncio.create_task(self._sweep())
            self._runner.wake()

    @contextmanager
    def room_for(self, client: str, size: int) -> Iterator[None]:
        """Keep room for a file of this many bytes that a client is sending.

        Raises TooManyJobsError.
        """
        settings = self._settings
        waiting = self.store.with_status("queued", "running")
        of_client = sum(job.client == client for job in waiting) + self._uploading[client]
        if of_client >= settings.max_client_jobs:
            raise TooManyJobsError(f"{of_client} of your files wait: let some be done first", True)
        if len(waiting) + self._uploading.total() >= settings.max_jobs:
            raise TooManyJobsError("too many files wait: try again later")
        if self.store.bytes_kept() + self._reserved + 2 * size > settings.jobs_bytes:
            raise TooManyJobsError("there is no room for more files: try again later")
        self._uploading[client] += 1
        self._reserved += 2 * size
        try:
            yield
        finally:
            self._reserved -= 2 * size
            self._uploading[client] -= 1
            if not self._uploading[client]:
                del self._uploading[client]

    async def read(
        self,
        name: str,
        data: bytes,
        source: str,
        target: str,
        translator: Translator,
        *,
        replace: bool = False,
    ) -> Reading:
        """Find out a file's kind, language and size; `source` may be `auto`. `replace` also counts
        what has a translation.

        Raises FileError, FileTooLongError, FileLimitError, BusyError.
        """

        async def look_at(source: str) -> Look:
            max_chars = self._settings.max_file_chars
            return await self.readers.look(
                name, data, source, target, max_chars, READ_S, WAIT_S, replace=replace
            )

        look = await look_at(source)
        detected = None
        if source == AUTO:
            detected = await asyncio.to_thread(translator.choose_source, look.sample, target)
            source = detected.language
            if source != target:
                look = await look_at(source)
        return Reading(look.kind, source, look.characters, look.units, detected)

    async def add(self, job: Job, data: bytes) -> Job:
        """Store a file and queue its job."""
        assert self._runner is not None, "jobs are not started"
        job = replace(job, id=self.store.new_id(), bytes=len(data))
        await asyncio.to_thread(self.folder.write_source, job.id, data)
        job = self.store.add(job)
        self._runner.wake()
        return job

    def find(self, id: str, owner: int | None) -> Job | None:
        """A job that this owner may access and that has not expired; None if there is none."""
        job = self.store.find(id)
        if job is None or not (job.is_shared or job.owner in (None, owner)):
            return None
        if job.ended is not None and job.ended + self._settings.job_retention_s < time.time():
            return None
        return job

    async def wait(self, id: str) -> Job | None:
        """Wait until a job is done or has failed; None if it is deleted before."""
        job = self.store.find(id)
        while job is not None and not job.is_over:
            await asyncio.sleep(POLL_S)
            job = self.store.find(id)
        return job

    def expires(self, job: Job) -> float | None:
        """When an ended job is deleted (Unix time)."""
        return None if job.ended is None else job.ended + self._settings.job_retention_s

    def seconds_left(self, job: Job) -> float | None:
        """How long a running job may still take; None if that is unknown."""
        return self._runner.seconds_left(job) if self._runner else None

    async def remove(self, id: str) -> None:
        """Stop a job and delete everything of it; what was not translated is refunded."""
        job = self.store.find(id)
        self.store.remove(id)  # before its work ends, so that it does not begin again
        if self._runner is not None:
            await self._runner.cancel(id)
        if job is not None and not job.is_over:
            self._refund_key(job, job.characters - job.characters_done, 0)
            observability.count_file(job.kind, "cancelled", time.time() - job.created)
        await asyncio.to_thread(self._delete, [id])

    async def close(self) -> None:
        """Stop, and release the folder. Unfinished jobs resume at the next start if the folder is
        permanent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._runner is not None:
            await self._runner.close(self._settings.shutdown_grace_s)
        await asyncio.gather(*self._scrubbing, return_exceptions=True)
        if self._is_open:
            self._is_open = False
            await self.readers.close()
            self.store.close()
            self.folder.close()

    def _on_end(self, job: Job) -> None:
        assert job.ended is not None
        observability.count_file(job.kind, job.status, job.ended - job.created)
        if job.status == "failed":
            self._refund_key(job, job.characters, 1)
        scrubbing = asyncio.ensure_future(asyncio.to_thread(self.store.scrub, [job.id]))
        self._scrubbing.add(scrubbing)
        scrubbing.add_done_callback(self._on_scrubbed)

    def _refund_key(self, job: Job, characters: int, requests: int) -> None:
        if job.owner is not None:
            self._refund(job.owner, characters, requests)

    def _waiting(self) -> int:
        return len(self.store.with_status("queued", "running")) if self._is_open else 0

    async def _sweep(self) -> None:
        """Delete expired jobs, from time to time."""
        retention_s = self._settings.job_retention_s
        while True:
            try:
                expired = [job.id for job in self.store.ended_before(time.time() - retention_s)]
                for id in expired:
                    self.store.remove(id)
                if expired:
                    await asyncio.to_thread(self._delete, expired)
            except Exception:
                logger.exception("expired files could not be deleted: trying again later")
            await asyncio.sleep(min(SWEEP_S, max(0.2, retention_s / 2)))

    def _delete(self, ids: list[str]) -> None:
        for id in ids:
            self.folder.remove(id)
        self.store.scrub(ids)

    def _on_scrubbed(self, scrubbing: asyncio.Future[None]) -> None:
        self._scrubbing.discard(scrubbing)
        if not scrubbing.cancelled() and (error := scrubbing.exception()):
            logger.error("translations could not be deleted before the next start: %s", error)
