"""Forms batches from the sentences of concurrent requests, in the process and without a timer.

A worker takes what waits as soon as it is free and translates it in a thread. A lone request never
waits for others; under load, batches grow by themselves. `service/fair_queue.py` chooses what goes
into a batch and states how long a short request waits. `service/scheduler.py` puts requests in:

    request = QueuedRequest(sentences, batch_key, tokens)
    with batcher.queued(request):                # QueueFullError, ClosedError
        translation = await request.result(row)  # DeadlineError, ClosedError
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from export.runtime.engines import Translation, padded_tokens
from service.fair_queue import FairQueue, Priority, QueueEntry
from service.observability import BatchReport, BatchTimes, current_metrics

logger = logging.getLogger("quickstudy.service")

Key = TypeVar("Key", bound=Hashable)
"""What sentences must have in common to share a batch: a model and options, for example."""


class QueueFullError(Exception):
    """Too many sentences or tokens wait already: try again later."""


class DeadlineError(Exception):
    """The request was not translated in time."""


class ClosedError(Exception):
    """The service is stopping: ask another one, or try again later."""


class QueuedRequest(QueueEntry, Generic[Key]):
    """A request's sentences on their way through the queue, and the result of each.

    Args:
        sentences: What to translate.
        batch_key: What they must have in common with others to share a batch.
        tokens: Source tokens of each sentence.
        priority: Interactive or bulk.
        deadline: When the request fails, by the event loop's clock; None for never.

    Attributes:
        results: For each sentence its translation, the exception that the engine raised for it, or
            None while it is not translated.
        error: What ended the request early.
    """

    batch_key: Key

    def __init__(
        self,
        sentences: Sequence[str],
        batch_key: Key,
        tokens: Sequence[int],
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
    ) -> None:
        super().__init__(batch_key, list(map(padded_tokens, tokens)), priority)
        self.sentences = sentences
        self.deadline = deadline
        self.arrived = time.perf_counter()
        self.results: list[Translation | Exception | None] = [None] * len(sentences)
        self.error: Exception | None = None
        self.finished = asyncio.Event()
        self.metrics = current_metrics()
        self._pending = len(sentences)
        self._updated = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        """Whether no more results will come."""
        return self.error is not None or not self._pending

    def set_result(self, row: int, result: Translation | Exception) -> None:
        """Set the result of a sentence."""
        self.results[row] = result
        self._pending -= 1
        self._updated.set()
        if not self._pending:
            self.finished.set()

    def fail(self, error: Exception) -> None:
        """End the request with an error, unless it is finished."""
        if not self.is_finished:
            self.error = error
            self._updated.set()
            self.finished.set()

    async def result(self, row: int) -> Translation | Exception:
        """Wait for the result of a sentence. Raises the error that ended the request."""
        while (result := self.results[row]) is None:
            if self.error is not None:
                raise self.error
            self._updated.clear()
            await self._updated.wait()
        return result


class Batcher(Generic[Key]):
    """Runs `translate_batch` on what waits, `workers` batches at a time.

    A batch has at most `max_batch_tokens` padded source tokens and `max_batch_sentences`. At most
    `queue_sentences` and `queue_tokens` (padded) wait with each priority, but a single request
    larger than that is taken when nothing else waits. `on_batch` gets a report of each batch.
    A batcher belongs to the event loop of its first request.
    """

    def __init__(
        self,
        translate_batch: Callable[[Sequence[str], Key], list[Translation]],
        *,
        workers: int = 1,
        max_batch_tokens: int = 1024,
        max_batch_sentences: int = 64,
        queue_sentences: int = 512,
        queue_tokens: int = 16_384,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._translate_batch = translate_batch
        self._workers = workers
        self._queue_limits = (queue_sentences, queue_tokens)
        self._on_batch = on_batch
        self._queue = FairQueue[QueuedRequest[Key]](max_batch_tokens, max_batch_sentences)
        self._requests: set[QueuedRequest[Key]] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0
        self._closing = False
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="translate")

    @property
    def waiting(self) -> int:
        """Sentences that wait for a worker."""
        return self._queue.sentences

    @property
    def waiting_tokens(self) -> int:
        """Their padded tokens."""
        return self._queue.tokens

    @contextmanager
    def queued(self, request: QueuedRequest[Key]) -> Iterator[None]:
        """Keep a request in the queue; leaving drops what still waits.

        Raises QueueFullError when too much waits, and ClosedError when the service stops.
        """
        self._check_room(request)
        timer = None
        if request.sentences:
            self._requests.add(request)
            self._queue.put(request)
            if not self._tasks:
                self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
            self._wake.set()
            if request.deadline is not None:
                late = DeadlineError("not translated in time")
                loop = asyncio.get_running_loop()
                timer = loop.call_at(request.deadline, self._end, request, late)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            self._end(request, ClosedError("the request was given up"))

    async def close(self, grace_s: float = 0.0) -> None:
        """Refuse new requests, finish those in progress within `grace_s` seconds, and stop. The
        others get a ClosedError."""
        self._closing = True
        pending = [asyncio.create_task(one.finished.wait()) for one in self._requests]
        if pending and grace_s > 0:
            await asyncio.wait(pending, timeout=grace_s)
        for task in [*pending, *self._tasks]:
            task.cancel()
        for request in list(self._requests):
            self._end(request, ClosedError("the service is stopping: try again later"))
        await asyncio.gather(*pending, *self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_room(self, request: QueuedRequest[Key]) -> None:
        if self._closing:
            raise ClosedError("the service is stopping: try again later")
        waiting = self._queue.waiting(request.priority)
        if not waiting[0]:
            return
        for count, more, limit, unit in zip(
            waiting,
            (len(request.sentences), request.waiting_tokens),
            self._queue_limits,
            ("sentences", "padded tokens"),
            strict=True,
        ):
            if more and count + more > limit:
                raise QueueFullError(f"{count} {unit} wait, {limit} may: try again later")

    def _end(self, request: QueuedRequest[Key], error: Exception) -> None:
        """Free a request's places; if it is not finished, it fails with the error."""
        self._queue.drop(request)
        self._requests.discard(request)
        request.fail(error)

    async def _work(self) -> None:
        while True:
            batch = self._queue.take(free_workers=self._workers - self._busy)
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy += 1
            try:
                await self._translate(batch)
            except Exception as error:  # a worker that stops would leave everybody waiting
                logger.exception("a batch failed outside the engine")
                for request in batch:
                    self._end(request, error)
            finally:
                self._busy -= 1

    async def _translate(self, batch: dict[QueuedRequest[Key], list[int]]) -> None:
        """Translate a batch and report it."""
        begin = time.perf_counter()
        await self._translate_rows([(request, row) for request in batch for row in batch[request]])
        end = time.perf_counter()
        for request, rows in batch.items():
            if request.metrics is not None:
                request.metrics.add_batch(BatchTimes(len(rows), request.arrived, begin, end))
        self._on_batch(
            BatchReport(
                sentences=sum(map(len, batch.values())),
                padded_tokens=sum(
                    request.costs[row] for request in batch for row in batch[request]
                ),
                seconds=end - begin,
                waited=tuple((len(rows), begin - r.arrived) for r, rows in batch.items()),
            )
        )

    async def _translate_rows(self, rows: list[tuple[QueuedRequest[Key], int]]) -> None:
        """Translate sentences; after a failure each half by itself, down to the one that fails."""
        rows = [(request, row) for request, row in rows if not request.is_finished]
        if not rows:
            return
        sentences = [request.sentences[row] for request, row in rows]
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._translate_batch, sentences, rows[0][0].batch_key
            )
            if len(results) != len(sentences):
                raise RuntimeError(f"{len(results)} translations for {len(sentences)} sentences")
        except Exception as error:
            if len(rows) == 1:
                self._set_result(*rows[0], error)
                return
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                await self._translate_rows(half)
            return
        for (request, row), result in zip(rows, results, strict=True):
            self._set_result(request, row, result)

    def _set_result(
        self, request: QueuedRequest[Key], row: int, result: Translation | Exception
    ) -> None:
        if not request.is_finished:
            request.set_result(row, result)
            if request.is_finished:
                self._requests.discard(request)
