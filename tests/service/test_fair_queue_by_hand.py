"""Batches of the fair queue counted out: where shares, turns and budgets end."""

from __future__ import annotations

import pytest

from service.fair_queue import FairQueue, Priority, QueueEntry

GREEDY, BEAM = "greedy", "beam"
BULK = Priority.BULK


def queue_of(*entries: QueueEntry, tokens: int = 100, sentences: int = 64) -> FairQueue[QueueEntry]:
    queue = FairQueue[QueueEntry](tokens, sentences)
    for entry in entries:
        queue.put(entry)
    return queue


def test_what_waits_is_counted_by_priority() -> None:
    urgent, bulk = QueueEntry(GREEDY, [3, 4]), QueueEntry(GREEDY, [5, 6, 7], BULK)
    queue = queue_of(urgent, bulk)
    assert (queue.waiting(Priority.INTERACTIVE), queue.waiting(BULK)) == ((2, 7), (3, 18))
    assert (queue.sentences, queue.tokens) == (5, 25)
    assert (len(urgent.rows), urgent.waiting_tokens) == (2, 7)
    queue.drop(bulk)
    assert (queue.waiting(Priority.INTERACTIVE), queue.waiting(BULK)) == ((2, 7), (0, 0))


def test_what_is_left_is_counted_after_a_batch() -> None:
    entry = QueueEntry(GREEDY, [40, 30, 20, 90, 100])
    queue = queue_of(entry)
    assert queue.take() == {entry: [0, 1, 2]}
    assert (queue.sentences, queue.tokens, len(entry.rows), entry.waiting_tokens) == (
        2,
        190,
        2,
        190,
    )


def test_a_batch_is_filled_to_the_last_token_and_sentence() -> None:
    entry = QueueEntry(GREEDY, [50] * 8)
    assert queue_of(entry).take() == {entry: [0, 1]}
    entry = QueueEntry(GREEDY, [51, 50] * 8)
    assert queue_of(entry).take() == {entry: [0]}
    entry = QueueEntry(GREEDY, [1] * 400)
    assert queue_of(entry, sentences=3).take() == {entry: [0, 1, 2]}


def test_a_request_that_has_nothing_in_the_batch_yet_goes_before_one_that_has_little() -> None:
    first, second = QueueEntry(GREEDY, [1] * 200), QueueEntry(GREEDY, [1] * 200)
    assert queue_of(first, second, sentences=2).take() == {first: [0], second: [0]}


def test_the_share_of_bulk_in_sentences() -> None:
    """Of 8 sentences 6 are urgent, 2 bulk, although all tokens would fit."""
    urgent, bulk = QueueEntry(GREEDY, [1] * 20), QueueEntry(GREEDY, [1] * 20, BULK)
    queue = queue_of(urgent, bulk, sentences=8)
    assert queue.take() == {urgent: list(range(6)), bulk: [0, 1]}


@pytest.mark.parametrize("kind", [GREEDY, BEAM])
def test_bulk_comes_every_fourth_time(kind: str) -> None:
    """Urgent sentences of another kind, or too long to leave bulk any room, each time."""
    bulk = QueueEntry(kind, [90] * 3, BULK)
    queue = queue_of(bulk)
    came = []
    for _ in range(12):
        queue.put(QueueEntry(GREEDY, [90]))
        queue.put(QueueEntry(GREEDY, [90]))
        came.append(bulk in queue.take())
    assert came == [False, False, False, True] * 3


def test_bulk_that_is_not_passed_over_does_not_come_earlier() -> None:
    """A batch with bulk, and one while none waits, begin the count anew."""
    queue = queue_of()
    for turns, bulk in ((3, QueueEntry(BEAM, [90] * 2, BULK)), (3, QueueEntry(BEAM, [10], BULK))):
        queue.put(bulk)
        for turn in range(turns + 1):
            queue.put(QueueEntry(GREEDY, [90]))
            assert (bulk in queue.take()) == (turn == turns)
        queue.drop(bulk)
        queue.take()


def test_workers_share_what_waits_rounded_up_but_for_an_eighth_of_a_batch() -> None:
    entry = QueueEntry(GREEDY, [1] * 201)
    queue = queue_of(entry, tokens=800, sentences=1000)
    assert len(queue.take(free_workers=2)[entry]) == 101
    entry = QueueEntry(GREEDY, [1] * 301)
    queue = queue_of(entry, tokens=800, sentences=1000)
    assert [len(queue.take(free_workers=4)[entry]) for _ in range(4)] == [100, 100, 100, 1]


def test_low_load_ends() -> None:
    """199 tokens wait for batches of 100: by length. 200: each entry gives one, then the others."""
    one, many = QueueEntry(GREEDY, [10]), QueueEntry(GREEDY, [19] * 9 + [18])
    assert queue_of(one, many).take() == {one: [0], many: [9]}
    one, many = QueueEntry(GREEDY, [10]), QueueEntry(GREEDY, [19] * 10)
    assert queue_of(one, many).take() == {one: [0], many: [0, 1, 2, 3]}


def test_lengths_go_along_up_to_half_of_what_waits() -> None:
    lead, fits, long = (
        QueueEntry(GREEDY, [10]),
        QueueEntry(GREEDY, [20, 20]),
        QueueEntry(GREEDY, [50]),
    )
    assert queue_of(lead, fits, long, tokens=400).take() == {lead: [0], fits: [0, 1]}
    lead, misses, long = (
        QueueEntry(GREEDY, [10]),
        QueueEntry(GREEDY, [20, 20]),
        QueueEntry(GREEDY, [49]),
    )
    assert queue_of(lead, misses, long, tokens=400).take() == {lead: [0]}


def test_each_request_gives_one_of_a_length_before_any_gives_two() -> None:
    first, second, third = (QueueEntry(GREEDY, [30] * 3) for _ in range(3))
    queue = queue_of(first, second, third, tokens=150)
    assert queue.take() == {first: [0, 1], second: [0, 1], third: [0]}


def test_a_length_that_is_taken_leaves_the_others_in_place() -> None:
    entry = QueueEntry(GREEDY, [10, 30, 10, 30, 10])
    queue = queue_of(entry, tokens=100)
    assert queue.take() == {entry: [0, 2, 4]}
    assert list(entry.rows) == [1, 3]
    assert queue.take() == {entry: [1, 3]}


@pytest.mark.parametrize(("second", "leads_on"), [(60, False), (59, True)])
def test_a_request_leads_until_it_had_a_sixteenth_of_a_batch(second: int, leads_on: bool) -> None:
    """100 of 1600 tokens: a entry that got them goes behind the one that waits, one of 99 does
    not."""
    waits = QueueEntry(GREEDY, [500])
    entry = QueueEntry(GREEDY, [40, second, 420])
    queue = queue_of(entry, waits, tokens=1600)
    assert queue.take() == {entry: [0, 1]}
    assert list(queue.take()) == ([entry] if leads_on else [waits])
