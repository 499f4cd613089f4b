"""Batches of the fair queue counted out: where shares, turns and budgets end."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from service.fair_queue import FairQueue, Priority, QueuedJob, Slice

GREEDY, BEAM = "greedy", "beam"
BULK = Priority.BULK


def rows(batch: list[Slice]) -> dict[QueuedJob, list[int]]:
    return {part.job: list(part.rows) for part in batch}


def queue_of(*jobs: QueuedJob, tokens: int = 100, sentences: int = 64) -> FairQueue:
    queue = FairQueue(tokens, sentences)
    for job in jobs:
        queue.put(job)
    return queue


def test_what_waits_is_counted_by_priority() -> None:
    urgent, bulk = QueuedJob(GREEDY, [3, 4]), QueuedJob(GREEDY, [5, 6, 7], BULK)
    queue = queue_of(urgent, bulk)
    assert (queue.waiting(Priority.INTERACTIVE), queue.waiting(BULK)) == ((2, 7), (3, 18))
    assert (queue.sentences, queue.tokens) == (5, 25)
    assert (urgent.left, urgent.cost_left) == (2, 7)
    queue.drop(bulk)
    assert (queue.waiting(Priority.INTERACTIVE), queue.waiting(BULK)) == ((2, 7), (0, 0))


def test_what_is_left_is_counted_after_a_batch() -> None:
    job = QueuedJob(GREEDY, [40, 30, 20, 90, 100])
    queue = queue_of(job)
    assert rows(queue.take()) == {job: [0, 1, 2]}
    assert (queue.sentences, queue.tokens, job.left, job.cost_left) == (2, 190, 2, 190)


def test_a_batch_is_filled_to_the_last_token_and_sentence() -> None:
    job = QueuedJob(GREEDY, [50] * 8)
    assert rows(queue_of(job).take()) == {job: [0, 1]}
    job = QueuedJob(GREEDY, [51, 50] * 8)
    assert rows(queue_of(job).take()) == {job: [0]}
    job = QueuedJob(GREEDY, [1] * 400)
    assert rows(queue_of(job, sentences=3).take()) == {job: [0, 1, 2]}


def test_a_job_that_has_nothing_in_the_batch_yet_goes_before_one_that_has_little() -> None:
    first, second = QueuedJob(GREEDY, [1] * 200), QueuedJob(GREEDY, [1] * 200)
    assert rows(queue_of(first, second, sentences=2).take()) == {first: [0], second: [0]}


def test_a_part_of_a_batch_does_not_change() -> None:
    (part,) = queue_of(QueuedJob(GREEDY, [1])).take()
    with pytest.raises(FrozenInstanceError):
        part.rows = []  # type: ignore[misc]


def test_the_share_of_bulk_in_sentences() -> None:
    """Of 8 sentences 6 are urgent, 2 bulk, although all tokens would fit."""
    urgent, bulk = QueuedJob(GREEDY, [1] * 20), QueuedJob(GREEDY, [1] * 20, BULK)
    queue = queue_of(urgent, bulk, sentences=8)
    assert rows(queue.take()) == {urgent: list(range(6)), bulk: [0, 1]}


@pytest.mark.parametrize("kind", [GREEDY, BEAM])
def test_bulk_comes_every_fourth_time(kind: str) -> None:
    """Urgent sentences of another kind, or too long to leave bulk any room, each time."""
    bulk = QueuedJob(kind, [90] * 3, BULK)
    queue = queue_of(bulk)
    came = []
    for _ in range(12):
        queue.put(QueuedJob(GREEDY, [90]))
        queue.put(QueuedJob(GREEDY, [90]))
        came.append(bulk in rows(queue.take()))
    assert came == [False, False, False, True] * 3


def test_bulk_that_is_not_passed_over_does_not_come_earlier() -> None:
    """A batch with bulk, and one while none waits, begin the count anew."""
    queue = queue_of()
    for turns, bulk in ((3, QueuedJob(BEAM, [90] * 2, BULK)), (3, QueuedJob(BEAM, [10], BULK))):
        queue.put(bulk)
        for turn in range(turns + 1):
            queue.put(QueuedJob(GREEDY, [90]))
            assert (bulk in rows(queue.take())) == (turn == turns)
        queue.drop(bulk)
        queue.take()


def test_workers_share_what_waits_rounded_up_but_for_an_eighth_of_a_batch() -> None:
    job = QueuedJob(GREEDY, [1] * 201)
    queue = queue_of(job, tokens=800, sentences=1000)
    assert len(rows(queue.take(among=2))[job]) == 101
    job = QueuedJob(GREEDY, [1] * 301)
    queue = queue_of(job, tokens=800, sentences=1000)
    assert [len(rows(queue.take(among=4))[job]) for _ in range(4)] == [100, 100, 100, 1]


def test_where_little_ends() -> None:
    """199 tokens wait for batches of 100: by length. 200: each job gives one, then the others."""
    one, many = QueuedJob(GREEDY, [10]), QueuedJob(GREEDY, [19] * 9 + [18])
    assert rows(queue_of(one, many).take()) == {one: [0], many: [9]}
    one, many = QueuedJob(GREEDY, [10]), QueuedJob(GREEDY, [19] * 10)
    assert rows(queue_of(one, many).take()) == {one: [0], many: [0, 1, 2, 3]}


def test_lengths_go_along_up_to_half_of_what_waits() -> None:
    lead, fits, long = QueuedJob(GREEDY, [10]), QueuedJob(GREEDY, [20, 20]), QueuedJob(GREEDY, [50])
    assert rows(queue_of(lead, fits, long, tokens=400).take()) == {lead: [0], fits: [0, 1]}
    lead, misses, long = (
        QueuedJob(GREEDY, [10]),
        QueuedJob(GREEDY, [20, 20]),
        QueuedJob(GREEDY, [49]),
    )
    assert rows(queue_of(lead, misses, long, tokens=400).take()) == {lead: [0]}


def test_each_job_gives_one_of_a_length_before_any_gives_two() -> None:
    first, second, third = (QueuedJob(GREEDY, [30] * 3) for _ in range(3))
    queue = queue_of(first, second, third, tokens=150)
    assert rows(queue.take()) == {first: [0, 1], second: [0, 1], third: [0]}


def test_a_length_that_is_taken_leaves_the_others_in_place() -> None:
    job = QueuedJob(GREEDY, [10, 30, 10, 30, 10])
    queue = queue_of(job, tokens=100)
    assert rows(queue.take()) == {job: [0, 2, 4]}
    assert list(job.rows) == [1, 3]
    assert rows(queue.take()) == {job: [1, 3]}


@pytest.mark.parametrize(("second", "leads_on"), [(60, False), (59, True)])
def test_a_job_leads_until_it_had_a_sixteenth_of_a_batch(second: int, leads_on: bool) -> None:
    """100 of 1600 tokens: a job that got them goes behind the one that waits, one of 99 does
    not."""
    waits = QueuedJob(GREEDY, [500])
    job = QueuedJob(GREEDY, [40, second, 420])
    queue = queue_of(job, waits, tokens=1600)
    assert rows(queue.take()) == {job: [0, 1]}
    assert list(rows(queue.take())) == ([job] if leads_on else [waits])
