"""Which sentences go into the next batch: fair among requests, interactive first, by length.

Nothing here waits, runs or knows the time: `put` a request, `take` a batch, `drop` a request.

A batch has a budget in padded tokens, and all its sentences have the same batch key (model and
options).

Under high load, each waiting request gives one sentence before any gives a second. From there on,
the request with the fewest tokens in the batch is next, so what short requests leave goes to long
ones. A request that had its turn goes behind those that still wait for theirs. Interactive requests
fill a batch first, except for the share reserved for bulk.

Under low load (less than two full batches wait), a batch takes all sentences that are as long
(padded) as the one that has waited longest, and sentences of other lengths while they are few. An
engine calls the model once for each padded length, which costs about as much as two sentences. The
fewer lengths in a batch, the less a sentence costs, and the sentences left over meet more of the
same length in the next batch.

Bound: however much bulk waits and however long the other requests are, a sentence of an interactive
request is, under high load, in the next batch with its key whose interactive part has room for the
next sentences of all interactive requests before it; under low load, at the latest in the batch
after one for each other length that an older request has waiting. Batch keys take turns. While bulk
waits, at least one batch in `BULK_EVERY` holds bulk.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

BULK_SHARE = 0.25
"""Share of a batch's tokens that bulk may have while interactive requests could fill it."""
BULK_EVERY = 4
LOW_LOAD_BATCHES = 2
"""Full batches that must wait before the load counts as high."""
QUANTUM_SHARE = 1 / 16
"""Under low load, the share of a full batch that a request gets in its turn."""


