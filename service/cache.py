"""Translations that were made already or are being made: none is made twice.

A key holds everything that changes the output: the model (its manifest's hash, hence that of all
files, and the engine's name), the options, and the sentence itself, in which glossary terms stand.
It is a tuple of typed values, so no two keys are ever joined into the same text.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from export.engines import TranslateOptions

V = TypeVar("V")
Rank = tuple[int, int]
"""A request's priority and its sentences: the queue serves lower ranks no later."""
ENTRY_BYTES = 700
"""What an entry takes beside its texts: key, options, dictionary, translation."""


class CacheKey(NamedTuple):
    """What a translation depends on. `model`: its identity; `checked`: with second tries."""

    model: str
    options: TranslateOptions
    checked: bool
    sentence: str


@dataclass(frozen=True)
class _Flight(Generic[V]):
    """A translation in the making, by a request of such a rank."""

    future: asyncio.Future[V | None]
    rank: Rank


class TranslationCache(Generic[V]):
    """The most recently used values, of at most `max_bytes` (their texts and a constant each), and
    those in the making. With `max_bytes` 0 it keeps and joins nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[CacheKey, tuple[V, int]] = OrderedDict()
        self._flights: dict[CacheKey, _Flight[V]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: CacheKey) -> V | None:
        """The value of a key, which is now the most recently used."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: CacheKey, value: V, *texts: str) -> None:
        """Keep a value whose texts are given; the least recently used ones make room."""
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
        """The future of a key in the making, for a request of a rank.

        Only if a request of the same or a lower rank makes it, so that a one-liner never waits for
        a document. The result is None if its maker gave up.
        """
        flight = self._flights.get(key)
        return flight.future if flight and flight.rank <= rank else None

    def open(self, key: CacheKey, rank: Rank, future: asyncio.Future[V | None]) -> None:
        """Say that a request of a rank makes a key's value, which others may join."""
        if not self._max_bytes:
            return
        flight = _Flight(future, rank)
        self._flights[key] = flight
        future.add_done_callback(lambda _: self._land(key, flight))

    def _land(self, key: CacheKey, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
