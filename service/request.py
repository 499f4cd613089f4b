"""A request in the queue: its sentences, and what is known of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from export.engines import Translation
from service.fair_queue import QueuedJob
from service.record import RequestMetrics, current_metrics


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
