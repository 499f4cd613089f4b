"""The queue: batches form under load, and faults stay where they belong."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from export.runtime.engines import TranslateOptions, Translation
from service.batching import Batcher, ClosedError, DeadlineError, QueuedRequest, QueueFullError
from service.fair_queue import Priority
from service.observability import BatchReport

GREEDY = TranslateOptions()
BEAM = TranslateOptions(beam_size=4)
Queue = Batcher[TranslateOptions]


class Gate:
    """A translate_batch that waits to be let through, and keeps what it was given."""

    def __init__(self, opened: bool = False) -> None:
        self.batches: list[list[str]] = []
        self._passes = threading.Semaphore(1_000_000 if opened else 0)

    def __call__(self, sentences: Sequence[str], options: TranslateOptions) -> list[Translation]:
        self.batches.append(list(sentences))
        assert self._passes.acquire(timeout=10)
        if any("bad" in sentence for sentence in sentences):
            raise RuntimeError("bad sentence")
        return [Translation(sentence.upper(), 1) for sentence in sentences]

    def let(self, batches: int) -> None:
        self._passes.release(batches)

    def open(self) -> None:
        self.let(1_000_000)


def batcher_of(gate: Callable[..., list[Translation]], **arguments: Any) -> Queue:
    return Batcher(gate, **arguments)


def request_of(
    sentences: Sequence[str],
    options: TranslateOptions = GREEDY,
    priority: Priority = Priority.INTERACTIVE,
    within_s: float | None = None,
) -> QueuedRequest[TranslateOptions]:
    """A request whose sentences have as many tokens as words."""
    deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
    tokens = [len(sentence.split()) for sentence in sentences]
    return QueuedRequest(sentences, options, tokens, priority, deadline)


async def translate(
    batcher: Queue, sentences: Sequence[str], options: TranslateOptions = GREEDY, **arguments: Any
) -> list[Translation]:
    request = request_of(sentences, options, **arguments)
    translations = []
    with batcher.queued(request):
        for row in range(len(sentences)):
            result = await request.result(row)
            if isinstance(result, Exception):
                raise result
            translations.append(result)
    return translations


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def submit(
    batcher: Queue,
    *sentences: str,
    options: TranslateOptions = GREEDY,
    **arguments: Any,
) -> asyncio.Task[list[Translation]]:
    return asyncio.ensure_future(translate(batcher, sentences, options, **arguments))


def texts(translations: list[Translation]) -> list[str]:
    return [translation.text for translation in translations]


async def held(batcher: Queue, gate: Gate) -> asyncio.Task[list[Translation]]:
    """A request whose batch is being translated, so that others wait."""
    first = submit(batcher, "first")
    await until(lambda: gate.batches)
    return first


def test_a_lone_request_goes_at_once() -> None:
    async def scenario() -> None:
        gate = Gate(opened=True)
        batcher = batcher_of(gate)
        assert texts(await translate(batcher, ["a", "b"])) == ["A", "B"]
        assert await translate(batcher, []) == []
        assert gate.batches == [["a", "b"]]
        await batcher.close()

    run(scenario)


def test_what_waits_is_translated_together() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate)
        first = await held(batcher, gate)
        others = [submit(batcher, f"s{index}") for index in range(5)]
        beam = submit(batcher, "beam", options=BEAM)
        await until(lambda: batcher.waiting == 6)
        gate.open()
        assert texts(await first) == ["FIRST"]
        assert [texts(await other) for other in others] == [[f"S{i}"] for i in range(5)]
        assert texts(await beam) == ["BEAM"]
        assert sorted(gate.batches[1]) == ["s0", "s1", "s2", "s3", "s4"]
        assert gate.batches[2] == ["beam"]
        await batcher.close()

    run(scenario)


def test_batches_are_cut_by_padded_tokens() -> None:
    async def scenario() -> None:
        gate = Gate(opened=True)
        batcher = batcher_of(gate, max_batch_tokens=64)
        short, long = "w", " ".join(["w"] * 20)  # 8 and 23 padded tokens
        await translate(batcher, [short] * 10 + [long] * 4)
        assert [len(batch) for batch in gate.batches] == [8, 2, 2, 2]
        await batcher.close()

    run(scenario)


def test_a_one_liner_does_not_wait_for_a_document() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, max_batch_sentences=4, queue_sentences=20_000)
        document = submit(batcher, *(f"l{index}" for index in range(10)))
        await until(lambda: gate.batches)
        line = submit(batcher, "line")
        await until(lambda: batcher.waiting == 7)
        gate.let(2)
        assert texts(await line) == ["LINE"]
        assert gate.batches[1] == ["l4", "l5", "l6", "line"]
        assert not document.done()
        gate.open()
        assert texts(await document) == [f"L{index}" for index in range(10)]
        await batcher.close()

    run(scenario)


def test_bulk_comes_after_interactive() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, max_batch_sentences=4)
        first = await held(batcher, gate)
        bulk = submit(batcher, *(f"b{index}" for index in range(6)), priority=Priority.BULK)
        urgent = submit(batcher, *(f"u{index}" for index in range(5)))
        await until(lambda: batcher.waiting == 11)
        gate.open()
        await asyncio.gather(first, bulk, urgent)
        assert [sorted(batch) for batch in gate.batches[1:]] == [
            ["b0", "u0", "u1", "u2"],
            ["b1", "b2", "u3", "u4"],
            ["b3", "b4", "b5"],
        ]
        await batcher.close()

    run(scenario)


def test_each_sentence_comes_as_it_is_ready() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, max_batch_sentences=2)
        request = request_of(["a", "b", "c"])
        with batcher.queued(request):
            gate.let(1)
            assert await request.result(0) == Translation("A", 1)
            assert await request.result(1) == Translation("B", 1)
            third = asyncio.ensure_future(request.result(2))
            await until(lambda: len(gate.batches) == 2)
            assert not third.done()
            gate.let(1)
            assert await third == Translation("C", 1)
            assert request.is_finished
        await batcher.close()

    run(scenario)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"queue_sentences": 3}, "4 sentences wait, 3 may"),
        ({"queue_tokens": 34}, "32 padded tokens wait, 34 may"),
    ],
)
def test_a_full_queue_refuses(limits: dict[str, int], message: str) -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, max_batch_sentences=2, **limits)
        first = await held(batcher, gate)
        large = submit(batcher, "a", "b", "c", "d")  # nothing else waits, so it is taken
        await until(lambda: batcher.waiting == 4)
        with pytest.raises(QueueFullError, match=message):
            await translate(batcher, ["e"])
        with pytest.raises(QueueFullError, match=message), batcher.queued(request_of(["e"])):
            raise AssertionError("must not be entered")
        gate.open()
        assert len(await large) == 4
        assert len(await first) == 1
        assert texts(await translate(batcher, ["e"])) == ["E"]
        assert (batcher.waiting, batcher.waiting_tokens) == (0, 0)
        await batcher.close()

    run(scenario)


def test_a_document_leaves_room_for_one_liners() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, queue_sentences=3)
        first = await held(batcher, gate)
        bulk = submit(batcher, *("b" * 10_000), priority=Priority.BULK)
        await until(lambda: batcher.waiting == 10_000)
        with pytest.raises(QueueFullError):
            await translate(batcher, ["more"], priority=Priority.BULK)
        line = submit(batcher, "line")
        gate.let(2)
        assert texts(await line) == ["LINE"]
        assert not bulk.done()
        bulk.cancel()
        gate.open()
        await first
        await batcher.close()

    run(scenario)


def test_a_request_that_was_given_up_frees_its_place() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, queue_sentences=2)
        first = await held(batcher, gate)
        gone, stays = submit(batcher, "gone"), submit(batcher, "stays")
        await until(lambda: batcher.waiting == 2)
        gone.cancel()
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        after = submit(batcher, "after")
        gate.open()
        assert texts(await stays) == ["STAYS"]
        assert texts(await after) == ["AFTER"]
        await first
        assert gate.batches == [["first"], ["stays", "after"]]
        await batcher.close()

    run(scenario)


def test_leaving_the_queue_drops_the_rest() -> None:
    async def scenario() -> None:
        gate = Gate(opened=True)
        batcher = batcher_of(gate, max_batch_sentences=1)
        request = request_of(["a", "b", "c", "d"])
        with batcher.queued(request):
            await request.result(0)
        assert batcher.waiting == 0
        assert texts(await translate(batcher, ["e"])) == ["E"]
        assert len(gate.batches) < 5
        await batcher.close()

    run(scenario)


def test_a_request_past_its_deadline_leaves_the_queue() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate)
        first = await held(batcher, gate)
        with pytest.raises(DeadlineError, match="not translated in time"):
            await translate(batcher, ["late"], within_s=0.003)
        assert batcher.waiting == 0
        with pytest.raises(DeadlineError):
            await translate(batcher, ["late"], within_s=0)
        gate.open()
        assert texts(await first) == ["FIRST"]
        assert texts(await translate(batcher, ["soon"], within_s=10)) == ["SOON"]
        assert gate.batches == [["first"], ["soon"]]
        await batcher.close()

    run(scenario)


def test_a_poisoned_sentence_fails_alone() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate)
        first = await held(batcher, gate)
        bad = submit(batcher, "fine", "bad", "never asked for")
        good = [submit(batcher, f"good{index}") for index in range(20)]
        await until(lambda: batcher.waiting == 23)
        gate.open()
        with pytest.raises(RuntimeError, match="bad sentence"):
            await bad
        assert [texts(await one) for one in good] == [[f"GOOD{i}"] for i in range(20)]
        assert texts(await first) == ["FIRST"]
        assert sum("bad" in batch for batch in gate.batches) <= 6  # 23 halved down to one
        await batcher.close()

    run(scenario)


def test_a_request_goes_on_after_a_poisoned_sentence() -> None:
    async def scenario() -> None:
        batcher = batcher_of(Gate(opened=True))
        request = request_of(["a", "bad", "c"])
        with batcher.queued(request):
            results = [await request.result(row) for row in range(3)]
        assert [type(result) for result in results] == [Translation, RuntimeError, Translation]
        await batcher.close()

    run(scenario)


def test_an_engine_that_loses_sentences_is_caught() -> None:
    async def scenario() -> None:
        batcher = batcher_of(lambda sentences, options: [])
        with pytest.raises(RuntimeError, match="0 translations for 1 sentences"):
            await translate(batcher, ["a"])
        await batcher.close()

    run(scenario)


def test_a_fault_outside_of_the_engine_stops_no_worker() -> None:
    async def scenario() -> None:
        def fails(report: BatchReport) -> None:
            raise ValueError("metrics are broken")

        batcher = batcher_of(Gate(opened=True), on_batch=fails)
        assert texts(await translate(batcher, ["a"])) == ["A"]
        assert texts(await translate(batcher, ["b"])) == ["B"]
        await batcher.close()

    run(scenario)


def test_batches_are_reported() -> None:
    async def scenario() -> None:
        reports: list[BatchReport] = []
        batcher = batcher_of(Gate(opened=True), on_batch=reports.append)
        await translate(batcher, ["a", "b b b b b b b"])
        await batcher.close()
        [report] = reports
        assert (report.sentences, report.padded_tokens) == (2, 8 + 8)
        [(sentences, waited)] = report.waited
        assert sentences == 2
        assert 0 <= waited < 5
        assert 0 < report.seconds < 5

    run(scenario)


def test_closing_finishes_what_is_here() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate, max_batch_sentences=1)
        requests = [submit(batcher, f"r{index}") for index in range(4)]
        await until(lambda: gate.batches)
        closing = asyncio.ensure_future(batcher.close(grace_s=10))
        await asyncio.sleep(0)
        with pytest.raises(ClosedError):
            await translate(batcher, ["new"])
        gate.open()
        await closing
        assert [texts(await one) for one in requests] == [[f"R{i}"] for i in range(4)]

    run(scenario)


def test_closing_lets_nobody_wait_for_ever() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = batcher_of(gate)
        first = await held(batcher, gate)
        waits = submit(batcher, "waits")
        await until(lambda: batcher.waiting == 1)
        await batcher.close(grace_s=0.002)
        for request in (first, waits):
            with pytest.raises(ClosedError, match="stopping"):
                await request
        gate.open()

    run(scenario)


@pytest.mark.parametrize("workers", [1, 3])
def test_thousands_of_requests(workers: int) -> None:
    """Each gets its own sentences in order, or its own error; whoever gives up is forgotten."""
    rng = random.Random(workers)
    tried: Counter[str] = Counter()
    lock = threading.Lock()

    def engine(sentences: Sequence[str], options: TranslateOptions) -> list[Translation]:
        with lock:
            tried.update(sentences)
        if any("bad" in sentence for sentence in sentences):
            raise RuntimeError("bad sentence")
        return [Translation(f"{sentence}/{options.beam_size}", 1) for sentence in sentences]

    async def request(batcher: Queue, number: int) -> None:
        count = rng.choice([1, 1, 1, 2, 3, 40])
        sentences = [f"{number}.{row} " + "w " * rng.choice([1, 8, 30]) for row in range(count)]
        options = rng.choice([GREEDY, BEAM])
        if fails := number % 50 == 0:
            sentences[rng.randrange(count)] += "bad"
        task = submit(batcher, *sentences, options=options, priority=rng.choice(list(Priority)))
        if number % 33 == 1:
            await asyncio.sleep(0)
            task.cancel()
        try:
            found = texts(await task)
        except RuntimeError:
            assert fails
        except asyncio.CancelledError:
            assert number % 33 == 1
        else:
            assert not fails
            assert found == [f"{sentence}/{options.beam_size}" for sentence in sentences]

    async def scenario() -> None:
        batcher = batcher_of(engine, workers=workers, queue_sentences=10**6, queue_tokens=10**8)
        await asyncio.gather(*(request(batcher, number) for number in range(1500)))
        assert (batcher.waiting, batcher.waiting_tokens) == (0, 0)
        await batcher.close()

    run(scenario)
    once = [sentence for sentence in tried if "bad" not in sentence]
    assert len(once) > 4000
    again = [sentence for sentence in once if tried[sentence] > 1]
    assert len(again) <= 1500 / 50 * 64  # only those that shared a batch with a bad one
