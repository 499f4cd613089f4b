"""Sentences of concurrent requests → batches, inside the process and without a timer.

A worker takes what waits as soon as it is free and translates it in a thread. A lone request
never waits for others; under load, batches grow by themselves. `service/fair_queue.py` chooses what
goes into a batch and states how long a short request waits.

`service/translator.py` makes one `Pipeline` (`service/scheduler.py`) for all models and endpoints,
which joins this queue with the cache and with second tries, and takes from here only the errors:

    pipeline = Pipeline(settings)
    found = await pipeline.translate(model, sentences, options, priority=…, within_s=…)
    async with pipeline.stream(model, sentences, options) as outcomes:  # QueueFullError: here
        async for one in outcomes: …                                    # in order, as it is ready
    await pipeline.close(settings.grace_s)

A request in the queue: its sentences, and what is known of each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from export.runtime.engines import Translation, padded_tokens
from service.fair_queue import FairQueue, Priority, QueuedJob, Slice
from service.request_context import BatchTimes, RequestMetrics, current_metrics


@dataclass(eq=False)
class QueuedRequest:
    """A request's sentences and what is known of each: a translation or what went wrong.

    `since`: when it came, by `time.perf_counter`; `left`: sentences without a result; `end`: what
    ended it before its time; `news` is set with each result, `over` at the end; `record` counts.
    """

    sentences: Sequence[str]
    kind: Any
    job: QueuedJob
    since: float
    results: list[Translation | Exception | None] = field(init=False)
    left: int = field(init=False)
    end: Exception | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    record: RequestMetrics | None = field(default_factory=current_metrics)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.sentences)
        self.left = len(self.sentences)

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or not self.left

    def keep(self, row: int, result: Translation | Exception) -> None:
        """Keep what came of a sentence."""
        self.results[row] = result
        self.left -= 1
        self.news.set()
        if not self.left:
            self.over.set()

    def fail(self, error: Exception) -> None:
        """End the request, if it has not ended."""
        if not self.done:
            self.end = error
            self.news.set()
            self.over.set()

    async def result(self, row: int) -> Translation | Exception:
        """Wait for a sentence's translation. Raises what ended the request."""
        while (result := self.results[row]) is None:
            if self.end is not None:
                raise self.end
            self.news.clear()
            await self.news.wait()
        return result


@dataclass(frozen=True)
class QueuedSentence:
    """A sentence in a batch."""

    request: QueuedRequest
    row: int

    @property
    def sentence(self) -> str:
        return self.request.sentences[self.row]


async def in_order(request: QueuedRequest) -> AsyncIterator[Translation | Exception]:
    """What came of each sentence, as soon as it is known. Raises what ended the request."""
    for row in range(len(request.sentences)):
        yield await request.result(row)


logger = logging.getLogger("quickstudy.service")

Kind = TypeVar("Kind", bound=Hashable)
"""What sentences must have in common to share a batch: a model and options, say."""
COUNT_IN_THREAD_ABOVE = 2000
"""Characters of a request's sentences above which their tokens are counted off the event loop."""


class QueueFullError(Exception):
    """Too many sentences or tokens wait already: try again later."""


class DeadlineError(Exception):
    """The request was not translated within its time."""


class ClosedError(Exception):
    """The service is stopping: ask another one, or try again later."""


@dataclass(frozen=True)
class BatchReport:
    """A batch that was translated: its size, seconds, and for each request's part in it
    (sentences, seconds that they waited)."""

    sentences: int
    padded_tokens: int
    seconds: float
    waited: tuple[tuple[int, float], ...]


