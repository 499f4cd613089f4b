"""What goes into a batch: budgets, shares, turns. No loop, no thread, no clock."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from service.fair_queue import BULK_EVERY, FairQueue, Priority, QueuedJob, Slice

GREEDY, BEAM = "greedy", "beam"
BULK = Priority.BULK


def counts(slices: list[Slice]) -> dict[QueuedJob, int]:
    return {part.job: len(part.rows) for part in slices}


def queue_of(*jobs: QueuedJob, tokens: int = 100, sentences: int = 64) -> FairQueue:
    queue = FairQueue(tokens, sentences)
    for job in jobs:
        queue.put(job)
    return queue


def test_a_batch_keeps_its_token_budget() -> None:
    job = QueuedJob(GREEDY, [30, 30, 30, 30, 90, 200, 5])
    queue = queue_of(job)
    rows = []
    while batch := queue.take():
        rows.append(list(batch[0].rows))
    assert rows == [[0, 1, 2], [3], [4], [5], [6]]  # 200 is more than a batch: alone
    assert (queue.sentences, queue.tokens) == (0, 0)


def test_a_batch_keeps_its_sentence_budget() -> None:
    queue = queue_of(QueuedJob(GREEDY, [1] * 10), sentences=4)
    assert [len(queue.take()[0].rows) for _ in range(3)] == [4, 4, 2]
    assert queue.take() == []


def test_a_one_liner_does_not_wait_for_a_document() -> None:
    document, line = QueuedJob(GREEDY, [10] * 10_000), QueuedJob(GREEDY, [10])
    queue = queue_of(document, line)
    assert counts(queue.take()) == {document: 9, line: 1}


def test_tokens_are_shared_evenly_and_what_is_left_goes_on() -> None:
    long, longer, short = (
        QueuedJob(GREEDY, [10] * 50),
        QueuedJob(GREEDY, [20] * 50),
        QueuedJob(GREEDY, [10]),
    )
    queue = queue_of(long, longer, short, tokens=90)
    assert counts(queue.take()) == {long: 4, longer: 2, short: 1}  # 40 + 40 + 10 tokens


def test_options_are_not_mixed_and_take_turns() -> None:
    greedy, beam = QueuedJob(GREEDY, [50] * 6), QueuedJob(BEAM, [50] * 4)
    queue = queue_of(greedy, beam)
    led = []
    while batch := queue.take():
        assert len({part.job.kind for part in batch}) == 1
        led.append(batch[0].job.kind)
    assert led == [GREEDY, BEAM, GREEDY, BEAM, GREEDY]


def test_bulk_has_its_share_and_what_is_left() -> None:
    bulk, urgent = QueuedJob(GREEDY, [5] * 100, BULK), QueuedJob(GREEDY, [5] * 20)
    queue = queue_of(bulk, urgent)
    assert counts(queue.take()) == {urgent: 15, bulk: 5}
    assert counts(queue.take()) == {urgent: 5, bulk: 15}
    assert counts(queue.take()) == {bulk: 20}


@pytest.mark.parametrize("options", [GREEDY, BEAM])
def test_bulk_is_never_starved(options: str) -> None:
    bulk = QueuedJob(options, [90] * 5, BULK)
    queue = queue_of(bulk)
    batches_with_bulk = []
    for turn in range(5 * BULK_EVERY):
        for _ in range(12):
            queue.put(QueuedJob(GREEDY, [10]))
        batches_with_bulk.append(bulk in counts(queue.take()))
        assert turn < BULK_EVERY or any(batches_with_bulk[-BULK_EVERY:]), turn
    assert sum(batches_with_bulk) == 5
    assert bulk.left == 0


def test_bulk_that_just_came_does_not_go_first() -> None:
    queue = queue_of()
    for _ in range(10):
        queue.put(QueuedJob(GREEDY, [10]))
        queue.take()
    line, bulk = QueuedJob(GREEDY, [10]), QueuedJob(BEAM, [10], BULK)
    queue.put(bulk)
    queue.put(line)
    assert counts(queue.take()) == {line: 1}


def test_free_workers_share_what_waits() -> None:
    job = QueuedJob(GREEDY, [10] * 60)
    queue = queue_of(job, tokens=800)
    assert counts(queue.take(among=2)) == {job: 30}
    assert counts(queue.take(among=1)) == {job: 30}
    few = QueuedJob(GREEDY, [10] * 4)
    queue.put(few)
    assert counts(queue.take(among=2)) == {few: 4}  # too little to part


def test_like_lengths_go_together_where_little_waits() -> None:
    first, long, paragraph = (
        QueuedJob(GREEDY, [8]),
        QueuedJob(GREEDY, [23]),
        QueuedJob(GREEDY, [8, 15, 8]),
    )
    others = [QueuedJob(GREEDY, [cost]) for cost in (23, 15, 8, 23, 23)]
    queue = queue_of(first, long, paragraph, *others, tokens=1000)
    batches = []
    while batch := queue.take():
        batches.append(sorted(part.job.costs[row] for part in batch for row in part.rows))
    # Of 154 tokens 32 and then 30 are no more than half; of 92 the first 92 are taken all the same.
    assert batches == [[8, 8, 8, 8, 15, 15], [23, 23, 23, 23]]


def test_many_of_another_length_wait() -> None:
    many, lead = [QueuedJob(GREEDY, [8]) for _ in range(9)], QueuedJob(GREEDY, [15])
    queue = queue_of(lead, *many, tokens=1000)
    assert counts(queue.take()) == {lead: 1}
    assert len(queue.take()) == 9


def test_a_job_in_turns_does_not_lead_for_ever() -> None:
    document = QueuedJob(GREEDY, [8, 15, 23] * 12)  # 552 tokens, less than two batches
    queue = queue_of(document, tokens=400)
    queue.take()
    line = QueuedJob(GREEDY, [40])
    queue.put(line)
    queue.take()
    assert counts(queue.take()) == {line: 1}


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_waiting_where_little_waits(seed: int) -> None:
    """A line waits at most for one batch of each other length that older lines have."""
    rng = random.Random(seed)
    queue = FairQueue(1024, 64)
    waits: dict[QueuedJob, int] = {}
    for _ in range(400):
        for _ in range(rng.choice([0, 2, 8, 12])):
            line = QueuedJob(GREEDY, [rng.choice([8, 9, 11, 15, 23])])
            older = {job.costs[0] for job in waits} - {line.costs[0]}
            queue.put(line)
            waits[line] = len(older) + 1
        for part in queue.take():
            del waits[part.job]
        waits = {job: left - 1 for job, left in waits.items()}
        assert min(waits.values(), default=1) >= 1


def test_a_dropped_job_frees_its_place() -> None:
    gone, stays = QueuedJob(GREEDY, [10] * 30), QueuedJob(GREEDY, [10] * 3)
    queue = queue_of(gone, stays, tokens=40)
    queue.take()
    queue.drop(gone)
    queue.drop(gone)
    assert (queue.sentences, queue.tokens) == (stays.left, 10 * stays.left)
    assert all(part.job is stays for part in queue.take())


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_doubled_or_late(seed: int) -> None:
    """Thousands of jobs that come and go at random, held to every promise of the module."""
    rng = random.Random(seed)
    max_tokens, max_sentences = rng.choice([(200, 16), (1024, 64), (64, 200)])
    queue = FairQueue(max_tokens, max_sentences)
    jobs: list[QueuedJob] = []
    seen: Counter[tuple[int, int]] = Counter()
    dropped: set[QueuedJob] = set()
    for step in range(250):
        for _ in range(rng.choice([0, 0, 1, 5]) if step < 200 else 0):
            length = rng.choice([1, 1, 1, 2, 5, 100])
            costs = [rng.choice([7, 7, 15, 23, 127]) for _ in range(length)]
            jobs.append(QueuedJob(rng.choice([GREEDY, BEAM]), costs, rng.choice(list(Priority))))
            queue.put(jobs[-1])
        if jobs and rng.random() < 0.05:
            dropped.add(gone := rng.choice(jobs))
            queue.drop(gone)
        batch = queue.take(among=rng.choice([1, 1, 2]))
        _check_batch(batch, max_tokens, max_sentences)
        for part in batch:
            assert part.job not in dropped
            assert list(part.rows) == sorted(part.rows)
            seen.update((id(part.job), row) for row in part.rows)
    while batch := queue.take():
        for part in batch:
            seen.update((id(part.job), row) for row in part.rows)
    assert set(seen.values()) <= {1}
    for job in jobs:
        got = sum(seen[id(job), row] for row in range(len(job.costs)))
        assert got == len(job.costs) or job in dropped
    assert (queue.sentences, queue.tokens) == (0, 0)


def _check_batch(batch: list[Slice], max_tokens: int, max_sentences: int) -> None:
    tokens = sum(part.job.costs[row] for part in batch for row in part.rows)
    sentences = sum(len(part.rows) for part in batch)
    assert sentences <= max_sentences
    assert tokens <= max_tokens or sentences == 1
    assert len({part.job.kind for part in batch}) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_waiting(seed: int) -> None:
    """A one-liner goes with the next batch of its options, and options take turns, under any load
    of documents and bulk."""
    rng = random.Random(seed)
    queue = FairQueue(1024, 64)
    kinds = [GREEDY, BEAM, "penalty"]
    for _ in range(20):
        costs = [rng.choice([7, 15, 23]) for _ in range(5000)]
        queue.put(QueuedJob(rng.choice(kinds), costs, rng.choice(list(Priority))))
    for _ in range(100):
        line = QueuedJob(rng.choice(kinds), [15])
        queue.put(line)
        batches = 1
        while line not in counts(queue.take()):
            batches += 1
        assert batches <= len(kinds) + 1  # its options' turn, and one for bulk that was passed over
