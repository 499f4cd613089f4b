"""Works on jobs, some at a time; they go on after a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

from service.batcher import ClosedError
from service.files import FileError
from service.hop import SearchError
from service.jobs.readers import FileLimitError
from service.jobs.store import Job
from service.jobs.work import JobContext, run_job
from service.models import LanguageError

logger = logging.getLogger("quickstudy.service")

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
