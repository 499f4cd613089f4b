"""What goes into a batch: budgets, shares, turns. No loop, no thread, no clock."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from service.fair_queue import BULK_EVERY, FairQueue, Priority, QueueEntry

GREEDY, BEAM = "greedy", "beam"
BULK = Priority.BULK


def counts(batch: dict[QueueEntry, list[int]]) -> dict[QueueEntry, int]:
    return {entry: len(rows) for entry, rows in batch.items()}


def queue_of(*entries: QueueEntry, tokens: int = 100, sentences: int = 64) -> FairQueue[QueueEntry]:
    queue = FairQueue[QueueEntry](tokens, sentences)
    for entry in entries:
        queue.put(entry)
    return queue


def test_a_batch_keeps_its_token_budget() -> None:
    entry = QueueEntry(GREEDY, [30, 30, 30, 30, 90, 200, 5])
    queue = queue_of(entry)
    rows = []
    while batch := queue.take():
        rows.append(batch[entry])
    assert rows == [[0, 1, 2], [3], [4], [5], [6]]  # 200 is more than a batch: alone
    assert (queue.sentences, queue.tokens) == (0, 0)


def test_a_batch_keeps_its_sentence_budget() -> None:
    queue = queue_of(QueueEntry(GREEDY, [1] * 10), sentences=4)
    assert [sum(counts(queue.take()).values()) for _ in range(3)] == [4, 4, 2]
    assert queue.take() == {}


def test_a_one_liner_does_not_wait_for_a_document() -> None:
    document, line = QueueEntry(GREEDY, [10] * 10_000), QueueEntry(GREEDY, [10])
    queue = queue_of(document, line)
    assert counts(queue.take()) == {document: 9, line: 1}


def test_tokens_are_shared_evenly_and_what_is_left_goes_on() -> None:
    long, longer, short = (
        QueueEntry(GREEDY, [10] * 50),
        QueueEntry(GREEDY, [20] * 50),
        QueueEntry(GREEDY, [10]),
    )
    queue = queue_of(long, longer, short, tokens=90)
    assert counts(queue.take()) == {long: 4, longer: 2, short: 1}  # 40 + 40 + 10 tokens


def test_options_are_not_mixed_and_take_turns() -> None:
    greedy, beam = QueueEntry(GREEDY, [50] * 6), QueueEntry(BEAM, [50] * 4)
    queue = queue_of(greedy, beam)
    led = []
    while batch := queue.take():
        assert len({entry.batch_key for entry in batch}) == 1
        led.append(next(iter(batch)).batch_key)
    assert led == [GREEDY, BEAM, GREEDY, BEAM, GREEDY]


def test_bulk_has_its_share_and_what_is_left() -> None:
    bulk, urgent = QueueEntry(GREEDY, [5] * 100, BULK), QueueEntry(GREEDY, [5] * 20)
    queue = queue_of(bulk, urgent)
    assert counts(queue.take()) == {urgent: 15, bulk: 5}
    assert counts(queue.take()) == {urgent: 5, bulk: 15}
    assert counts(queue.take()) == {bulk: 20}


@pytest.mark.parametrize("options", [GREEDY, BEAM])
def test_bulk_is_never_starved(options: str) -> None:
    bulk = QueueEntry(options, [90] * 5, BULK)
    queue = queue_of(bulk)
    batches_with_bulk = []
    for turn in range(5 * BULK_EVERY):
        for _ in range(12):
            queue.put(QueueEntry(GREEDY, [10]))
        batches_with_bulk.append(bulk in counts(queue.take()))
        assert turn < BULK_EVERY or any(batches_with_bulk[-BULK_EVERY:]), turn
    assert sum(batches_with_bulk) == 5
    assert len(bulk.rows) == 0


def test_bulk_that_just_came_does_not_go_first() -> None:
    queue = queue_of()
    for _ in range(10):
        queue.put(QueueEntry(GREEDY, [10]))
        queue.take()
    line, bulk = QueueEntry(GREEDY, [10]), QueueEntry(BEAM, [10], BULK)
    queue.put(bulk)
    queue.put(line)
    assert counts(queue.take()) == {line: 1}


def test_free_workers_share_what_waits() -> None:
    entry = QueueEntry(GREEDY, [10] * 60)
    queue = queue_of(entry, tokens=800)
    assert counts(queue.take(free_workers=2)) == {entry: 30}
    assert counts(queue.take(free_workers=1)) == {entry: 30}
    few = QueueEntry(GREEDY, [10] * 4)
    queue.put(few)
    assert counts(queue.take(free_workers=2)) == {few: 4}  # too little to part


def test_like_lengths_go_together_where_little_waits() -> None:
    first, long, paragraph = (
        QueueEntry(GREEDY, [8]),
        QueueEntry(GREEDY, [23]),
        QueueEntry(GREEDY, [8, 15, 8]),
    )
    others = [QueueEntry(GREEDY, [cost]) for cost in (23, 15, 8, 23, 23)]
    queue = queue_of(first, long, paragraph, *others, tokens=1000)
    batches = []
    while batch := queue.take():
        batches.append(sorted(entry.costs[row] for entry, rows in batch.items() for row in rows))
    # Of 154 tokens 32 and then 30 are no more than half; of 92 the first 92 are taken all the same.
    assert batches == [[8, 8, 8, 8, 15, 15], [23, 23, 23, 23]]


def test_many_of_another_length_wait() -> None:
    many, lead = [QueueEntry(GREEDY, [8]) for _ in range(9)], QueueEntry(GREEDY, [15])
    queue = queue_of(lead, *many, tokens=1000)
    assert counts(queue.take()) == {lead: 1}
    assert len(queue.take()) == 9


def test_a_request_in_turns_does_not_lead_for_ever() -> None:
    document = QueueEntry(GREEDY, [8, 15, 23] * 12)  # 552 tokens, less than two batches
    queue = queue_of(document, tokens=400)
    queue.take()
    line = QueueEntry(GREEDY, [40])
    queue.put(line)
    queue.take()
    assert counts(queue.take()) == {line: 1}


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_waiting_where_little_waits(seed: int) -> None:
    """A line waits at most for one batch of each other length that older lines have."""
    rng = random.Random(seed)
    queue = FairQueue[QueueEntry](1024, 64)
    waits: dict[QueueEntry, int] = {}
    for _ in range(400):
        for _ in range(rng.choice([0, 2, 8, 12])):
            line = QueueEntry(GREEDY, [rng.choice([8, 9, 11, 15, 23])])
            older = {entry.costs[0] for entry in waits} - {line.costs[0]}
            queue.put(line)
            waits[line] = len(older) + 1
        for entry in queue.take():
            del waits[entry]
        waits = {entry: left - 1 for entry, left in waits.items()}
        assert min(waits.values(), default=1) >= 1


def test_a_dropped_request_frees_its_place() -> None:
    gone, stays = QueueEntry(GREEDY, [10] * 30), QueueEntry(GREEDY, [10] * 3)
    queue = queue_of(gone, stays, tokens=40)
    queue.take()
    queue.drop(gone)
    queue.drop(gone)
    assert (queue.sentences, queue.tokens) == (len(stays.rows), 10 * len(stays.rows))
    assert list(queue.take()) == [stays]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_doubled_or_late(seed: int) -> None:
    """Thousands of entries that come and go at random, held to every promise of the module."""
    rng = random.Random(seed)
    max_tokens, max_sentences = rng.choice([(200, 16), (1024, 64), (64, 200)])
    queue = FairQueue[QueueEntry](max_tokens, max_sentences)
    entries: list[QueueEntry] = []
    seen: Counter[tuple[int, int]] = Counter()
    dropped: set[QueueEntry] = set()
    for step in range(250):
        for _ in range(rng.choice([0, 0, 1, 5]) if step < 200 else 0):
            length = rng.choice([1, 1, 1, 2, 5, 100])
            costs = [rng.choice([7, 7, 15, 23, 127]) for _ in range(length)]
            entries.append(
                QueueEntry(rng.choice([GREEDY, BEAM]), costs, rng.choice(list(Priority)))
            )
            queue.put(entries[-1])
        if entries and rng.random() < 0.05:
            dropped.add(gone := rng.choice(entries))
            queue.drop(gone)
        batch = queue.take(free_workers=rng.choice([1, 1, 2]))
        _check_batch(batch, max_tokens, max_sentences)
        for entry, rows in batch.items():
            assert entry not in dropped
            assert rows == sorted(rows)
            seen.update((id(entry), row) for row in rows)
    while batch := queue.take():
        for entry, rows in batch.items():
            seen.update((id(entry), row) for row in rows)
    assert set(seen.values()) <= {1}
    for entry in entries:
        got = sum(seen[id(entry), row] for row in range(len(entry.costs)))
        assert got == len(entry.costs) or entry in dropped
    assert (queue.sentences, queue.tokens) == (0, 0)


def _check_batch(batch: dict[QueueEntry, list[int]], max_tokens: int, max_sentences: int) -> None:
    tokens = sum(entry.costs[row] for entry, rows in batch.items() for row in rows)
    sentences = sum(map(len, batch.values()))
    assert sentences <= max_sentences
    assert tokens <= max_tokens or sentences == 1
    assert len({entry.batch_key for entry in batch}) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_waiting(seed: int) -> None:
    """A one-liner goes with the next batch of its options, and options take turns, under any load
    of documents and bulk."""
    rng = random.Random(seed)
    queue = FairQueue[QueueEntry](1024, 64)
    kinds = [GREEDY, BEAM, "penalty"]
    for _ in range(20):
        costs = [rng.choice([7, 15, 23]) for _ in range(5000)]
        queue.put(QueueEntry(rng.choice(kinds), costs, rng.choice(list(Priority))))
    for _ in range(100):
        line = QueueEntry(rng.choice(kinds), [15])
        queue.put(line)
        batches = 1
        while line not in counts(queue.take()):
            batches += 1
        assert batches <= len(kinds) + 1  # its options' turn, and one for bulk that was passed over
