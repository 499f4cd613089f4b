"""Which sentences go into the next batch: fair among requests, urgent first, like lengths together.

Nothing here waits, runs or knows the time: `put` a job, `take` a batch, `drop` a job.

A batch has a budget in padded tokens, and all its sentences are of one kind (model and options).

Where much waits, each waiting job gives one sentence before any gives a second, and from there on
the job with the fewest tokens in the batch is next, so that what short jobs leave goes to long
ones. Jobs that were served go behind those that were not. Interactive jobs fill a batch first, but
for bulk's share.

Where less than two full batches waits, a batch takes all sentences that are as long (padded) as the
one that waits longest, and those of other lengths while they are few. An engine calls the model
once for each padded length, which costs about as much as two sentences; so the fewer lengths in
a batch, the less a sentence costs, and what is left meets more of its like in the next one.

Bound: whatever bulk waits and however long the other requests are, a sentence of an interactive job
is, if much waits, in the next batch of its kind into whose part that is not bulk's the next
sentences of all interactive jobs before it fit; if little waits, at the latest in the batch after
one for each other length that an older job has waiting. Kinds take turns. A batch that holds bulk
comes at least every `BULK_EVERY` batches while bulk waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

BULK_SHARE = 0.25
"""Share of a batch's tokens that bulk may have while interactive jobs could fill it."""
BULK_EVERY = 4
LITTLE_BATCHES = 2
"""Full batches below which batches are made of like lengths."""
QUANTUM_SHARE = 1 / 16
"""Share of a full batch that a job gets of such batches before it goes behind the others."""


