"""Files to translate as jobs: taken, worked on, found again, deleted.

Works on jobs, some at a time; they go on after a restart.

One job: its file read, what is not translated yet translated, the result put together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from service import observability
from service.batching import ClosedError, QueueFullError
from service.documents import FileError
from service.fair_queue import Priority
from service.jobs.protocol import Reading, in_parts
from service.jobs.readers import FileLimitError, Readers, WorkItem
from service.jobs.storage import Job, JobsFolder, JobStore, UnitDone
from service.languages import AUTO
from service.models import LanguageError
from service.pivot import SearchError
from service.settings import Settings
from service.text import Glossary
from service.translator import Translator
from service.types import TranslatedText, TranslationRequest

logger = logging.getLogger("quickstudy.service")

GROUP_CHARS = 4000
GROUP_UNITS = 32
GROUPS_IN_FLIGHT = 2
"""What is asked of the translator at a time for a job; more may be asked twice after a crash."""
FILE_S = 120.0
"""Seconds to read a file, and to put it together."""
TRIES = 3
PAUSE_S = 1.0


@dataclass(frozen=True)
class JobContext:
    """What a job's work needs."""

    folder: JobsFolder
    store: JobStore
    readers: Readers
    translator: Translator


async def run_job(job: Job, tools: JobContext, is_stopping: Callable[[], bool]) -> int | None:
    """Translate what a job lacks and write its result; its size in bytes, None if it was stopped.

    Raises FileError and FileLimitError for a file that cannot be translated after all,
    LanguageError and SearchError if what is served no longer does it, ClosedError when the service
    stops, and whatever the engine raises again and again for a group of units.
    """
    folder, readers, store = tools.folder, tools.readers, tools.store
    data = await asyncio.to_thread(folder.source(job.id).read_bytes)
    if job.source == job.target:
        await asyncio.to_thread(folder.write_result, job.id, data)
        return len(data)
    pieces = await readers.units(data, job.kind, job.source, job.target, FILE_S)
    known = {digest async for page in _pages(store, job.id) for digest, _ in page}
    groups = _groups(piece for piece in pieces if piece.digest not in known)
    glossary = Glossary(job.terms)

    async def translate_groups() -> None:
        for group in groups:
            if is_stopping():
                return
            found = await _patiently(_order(job, group, glossary), tools.translator)
            store.keep(job.id, [_done(*pair) for pair in zip(group, found, strict=True)])

    await _all_or_none([translate_groups() for _ in range(GROUPS_IN_FLIGHT)])
    if is_stopping():
        return None

    async def translations() -> AsyncIterator[list[tuple[str, str]]]:
        async for page in _pages(store, job.id):
            for part in in_parts(page, lambda row: len(row[1])):
                yield [(digest.hex(), text) for digest, text in part]

    result = await readers.rebuild(data, job.kind, job.source, job.target, translations, FILE_S)
    await asyncio.to_thread(folder.write_result, job.id, result)
    return len(result)


async def _pages(store: JobStore, id: str) -> AsyncIterator[list[tuple[bytes, str]]]:
    """A job's translations, some at a time, so that others are answered in between."""
    for page in store.pages(id):
        yield page
        await asyncio.sleep(0)


def _groups(pieces: Iterator[WorkItem]) -> Iterator[list[WorkItem]]:
    """Units of one format that go to the translator together."""
    group: list[WorkItem] = []
    chars = 0
    for piece in pieces:
        chars += len(piece.unit.text)
        is_full = len(group) == GROUP_UNITS or chars > GROUP_CHARS
        if group and (is_full or piece.unit.format != group[0].unit.format):
            yield group
            group, chars = [], len(piece.unit.text)
        group.append(piece)
    if group:
        yield group


def _order(job: Job, group: Sequence[WorkItem], glossary: Glossary) -> TranslationRequest:
    return TranslationRequest(
        texts=[piece.unit.text for piece in group],
        source=job.source,
        target=job.target,
        format=group[0].unit.format,
        beam_size=job.beam_size,
        glossary=glossary,
        priority=Priority.BULK,
    )


def _done(piece: WorkItem, found: TranslatedText) -> UnitDone:
    return UnitDone(
        digest=piece.digest,
        text=found.text,
        characters=piece.times * len(piece.unit.text),
        units=piece.times,
        warnings=[notice.code for notice in found.warnings],
    )


async def _patiently(order: TranslationRequest, translator: Translator) -> Sequence[TranslatedText]:
    """Translate, as soon as the queue has room; after a failure of the engine try again, twice."""
    failures = 0
    while True:
        try:
            return (await translator.translate(order)).texts
        except QueueFullError:
            await asyncio.sleep(translator.settings.retry_after_s)
        except (LanguageError, SearchError, ClosedError):
            raise
        except Exception:
            failures += 1
            if failures == TRIES:
                raise
            logger.warning("units of a file failed, trying again")
            await asyncio.sleep(PAUSE_S)


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at the same time; the first that fails cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


