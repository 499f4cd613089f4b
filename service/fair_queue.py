"""Which sentences go into the next batch: fair among requests, urgent ones first.

Nothing here waits, runs or knows the time: `put` a job, `take` a batch, `drop` a job.

A batch has a budget in padded tokens, and all its sentences are of one kind (model and options).
Each waiting job gives one sentence before any gives a second, and from there on the job with the
fewest tokens in the batch is next, so that what short jobs leave goes to long ones. Jobs that were
served go behind those that were not. Interactive jobs fill a batch first, but for bulk's share.

Bound: a sentence of an interactive job is in the next batch of its kind, whatever bulk waits
and however long the other requests are, if the next sentences of all interactive jobs before it
fit into what is not bulk's share; kinds take turns. A batch that holds bulk comes at least every
`BULK_EVERY` batches while bulk waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

BULK_SHARE = 0.25
"""Share of a batch's tokens that bulk may have while interactive jobs could fill it."""
BULK_EVERY = 4


class Priority(IntEnum):
    """Interactive: somebody waits for it. Bulk: a file, say; it fills what is left."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(eq=False)
class Job:
    """A request's sentences in the queue: `next` is the first that no batch has taken.

    `costs`: padded tokens of each. `served` orders jobs: its arrival, then its last batch.
    """

    kind: Hashable
    costs: Sequence[int]
    priority: Priority = Priority.INTERACTIVE
    next: int = 0
    served: int = 0
    cost_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.cost_left = sum(self.costs[self.next :])

    @property
    def left(self) -> int:
        """Sentences that still wait."""
        return len(self.costs) - self.next


@dataclass(frozen=True)
class Slice:
    """Some rows of a job, within a batch."""

    job: Job
    rows: range


class FairQueue:
    """Jobs that wait. `max_tokens` and `max_sentences` bound a batch; a single sentence of more
    tokens than that is a batch by itself."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._jobs: dict[Job, None] = {}
        self._turn = itertools.count(1)
        self._without_bulk = 0
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

    def put(self, job: Job) -> None:
        """Add a job, behind those that wait."""
        job.served = next(self._turn)
        self._jobs[job] = None
        self._count(job, 1)

    def drop(self, job: Job) -> None:
        """Take a job out, if it still waits; its places are free at once."""
        if job in self._jobs:
            del self._jobs[job]
            self._count(job, -1)

    def take(self, among: int = 1) -> list[Slice]:
        """The next batch, none if nothing waits.

        `among`: how many workers are free, for whom the waiting tokens should do.
        """
        if not self._jobs:
            return []
        lead = self._lead()
        bulk_waits = any(job.priority is Priority.BULK for job in self._jobs)
        alike = [job for job in self._jobs if job.kind == lead.kind]
        budget = self._budget(alike, among)
        batch = _Batch(budget, self._max_sentences)
        batch.force(lead)
        urgent = [job for job in alike if job.priority is Priority.INTERACTIVE]
        bulk = [job for job in alike if job.priority is Priority.BULK]
        if urgent and bulk:
            batch.fill(urgent, 1 - BULK_SHARE)
            batch.fill(bulk, 1)
        batch.fill(urgent, 1)
        batch.fill(bulk, 1)
        passed_over = bulk_waits and not any(job in batch.counts for job in bulk)
        self._without_bulk = self._without_bulk + 1 if passed_over else 0
        return self._slices(batch)

    def _lead(self) -> Job:
        """The job whose kind the batch is of: the one that waits longest, urgent ones first."""
        bulk_is_due = self._without_bulk >= BULK_EVERY - 1
        wanted = Priority.BULK if bulk_is_due else Priority.INTERACTIVE
        return min(self._jobs, key=lambda job: (job.priority is not wanted, job.served))

    def _budget(self, alike: Sequence[Job], among: int) -> int:
        waiting = sum(job.cost_left for job in alike)
        share = max(-(-waiting // among), self._max_tokens // 8)
        return min(self._max_tokens, share)

    def _slices(self, batch: _Batch) -> list[Slice]:
        slices = []
        for job, count in batch.counts.items():
            self._count(job, -1)
            rows = range(job.next, job.next + count)
            job.next += count
            job.cost_left -= batch.taken[job]
            job.served = next(self._turn)
            slices.append(Slice(job, rows))
            if job.left:
                self._count(job, 1)
            else:
                del self._jobs[job]
        return slices

    def _count(self, job: Job, sign: int) -> None:
        waiting = self._waiting[job.priority]
        waiting[0] += sign * job.left
        waiting[1] += sign * job.cost_left


class _Batch:
    """A batch as it fills: `counts` of sentences and `taken` tokens by job."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._tokens = 0
        self._sentences = 0
        self.counts: dict[Job, int] = {}
        self.taken: dict[Job, int] = {}

    def force(self, job: Job) -> None:
        """Take a job's next sentence, be it of more tokens than a batch may have."""
        self._add(job, job.costs[job.next])

    def fill(self, jobs: Sequence[Job], share: float) -> None:
        """Take sentences, those of the job with the fewest tokens here first, until the batch is
        full up to a share."""
        tokens, sentences = self._max_tokens * share, self._max_sentences * share
        heap = [(self.taken.get(job, 0), job.served, job) for job in jobs]
        heapq.heapify(heap)  # `served` differs, so jobs are never compared
        while heap and self._sentences < sentences:
            _, served, job = heapq.heappop(heap)
            place = job.next + self.counts.get(job, 0)
            if place < len(job.costs) and self._tokens + job.costs[place] <= tokens:
                self._add(job, job.costs[place])
                heapq.heappush(heap, (self.taken[job], served, job))

    def _add(self, job: Job, cost: int) -> None:
        self.counts[job] = self.counts.get(job, 0) + 1
        self.taken[job] = self.taken.get(job, 0) + cost
        self._tokens += cost
        self._sentences += 1