class Priority(IntEnum):
    """Interactive: somebody waits for it. Bulk: a file, say; it fills what is left."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(eq=False)
class QueuedJob:
    """A request's sentences in the queue: `rows` are those that no batch has taken, in order.

    `costs`: padded tokens of each. `served` orders jobs: its arrival, then its last turn; `given`
    are the tokens it got since.
    """

    kind: Hashable
    costs: Sequence[int]
    priority: Priority = Priority.INTERACTIVE
    served: int = 0
    given: int = 0
    rows: deque[int] = field(init=False)
    cost_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = deque(range(len(self.costs)))
        self.cost_left = sum(self.costs)

    @property
    def left(self) -> int:
        """Sentences that still wait."""
        return len(self.rows)


@dataclass(frozen=True)
class Slice:
    """Some rows of a job, within a batch."""

    job: QueuedJob
    rows: Sequence[int]


class FairQueue:
    """Jobs that wait. `max_tokens` and `max_sentences` bound a batch; a single sentence of more
    tokens than that is a batch by itself."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._jobs: dict[QueuedJob, None] = {}
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

    def put(self, job: QueuedJob) -> None:
        """Add a job, behind those that wait."""
        job.served = next(self._turn)
        self._jobs[job] = None
        self._count(job, 1)

    def drop(self, job: QueuedJob) -> None:
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
        waiting = sum(job.cost_left for job in alike)
        batch = _Batch(self._budget(waiting, among), self._max_sentences)
        batch.force(lead)
        urgent = [job for job in alike if job.priority is Priority.INTERACTIVE]
        bulk = [job for job in alike if job.priority is Priority.BULK]
        if little := not bulk and waiting < LITTLE_BATCHES * self._max_tokens:
            batch.fill_by_length(_by_length(lead, urgent), waiting / LITTLE_BATCHES)
        else:
            if urgent and bulk:
                batch.fill(urgent, 1 - BULK_SHARE)
                batch.fill(bulk, 1)
            batch.fill(urgent, 1)
            batch.fill(bulk, 1)
        passed_over = bulk_waits and not any(job in batch.rows for job in bulk)
        self._without_bulk = self._without_bulk + 1 if passed_over else 0
        return self._slices(batch, self._max_tokens * QUANTUM_SHARE if little else 0)

    def _lead(self) -> QueuedJob:
        """The job whose kind the batch is of: the one that waits longest, urgent ones first."""
        bulk_is_due = self._without_bulk >= BULK_EVERY - 1
        wanted = Priority.BULK if bulk_is_due else Priority.INTERACTIVE
        return min(self._jobs, key=lambda job: (job.priority is not wanted, job.served))

    def _budget(self, waiting: int, among: int) -> int:
        share = max(-(-waiting // among), self._max_tokens // 8)
        return min(self._max_tokens, share)

    def _slices(self, batch: _Batch, quantum: float) -> list[Slice]:
        """Take a batch's rows out of their jobs; jobs that got `quantum` tokens go to the back."""
        slices = []
        for job, taken in batch.rows.items():
            rows = sorted(taken)
            self._count(job, -1)
            _take_out(job, rows)
            job.cost_left -= batch.taken[job]
            job.given += batch.taken[job]
            if job.given >= quantum:
                job.served, job.given = next(self._turn), 0
            slices.append(Slice(job, rows))
            if job.left:
                self._count(job, 1)
            else:
                del self._jobs[job]
        return slices

    def _count(self, job: QueuedJob, sign: int) -> None:
        waiting = self._waiting[job.priority]
        waiting[0] += sign * job.left
        waiting[1] += sign * job.cost_left


class _Batch:
    """A batch as it fills: `rows` and `taken` tokens by job."""

    def __init__(self, max_tokens: int, max_sentences: int) -> None:
        self._max_tokens = max_tokens
        self._max_sentences = max_sentences
        self._tokens = 0
        self._sentences = 0
        self.rows: dict[QueuedJob, list[int]] = {}
        self.taken: dict[QueuedJob, int] = {}

    def force(self, job: QueuedJob) -> None:
        """Take a job's next sentence, be it of more tokens than a batch may have."""
        self._add(job, job.rows[0])

    def fill(self, jobs: Sequence[QueuedJob], share: float) -> None:
        """Take sentences, those of the job with the fewest tokens here first, until the batch is
        full up to a share."""
        tokens, sentences = self._max_tokens * share, self._max_sentences * share
        heap = [(self.taken.get(job, 0), job.served, job) for job in jobs]
        heapq.heapify(heap)  # `served` differs, so jobs are never compared
        while heap and self._sentences < sentences:
            _, served, job = heapq.heappop(heap)
            place = len(self.rows.get(job, ()))
            if place < job.left and self._tokens + job.costs[job.rows[place]] <= tokens:
                self._add(job, job.rows[place])
                heapq.heappush(heap, (self.taken[job], served, job))

    def fill_by_length(
        self, groups: Iterator[tuple[int, list[tuple[QueuedJob, int]]]], enough: float
    ) -> None:
        """Take all sentences of the first group, and of each further one of which all fit into
        `enough` tokens; the first of these sentences is here already."""
        for index, (cost, sentences) in enumerate(groups):
            if index and self._tokens + cost * len(sentences) > enough:
                continue
            for job, row in sentences[0 if index else 1 :]:
                if self._sentences == self._max_sentences or self._tokens + cost > self._max_tokens:
                    return
                self._add(job, row)

    def _add(self, job: QueuedJob, row: int) -> None:
        cost = job.costs[row]
        self.rows.setdefault(job, []).append(row)
        self.taken[job] = self.taken.get(job, 0) + cost
        self._tokens += cost
        self._sentences += 1


def _by_length(
    lead: QueuedJob, jobs: Sequence[QueuedJob]
) -> Iterator[tuple[int, list[tuple[QueuedJob, int]]]]:
    """Sentences by padded tokens: those as long as the lead's next one, then by who waits longest.
    Each job gives one of a length before any gives a second."""
    groups: dict[int, list[tuple[int, QueuedJob, int]]] = {}
    for job in sorted(jobs, key=lambda job: (job is not lead, job.served)):
        own: Counter[int] = Counter()
        for row in job.rows:
            cost = job.costs[row]
            groups.setdefault(cost, []).append((own[cost], job, row))
            own[cost] += 1
    for cost, sentences in groups.items():
        sentences.sort(key=lambda one: one[0])
        yield cost, [(job, row) for _, job, row in sentences]


def _take_out(job: QueuedJob, rows: Sequence[int]) -> None:
    if len(rows) == job.left:
        job.rows.clear()
    elif rows[-1] == job.rows[len(rows) - 1]:  # the next ones: rows rise
        for _ in rows:
            job.rows.popleft()
    else:
        taken = set(rows)
        job.rows = deque(row for row in job.rows if row not in taken)