class Priority(IntEnum):
    """Interactive: somebody waits for it. Bulk: a file, for example; it fills what is left."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(eq=False)
class QueueEntry:
    """A request's sentences, as the queue sees them.

    `batch_key` is what sentences must have in common to share a batch, `costs` the padded tokens of
    each sentence. `rows` are the sentences that no batch has taken yet, in order, and
    `waiting_tokens` their padded tokens. `turn` orders requests: it is the number of their arrival,
    then of their last turn; `tokens_this_turn` are the padded tokens taken since.
    """

    batch_key: Hashable
    costs: Sequence[int]
    priority: Priority = Priority.INTERACTIVE
    rows: deque[int] = field(init=False)
    waiting_tokens: int = field(init=False)
    turn: int = field(init=False, default=0)
    tokens_this_turn: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.rows = deque(range(len(self.costs)))
        self.waiting_tokens = sum(self.costs)


Entry = TypeVar("Entry", bound=QueueEntry)


class FairQueue(Generic[Entry]):
    """The requests that wait. `max_tokens` and `max_sentences` bound a batch; a single sentence of
    more tokens is a batch by itself."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._entries: dict[Entry, None] = {}
        self._turns = itertools.count(1)
        self._batches_without_bulk = 0
        self._waiting = {priority: [0, 0] for priority in Priority}

    @property
    def sentences(self) -> int:
        """Sentences that wait."""
        return sum(sentences for sentences, _ in self._waiting.values())

    @property
    def tokens(self) -> int:
        """Their padded tokens."""
        return sum(tokens for _, tokens in self._waiting.values())

    def waiting(self, priority: Priority) -> tuple[int, int]:
        """Sentences, and their padded tokens, that wait with a priority."""
        sentences, tokens = self._waiting[priority]
        return sentences, tokens

    def put(self, entry: Entry) -> None:
        """Add a request behind those that wait."""
        entry.turn = next(self._turns)
        self._entries[entry] = None
        self._count(entry, 1)

    def drop(self, entry: Entry) -> None:
        """Remove a request if it still waits; its places are free at once."""
        if entry in self._entries:
            del self._entries[entry]
            self._count(entry, -1)

    def take(self, free_workers: int = 1) -> dict[Entry, list[int]]:
        """Remove the next batch from the queue: rows by request; empty if nothing waits.

        The tokens that wait are shared among `free_workers`.
        """
        if not self._entries:
            return {}
        head = self._head()
        bulk_waits = any(entry.priority is Priority.BULK for entry in self._entries)
        alike = [entry for entry in self._entries if entry.batch_key == head.batch_key]
        waiting = sum(entry.waiting_tokens for entry in alike)
        batch = _Batch[Entry](self._budget(waiting, free_workers), self._max_sentences)
        batch.force(head)
        interactive = [entry for entry in alike if entry.priority is Priority.INTERACTIVE]
        bulk = [entry for entry in alike if entry.priority is Priority.BULK]
        if low_load := not bulk and waiting < LOW_LOAD_BATCHES * self._max_tokens:
            batch.fill_by_length(_by_length(head, interactive), waiting / LOW_LOAD_BATCHES)
        else:
            if interactive and bulk:
                batch.fill(interactive, 1 - BULK_SHARE)
                batch.fill(bulk, 1)
            batch.fill(interactive, 1)
            batch.fill(bulk, 1)
        passed_over = bulk_waits and not any(entry in batch.rows for entry in bulk)
        self._batches_without_bulk = self._batches_without_bulk + 1 if passed_over else 0
        return self._remove(batch, self._max_tokens * QUANTUM_SHARE if low_load else 0)

    def _head(self) -> Entry:
        """The request that has waited longest, interactive ones first; its key is the batch's."""
        bulk_is_due = self._batches_without_bulk >= BULK_EVERY - 1
        preferred = Priority.BULK if bulk_is_due else Priority.INTERACTIVE
        return min(self._entries, key=lambda entry: (entry.priority is not preferred, entry.turn))

    def _budget(self, waiting: int, free_workers: int) -> int:
        share = max(-(-waiting // free_workers), self._max_tokens // 8)
        return min(self._max_tokens, share)

    def _remove(self, batch: _Batch[Entry], quantum: float) -> dict[Entry, list[int]]:
        """Remove a batch's rows from its requests; those that got `quantum` tokens go to the
        back."""
        for entry, rows in batch.rows.items():
            rows.sort()
            self._count(entry, -1)
            _remove_rows(entry, rows)
            entry.waiting_tokens -= batch.tokens[entry]
            entry.tokens_this_turn += batch.tokens[entry]
            if entry.tokens_this_turn >= quantum:
                entry.turn, entry.tokens_this_turn = next(self._turns), 0
            if entry.rows:
                self._count(entry, 1)
            else:
                del self._entries[entry]
        return batch.rows

    def _count(self, entry: Entry, sign: int) -> None:
        waiting = self._waiting[entry.priority]
        waiting[0] += sign * len(entry.rows)
        waiting[1] += sign * entry.waiting_tokens


class _Batch(Generic[Entry]):
    """A batch as it fills: `rows` and padded `tokens` by request."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._total_tokens = 0
        self._total_sentences = 0
        self.rows: dict[Entry, list[int]] = {}
        self.tokens: dict[Entry, int] = {}

    def force(self, entry: Entry) -> None:
        """Add a request's next sentence, even if it has more tokens than a batch may have."""
        self._add(entry, entry.rows[0])

    def fill(self, entries: Sequence[Entry], share: float) -> None:
        """Add sentences until the batch is full up to a share; the request with the fewest tokens
        in the batch is always next."""
        max_tokens, max_sentences = self._max_tokens * share, self._max_sentences * share
        heap = [(self.tokens.get(entry, 0), entry.turn, entry) for entry in entries]
        heapq.heapify(heap)  # no two have the same turn, so entries are never compared
        while heap and self._total_sentences < max_sentences:
            _, turn, entry = heapq.heappop(heap)
            place = len(self.rows.get(entry, ()))
            if (
                place < len(entry.rows)
                and self._total_tokens + entry.costs[entry.rows[place]] <= max_tokens
            ):
                self._add(entry, entry.rows[place])
                heapq.heappush(heap, (self.tokens[entry], turn, entry))

    def fill_by_length(
        self, groups: Iterator[tuple[int, list[tuple[Entry, int]]]], target_tokens: float
    ) -> None:
        """Add all sentences of the first group, and of each other group that fits into
        `target_tokens` as a whole. The first sentence of the first group is in the batch
        already."""
        for index, (cost, sentences) in enumerate(groups):
            if index and self._total_tokens + cost * len(sentences) > target_tokens:
                continue
            for entry, row in sentences[0 if index else 1 :]:
                if (
                    self._total_sentences == self._max_sentences
                    or self._total_tokens + cost > self._max_tokens
                ):
                    return
                self._add(entry, row)

    def _add(self, entry: Entry, row: int) -> None:
        cost = entry.costs[row]
        self.rows.setdefault(entry, []).append(row)
        self.tokens[entry] = self.tokens.get(entry, 0) + cost
        self._total_tokens += cost
        self._total_sentences += 1


def _by_length(
    head: Entry, entries: Sequence[Entry]
) -> Iterator[tuple[int, list[tuple[Entry, int]]]]:
    """Sentences grouped by padded tokens: first those as long as the head's next sentence, then
    the groups of those who have waited longest. Within a group, each request gives one sentence
    before any gives a second."""
    groups: dict[int, list[tuple[int, Entry, int]]] = {}
    for entry in sorted(entries, key=lambda entry: (entry is not head, entry.turn)):
        sentences_of: Counter[int] = Counter()
        for row in entry.rows:
            cost = entry.costs[row]
            groups.setdefault(cost, []).append((sentences_of[cost], entry, row))
            sentences_of[cost] += 1
    for cost, sentences in groups.items():
        sentences.sort(key=lambda sentence: sentence[0])
        yield cost, [(entry, row) for _, entry, row in sentences]


def _remove_rows(entry: QueueEntry, rows: Sequence[int]) -> None:
    if len(rows) == len(entry.rows):
        entry.rows.clear()
    elif rows[-1] == entry.rows[len(rows) - 1]:  # the next ones: rows rise
        for _ in rows:
            entry.rows.popleft()
    else:
        removed = set(rows)
        entry.rows = deque(row for row in entry.rows if row not in removed)