class Batcher(Generic[Kind]):
    """Runs `translate_batch` on what waits, `workers` batches at a time.

    `count_tokens` is called once a sentence. A batch has at most `max_batch_tokens` padded source
    tokens and `max_batch_sentences`; at most `queue_sentences` and `queue_tokens` (padded) wait
    with each priority, but a single request larger than that is taken when nothing else does.
    `on_batch` is told of each batch. It belongs to the event loop of its first request.
    """

    def __init__(
        self,
        translate_batch: Callable[[Sequence[str], Kind], list[Translation]],
        count_tokens: Callable[[str, Kind], int],
        *,
        workers: int = 1,
        max_batch_tokens: int = 1024,
        max_batch_sentences: int = 64,
        queue_sentences: int = 512,
        queue_tokens: int = 16_384,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._translate_batch = translate_batch
        self._count_tokens = count_tokens
        self._workers = workers
        self._queue_limits = (queue_sentences, queue_tokens)
        self._on_batch = on_batch
        self._queue = FairQueue(max_batch_tokens, max_batch_sentences)
        self._requests: dict[QueuedJob, QueuedRequest] = {}
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

    async def submit(
        self,
        sentences: Sequence[str],
        kind: Kind,
        *,
        tokens: Sequence[int] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
    ) -> list[Translation]:
        """Translate sentences, in order. `tokens` of each, if they are known already.

        Raises QueueFullError when too much waits, DeadlineError when `within_s` seconds are over,
        ClosedError when the service stops, and what the engine raises for the first of these
        sentences that it fails at. Cancelling it drops what still waits.
        """
        translations = []
        stream = self.stream(sentences, kind, tokens=tokens, priority=priority, within_s=within_s)
        async with stream as found:
            async for one in found:
                if isinstance(one, Exception):
                    raise one
                translations.append(one)
        return translations

    @asynccontextmanager
    async def stream(
        self,
        sentences: Sequence[str],
        kind: Kind,
        *,
        tokens: Sequence[int] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
    ) -> AsyncIterator[AsyncIterator[Translation | Exception]]:
        """Each sentence's translation, in order, as soon as it and those before it are ready; or
        the exception that the engine raises for it, which does not touch the others.

        Entering raises QueueFullError and ClosedError, iterating DeadlineError and ClosedError.
        Leaving drops what still waits.
        """
        started = asyncio.get_running_loop().time()
        request = await self._admit(sentences, kind, tokens, priority)
        timer = None
        if within_s is not None:
            timer = asyncio.get_running_loop().call_at(
                started + within_s,
                self._end,
                request,
                DeadlineError(f"not translated within {within_s:g} seconds"),
            )
        try:
            yield in_order(request)
        finally:
            if timer:
                timer.cancel()
            self._end(request, ClosedError("the request was given up"))

    async def translate_one(
        self,
        sentence: str,
        kind: Kind,
        *,
        tokens: int,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
    ) -> Translation | Exception:
        """A sentence's translation, or the exception that the engine raises for it; raises as
        `submit`. The short way of `stream`, which most requests take."""
        request = await self._admit([sentence], kind, [tokens], priority)
        try:
            if within_s is None:
                return await request.result(0)
            async with asyncio.timeout(within_s):
                return await request.result(0)
        except TimeoutError:
            raise DeadlineError(f"not translated within {within_s:g} seconds") from None
        finally:
            self._end(request, ClosedError("the request was given up"))

    async def close(self, grace_s: float = 0.0) -> None:
        """Refuse new requests, finish those that are here within `grace_s` seconds, and stop. Who
        waits longer gets a ClosedError."""
        self._closing = True
        pending = [asyncio.create_task(one.over.wait()) for one in self._requests.values()]
        if pending and grace_s > 0:
            await asyncio.wait(pending, timeout=grace_s)
        for task in [*pending, *self._tasks]:
            task.cancel()
        for request in list(self._requests.values()):
            self._end(request, ClosedError("the service is stopping: try again later"))
        await asyncio.gather(*pending, *self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def count(self, sentences: Sequence[str], kind: Kind) -> list[int]:
        """Tokens of each sentence; those of long texts are counted off the event loop."""

        def count_all() -> list[int]:
            return [self._count_tokens(sentence, kind) for sentence in sentences]

        if sum(map(len, sentences)) > COUNT_IN_THREAD_ABOVE:
            return await asyncio.to_thread(count_all)
        return count_all()

    async def _admit(
        self,
        sentences: Sequence[str],
        kind: Kind,
        tokens: Sequence[int] | None,
        priority: Priority,
    ) -> QueuedRequest:
        self._check_room(priority, len(sentences), 0)
        costs = list(map(padded_tokens, tokens or await self.count(sentences, kind)))
        self._check_room(priority, len(sentences), sum(costs))
        job = QueuedJob(kind, costs, priority)
        request = QueuedRequest(sentences, kind, job, time.perf_counter())
        if sentences:
            self._requests[job] = request
            self._queue.put(job)
            if not self._tasks:
                self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
            self._wake.set()
        return request

    def _check_room(self, priority: Priority, sentences: int, tokens: int) -> None:
        if self._closing:
            raise ClosedError("the service is stopping: try again later")
        waiting = self._queue.waiting(priority)
        units = ("sentences", "padded tokens")
        for here, more, limit, unit in zip(
            waiting, (sentences, tokens), self._queue_limits, units, strict=True
        ):
            if more and waiting[0] and here + more > limit:
                raise QueueFullError(f"{here} {unit} wait, {limit} may: try again later")

    def _end(self, request: QueuedRequest, error: Exception) -> None:
        """A request is over: its places are free, and who waits for it gets the error."""
        self._queue.drop(request.job)
        self._requests.pop(request.job, None)
        request.fail(error)

    async def _work(self) -> None:
        while True:
            slices = self._queue.take(among=self._workers - self._busy)
            if not slices:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._busy += 1
            try:
                await self._translate(slices)
            except Exception as error:  # a worker that stops would leave everybody waiting
                logger.exception("a batch failed outside of the engine")
                for part in slices:
                    if part.job in self._requests:
                        self._end(self._requests[part.job], error)
            finally:
                self._busy -= 1

    async def _translate(self, slices: list[Slice]) -> None:
        """Translate a batch and tell of it."""
        now = time.perf_counter()
        parts = [(self._requests[part.job], part.rows) for part in slices]
        await self._translate_rows(
            [QueuedSentence(request, row) for request, rows in parts for row in rows]
        )
        end = time.perf_counter()
        for request, part_rows in parts:
            if request.record is not None:
                request.record.add_batch(BatchTimes(len(part_rows), request.since, now, end))
        self._on_batch(
            BatchReport(
                sentences=sum(len(part.rows) for part in slices),
                padded_tokens=sum(part.job.costs[row] for part in slices for row in part.rows),
                seconds=end - now,
                waited=tuple((len(rows), now - request.since) for request, rows in parts),
            )
        )

    async def _translate_rows(self, rows: list[QueuedSentence]) -> None:
        """Translate sentences; after a failure each half by itself, down to what fails alone."""
        rows = [row for row in rows if not row.request.done]
        if not rows:
            return
        sentences = [row.sentence for row in rows]
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._translate_batch, sentences, rows[0].request.kind
            )
            if len(results) != len(sentences):
                raise RuntimeError(f"{len(results)} translations for {len(sentences)} sentences")
        except Exception as error:
            if len(rows) == 1:
                self._keep(rows[0], error)
                return
            for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                await self._translate_rows(half)
            return
        for row, result in zip(rows, results, strict=True):
            self._keep(row, result)

    def _keep(self, row: QueuedSentence, result: Translation | Exception) -> None:
        request = row.request
        if not request.done:
            request.keep(row.row, result)
            if request.done:
                self._requests.pop(request.job, None)
