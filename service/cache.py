"""Translations that were made, and those in the making, by everything that changes them.

A key holds the model (the hash of its manifest, hence of all its files, and the engine's name), the
options, and the sentence with its placeholders. It is a tuple of typed values, so different keys
never become the same text.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from export.runtime.engines import TranslateOptions

V = TypeVar("V")
Rank = tuple[int, int]
"""A request's priority and its number of sentences: the queue serves lower ranks no later."""
ENTRY_BYTES = 700
"""What a cache entry takes beside its texts: key, options, dictionary, translation."""


class CacheKey(NamedTuple):
    """What a translation depends on: the model's identity, the options, whether fallback decoding
    is on, and the sentence, with the placeholders of its glossary terms."""

    model: str
    options: TranslateOptions
    fallback: bool
    sentence: str


@dataclass(frozen=True)
class _InProgress(Generic[V]):
    """A translation in progress, for a request of this rank."""

    future: asyncio.Future[V | None]
    rank: Rank


class TranslationCache(Generic[V]):
    """The most recently used values, in at most `max_bytes` (their texts and a constant each), and
    the values in progress. With `max_bytes` 0 it keeps and joins nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[CacheKey, tuple[V, int]] = OrderedDict()
        self._in_progress: dict[CacheKey, _InProgress[V]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: CacheKey) -> V | None:
        """The value of a key, which becomes the most recently used."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: CacheKey, value: V, *texts: str) -> None:
        """Keep a value of this size in texts; the least recently used values make room."""
        size = ENTRY_BYTES + sum(map(sys.getsizeof, (key.sentence, *texts)))
        if size > self._max_bytes:
            return
        if key in self._values:
            self.bytes -= self._values.pop(key)[1]
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed

    def join(self, key: CacheKey, rank: Rank) -> asyncio.Future[V | None] | None:
        """The future of a key in progress, for a request of this rank to wait for.

        Only if a request of the same or a lower rank translates it, so that a one-liner never waits
        for a document. The result is None if that request was given up.
        """
        in_progress = self._in_progress.get(key)
        if in_progress is None or in_progress.rank > rank or in_progress.future.done():
            return None
        return in_progress.future

    def open(self, key: CacheKey, rank: Rank, future: asyncio.Future[V | None]) -> None:
        """Let others join a key whose value a request of this rank is about to make."""
        if not self._max_bytes:
            return
        in_progress = _InProgress(future, rank)
        self._in_progress[key] = in_progress
        future.add_done_callback(lambda _: self._on_done(key, in_progress))

    def _on_done(self, key: CacheKey, in_progress: _InProgress[V]) -> None:
        if self._in_progress.get(key) is in_progress:
            del self._in_progress[key]
