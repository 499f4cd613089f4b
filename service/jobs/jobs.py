"""Files to translate as jobs: taken, worked on, found again, deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from service import metrics
from service.jobs.folder import JobsFolder
from service.jobs.readers import Readers
from service.jobs.reading import Reading
from service.jobs.runner import Runner
from service.jobs.store import Job, JobStore
from service.jobs.work import JobContext
from service.languages import AUTO
from service.settings import Settings
from service.translator import Translator

logger = logging.getLogger("quickstudy.service")

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
        metrics.watch_files(self._waiting)
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
            metrics.count_file(job.kind, "cancelled", time.time() - job.created)
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
        metrics.count_file(job.kind, job.status, job.ended - job.created)
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