AT_ONCE = 4
"""Jobs that are worked on at a time: a short file does not wait for a long one."""
MAX_STARTS = 3
"""A job during which the service dies so often, without a unit more, is given up."""


class Runner:
    """Begins the jobs that are queued, in turns by client, the oldest first.

    `on_end` is told of each job that is over. It belongs to the running event loop.
    """

    def __init__(self, tools: JobContext, on_end: Callable[[Job], None]) -> None:
        self._tools = tools
        self._store = tools.store
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._client_of: dict[str, str] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._stopping = False

    def wake(self) -> None:
        """Begin what there is room for."""
        while not self._stopping and len(self._tasks) < AT_ONCE:
            job = self._next()
            if job is None:
                return
            self._store.begin(job.id)
            self._client_of[job.id] = job.client
            self._begun[job.id] = (time.monotonic(), job.characters_done)
            self._tasks[job.id] = asyncio.create_task(self._work(job))

    def seconds_left(self, job: Job) -> float | None:
        """How long a running job may still take, judged by how fast it was; None if unknown."""
        if job.id not in self._begun:
            return None
        begun, before = self._begun[job.id]
        done = job.characters_done - before
        if not done:
            return None
        return (job.characters - job.characters_done) * (time.monotonic() - begun) / done

    async def cancel(self, id: str) -> None:
        """Stop the work on a job, and wait for its end."""
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def close(self, grace_s: float) -> None:
        """Begin nothing more; what is translated within `grace_s` seconds is kept."""
        self._stopping = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self) -> Job | None:
        """Of the client with the fewest running jobs, the oldest."""
        running = Counter(self._client_of.values())
        queued = [job for job in self._store.with_status("queued") if job.id not in self._tasks]
        return min(queued, key=lambda job: (running[job.client], job.created), default=None)

    async def _work(self, job: Job) -> None:
        try:
            if job.starts >= MAX_STARTS:
                logger.error("a file ended the service %d times: given up", job.starts)
                self._fail(job, "internal", "the service broke off on this file several times")
            else:
                await self._translate(job)
        except Exception:
            logger.exception("work on a file failed")
            self._fail(job, "internal", "the service failed on this file: see its log")
        finally:
            for of_job in (self._tasks, self._client_of, self._begun):
                of_job.pop(job.id, None)
            if not self._stopping:
                self.wake()

    async def _translate(self, job: Job) -> None:
        try:
            result_bytes = await run_job(job, self._tools, lambda: self._stopping)
        except (FileError, FileLimitError) as error:
            self._fail(job, "bad_file", str(error))
        except LanguageError as error:
            self._fail(job, "unsupported_language", str(error))
        except SearchError as error:
            self._fail(job, "unsupported_search", str(error))
        except (ClosedError, asyncio.CancelledError):
            self._store.pause(job.id)
        else:
            if result_bytes is None:
                self._store.pause(job.id)
            else:
                self._store.finish(job.id, result_bytes)
                self._tell(job)

    def _fail(self, job: Job, code: str, message: str) -> None:
        self._tools.folder.remove(job.id)
        self._store.fail(job.id, code, message)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        ended = self._store.find(job.id)
        if ended is not None:
            self._on_end(ended)


READ_S = 30.0
"""Seconds to read a file that has come."""
WAIT_S = 5.0
"""Seconds that it waits for a process to be read in."""
SWEEP_S = 60.0
POLL_S = 0.1


class TooManyJobsError(Exception):
    """Too many files wait, or too much room is taken. `of_client`: by the same client."""

    def __init__(self, message: str, of_client: bool = False) -> None:
        super().__init__(message)
        self.of_client = of_client


