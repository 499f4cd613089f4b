"""What a request did, in numbers: filled in wherever it passes, read at its end.

Each request has a `Record` of its own in its context, which the tasks that it starts share. Where
there is none (a job in the background, a test), nothing is counted.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Request ids that are taken from clients."""
MAX_BATCHES = 32
"""Batches of a request that are remembered for its trace."""


@dataclass(slots=True, frozen=True)
class BatchTimes:
    """A request's part in a batch: sentences, and by `time.perf_counter` when they began to wait,
    when the batch began and when it ended."""

    sentences: int
    since: float
    begin: float
    end: float


@dataclass(slots=True)
class RequestMetrics:
    """A request's numbers.

    `tokens` are source tokens given to the engine, so none of what the cache had; `queue_s` the
    longest that a sentence waited for its batch. `batches` and `began` (by `time.perf_counter`) are
    kept where a trace wants them.
    """

    id: str
    key_id: int | None = None
    characters: int = 0
    sentences: int = 0
    tokens: int = 0
    cache_hits: int = 0
    warnings: int = 0
    queue_s: float = 0.0
    batches: list[BatchTimes] | None = None
    began: float = 0.0

    def add_batch(self, batch: BatchTimes) -> None:
        """Take note of a batch."""
        self.queue_s = max(self.queue_s, batch.begin - batch.since)
        if self.batches is not None and len(self.batches) < MAX_BATCHES:
            self.batches.append(batch)


_random = random.Random()
REQUEST_METRICS: ContextVar[RequestMetrics | None] = ContextVar("record", default=None)
current_metrics: Callable[[], RequestMetrics | None] = REQUEST_METRICS.get
"""The record of the request that is being answered, if there is one."""


def request_id(given: bytes | None) -> str:
    """The client's id where it is short and plain, else a new one of 32 hexadecimal digits."""
    if given is not None and WELL_FORMED.fullmatch(text := given.decode("latin-1")):
        return text
    return f"{_random.getrandbits(128):032x}"
