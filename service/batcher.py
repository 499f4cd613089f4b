"""Sentences of concurrent requests → batches, inside the process and without a timer.

A worker takes what waits as soon as it is free and translates it in a thread. A lone request
never waits for others; under load, batches grow by themselves. Each batch takes a share of every
waiting request, so that a long text does not hold up short ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from export.engines import TranslateOptions, Translation

TranslateBatch = Callable[[Sequence[str], TranslateOptions], list[Translation]]


class QueueFullError(Exception):
    """Too many sentences wait already: try again later."""


@dataclass(eq=False)
class _Job:
    """A request's sentences: which are next, and the translations so far."""

    sentences: Sequence[str]
    options: TranslateOptions
    future: asyncio.Future[list[Translation]]
    next: int = 0
    results: dict[int, Translation] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.sentences) - self.next

    def keep(self, results: dict[int, Translation]) -> None:
        """Add translations by row; the last ones answer the request."""
        self.results.update(results)
        if len(self.results) == len(self.sentences) and not self.future.done():
            self.future.set_result([self.results[row] for row in range(len(self.sentences))])


@dataclass(frozen=True)
class _Slice:
    """Some rows of a job, within a batch."""

    job: _Job
    rows: range

    @property
    def sentences(self) -> Sequence[str]:
        return self.job.sentences[self.rows.start : self.rows.stop]


class Batcher:
    """Runs `translate_batch` on what waits, `workers` batches at a time.

    `queue_size` bounds the sentences that wait; a single request larger than that is taken when
    nothing else waits. It belongs to the event loop of its first `submit`.
    """

    def __init__(
        self,
        translate_batch: TranslateBatch,
        *,
        workers: int = 1,
        max_batch_sentences: int = 64,
        queue_size: int = 512,
    ) -> None:
        self._translate_batch = translate_batch
        self._max_batch_sentences = max_batch_sentences
        self._queue_size = queue_size
        self._workers = workers
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="translate")

    @property
    def waiting(self) -> int:
        """Sentences that wait for a worker."""
        return sum(job.waiting for job in self._jobs if not job.future.done())

    async def submit(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        """Translate sentences, in order.

        Raises QueueFullError when too much waits, and whatever the engine raised for a batch with
        one of these sentences. Cancelling it drops what still waits.
        """
        if not sentences:
            return []
        waiting = self.waiting
        if waiting and waiting + len(sentences) > self._queue_size:
            raise QueueFullError(f"{waiting} sentences wait, {self._queue_size} may")
        self._start()
        job = _Job(sentences, options, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake.set()
        return await job.future

    async def close(self) -> None:
        """Stop the workers; who still waits gets a CancelledError."""
        for task in self._tasks:
            task.cancel()
        for job in self._jobs:
            job.future.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]

    async def _work(self) -> None:
        while True:
            slices = self._take()
            if not slices:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                await self._translate(slices)
            except Exception as error:
                await self._retry_alone(slices, error)

    async def _retry_alone(self, slices: list[_Slice], error: Exception) -> None:
        """After a failed batch: only the requests that fail by themselves get their error."""
        for part in slices:
            if len(slices) > 1:
                try:
                    await self._translate([part])
                    continue
                except Exception as own_error:
                    error = own_error
            if not part.job.future.done():
                part.job.future.set_exception(error)

    async def _translate(self, slices: list[_Slice]) -> None:
        sentences = [sentence for part in slices for sentence in part.sentences]
        results = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._translate_batch, sentences, slices[0].job.options
        )
        if len(results) != len(sentences):
            raise RuntimeError(f"{len(results)} translations for {len(sentences)} sentences")
        remaining = iter(results)
        for part in slices:
            part.job.keep({row: next(remaining) for row in part.rows})

    def _take(self) -> list[_Slice]:
        """The next batch: shares of the waiting jobs with the options of the first one."""
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        if not self._jobs:
            return []
        options = self._jobs[0].options
        alike = [job for job in self._jobs if job.options == options]
        chosen = sorted(alike[: self._max_batch_sentences], key=lambda job: job.waiting)
        room = self._max_batch_sentences
        slices = []
        for index, job in enumerate(chosen):  # what a short one leaves, the longer ones share
            count = min(job.waiting, room // (len(chosen) - index))
            slices.append(_Slice(job, range(job.next, job.next + count)))
            job.next += count
            room -= count
        taken = set(map(id, chosen))
        others = [job for job in self._jobs if id(job) not in taken]
        unfinished = [job for job in self._jobs if id(job) in taken and job.waiting]
        self._jobs = deque([*others, *unfinished])
        return slices