class Jobs:
    """All jobs of a service. `refund(key id, characters, requests)` gives back what was charged and
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
        """The folder, taken at the first use. Raises JobsFolderError."""
        self._is_open = True
        return JobsFolder(self._settings.jobs_dir)

    @cached_property
    def store(self) -> JobStore:
        """The jobs in it. Raises JobsFolderError."""
        store = JobStore(self.folder.database)
        store.requeue()
        self.folder.remove_others(store.ids())
        observability.watch_files(self._waiting)
        return store

    @cached_property
    def readers(self) -> Readers:
        """The processes that read files."""
        return Readers(self._settings.file_memory_bytes)

    def start(self, translator: Translator) -> None:
        """Work on what there is, in the running event loop; nothing happens if it does already."""
        if self._runner is None:
            tools = JobContext(self.folder, self.store, self.readers, translator)
            self._runner = Runner(tools, self._ended)
            self._sweeper = asyncio.create_task(self._sweep())
            self._runner.wake()

    @contextmanager
    def room_for(self, client: str, size: int) -> Iterator[None]:
        """Keep room for a file of so many bytes that a client is sending.

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
        self, name: str, data: bytes, source: str, target: str, translator: Translator
    ) -> Reading:
        """See what a file is; `source` may be `auto`, else the pair must be a served one.

        Raises FileError, FileTooLongError, FileLimitError, BusyError.
        """
        max_chars = self._settings.max_file_chars
        look = await self.readers.look(name, data, source, target, max_chars, READ_S, WAIT_S)
        detected = None
        if source == AUTO:
            detected = await asyncio.to_thread(translator.choose_source, look.sample, target)
            source = detected.language
            if source != target:
                look = await self.readers.look(
                    name, data, source, target, max_chars, READ_S, WAIT_S
                )
        return Reading(look.kind, source, look.characters, look.units, detected)

    async def add(self, job: Job, data: bytes) -> Job:
        """Take a file: it is on the disk, and will be translated."""
        assert self._runner is not None, "jobs are not started"
        job = replace(job, id=self.store.new_id(), bytes=len(data))
        await asyncio.to_thread(self.folder.write_source, job.id, data)
        job = self.store.add(job)
        self._runner.wake()
        return job

    def find(self, id: str, owner: int | None) -> Job | None:
        """A job that is this owner's, or anybody's, and has not expired."""
        job = self.store.find(id)
        if job is None or not (job.is_shared or job.owner in (None, owner)):
            return None
        if job.ended is not None and job.ended + self._settings.jobs_keep_s < time.time():
            return None
        return job

    async def wait(self, id: str) -> Job | None:
        """A job when it is over; None if it is deleted before."""
        job = self.store.find(id)
        while job is not None and not job.is_over:
            await asyncio.sleep(POLL_S)
            job = self.store.find(id)
        return job

    def expires(self, job: Job) -> float | None:
        """When an ended job is deleted (Unix time)."""
        return None if job.ended is None else job.ended + self._settings.jobs_keep_s

    def seconds_left(self, job: Job) -> float | None:
        """How long a running job may still take; None if that is unknown."""
        return self._runner.seconds_left(job) if self._runner else None

    async def remove(self, id: str) -> None:
        """Stop a job and delete all that there is of it; what was not translated is given back."""
        job = self.store.find(id)
        self.store.remove(id)  # before its work ends, so that it does not begin again
        if self._runner is not None:
            await self._runner.cancel(id)
        if job is not None and not job.is_over:
            self._give_back(job, job.characters - job.characters_done, 0)
            observability.count_file(job.kind, "cancelled", time.time() - job.created)
        await asyncio.to_thread(self._delete, [id])

    async def close(self) -> None:
        """Stop, and let go of the folder; what is not done goes on at the next start, if the
        folder lasts."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._runner is not None:
            await self._runner.close(self._settings.grace_s)
        await asyncio.gather(*self._scrubbing, return_exceptions=True)
        if self._is_open:
            self._is_open = False
            await self.readers.close()
            self.store.close()
            self.folder.close()

    def _ended(self, job: Job) -> None:
        assert job.ended is not None
        observability.count_file(job.kind, job.status, job.ended - job.created)
        if job.status == "failed":
            self._give_back(job, job.characters, 1)
        scrubbing = asyncio.ensure_future(asyncio.to_thread(self.store.scrub, [job.id]))
        self._scrubbing.add(scrubbing)
        scrubbing.add_done_callback(self._scrubbed)

    def _give_back(self, job: Job, characters: int, requests: int) -> None:
        if job.owner is not None:
            self._refund(job.owner, characters, requests)

    def _waiting(self) -> int:
        return len(self.store.with_status("queued", "running")) if self._is_open else 0

    async def _sweep(self) -> None:
        """Delete what has expired, again and again."""
        keep_s = self._settings.jobs_keep_s
        while True:
            try:
                expired = [job.id for job in self.store.ended_before(time.time() - keep_s)]
                for id in expired:
                    self.store.remove(id)
                if expired:
                    await asyncio.to_thread(self._delete, expired)
            except Exception:
                logger.exception("expired files could not be deleted: trying again later")
            await asyncio.sleep(min(SWEEP_S, max(0.2, keep_s / 2)))

    def _delete(self, ids: list[str]) -> None:
        for id in ids:
            self.folder.remove(id)
        self.store.scrub(ids)

    def _scrubbed(self, scrubbing: asyncio.Future[None]) -> None:
        self._scrubbing.discard(scrubbing)
        if not scrubbing.cancelled() and (error := scrubbing.exception()):
            logger.error("translations could not be deleted before the next start: %s", error)
