"""The queue: batches form under load, and faults stay where they belong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from export.engines import TranslateOptions, Translation
from service.batcher import Batcher, QueueFullError

GREEDY = TranslateOptions()
BEAM = TranslateOptions(beam_size=4)


class Gate:
    """A translate_batch that waits to be let through, and keeps what it was given."""

    def __init__(self, opened: bool = False) -> None:
        self.batches: list[list[str]] = []
        self._open = threading.Event()
        if opened:
            self._open.set()

    def __call__(self, sentences: Sequence[str], options: TranslateOptions) -> list[Translation]:
        self.batches.append(list(sentences))
        assert self._open.wait(10)
        if any("bad" in sentence for sentence in sentences):
            raise RuntimeError("bad sentence")
        return [Translation(sentence.upper(), 1) for sentence in sentences]

    def open(self) -> None:
        self._open.set()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def submit(
    batcher: Batcher, *sentences: str, options: TranslateOptions = GREEDY
) -> asyncio.Task[list[Translation]]:
    return asyncio.ensure_future(batcher.submit(sentences, options))


def texts(translations: list[Translation]) -> list[str]:
    return [translation.text for translation in translations]


def test_a_lone_request_goes_at_once() -> None:
    async def scenario() -> None:
        gate = Gate(opened=True)
        batcher = Batcher(gate)
        assert texts(await batcher.submit(["a", "b"], GREEDY)) == ["A", "B"]
        assert await batcher.submit([], GREEDY) == []
        assert gate.batches == [["a", "b"]]
        await batcher.close()

    run(scenario)


def test_what_waits_is_translated_together() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        first = submit(batcher, "first")
        await until(lambda: gate.batches)
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


def test_a_long_request_does_not_hold_up_short_ones() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, max_batch_sentences=4)
        first = submit(batcher, "first")
        await until(lambda: gate.batches)
        long = submit(batcher, *(f"l{index}" for index in range(10)))
        short = submit(batcher, "short")
        await until(lambda: batcher.waiting == 11)
        gate.open()
        await first
        assert texts(await short) == ["SHORT"]
        assert texts(await long) == [f"L{index}" for index in range(10)]
        assert gate.batches[1] == ["short", "l0", "l1", "l2"]
        assert all(len(batch) <= 4 for batch in gate.batches)
        await batcher.close()

    run(scenario)


def test_a_full_queue_refuses() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate, queue_size=3, max_batch_sentences=2)
        first = submit(batcher, "first")
        await until(lambda: gate.batches)
        large = submit(batcher, "a", "b", "c", "d")  # nothing else waits, so it is taken
        await until(lambda: batcher.waiting == 4)
        with pytest.raises(QueueFullError, match="4 sentences wait, 3 may"):
            await batcher.submit(["e"], GREEDY)
        gate.open()
        assert len(await large) == 4
        assert len(await first) == 1
        assert texts(await batcher.submit(["e"], GREEDY)) == ["E"]
        await batcher.close()

    run(scenario)


def test_a_request_that_was_given_up_is_dropped() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        first = submit(batcher, "first")
        await until(lambda: gate.batches)
        gone, stays = submit(batcher, "gone"), submit(batcher, "stays")
        await until(lambda: batcher.waiting == 2)
        gone.cancel()
        await until(lambda: batcher.waiting == 1)
        gate.open()
        assert texts(await stays) == ["STAYS"]
        await first
        assert gate.batches == [["first"], ["stays"]]
        await batcher.close()

    run(scenario)


def test_a_fault_reaches_only_its_request() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        first = submit(batcher, "first")
        await until(lambda: gate.batches)
        bad, good = submit(batcher, "bad"), submit(batcher, "good")
        await until(lambda: batcher.waiting == 2)
        gate.open()
        with pytest.raises(RuntimeError, match="bad sentence"):
            await bad
        assert texts(await good) == ["GOOD"]
        assert texts(await first) == ["FIRST"]
        assert texts(await batcher.submit(["after"], GREEDY)) == ["AFTER"]
        await batcher.close()

    run(scenario)


def test_an_engine_that_loses_sentences_is_caught() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda sentences, options: [])
        with pytest.raises(RuntimeError, match="0 translations for 1 sentences"):
            await batcher.submit(["a"], GREEDY)
        await batcher.close()

    run(scenario)


def test_closing_lets_nobody_wait() -> None:
    async def scenario() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        submit(batcher, "first")
        await until(lambda: gate.batches)
        waits = submit(batcher, "waits")
        await until(lambda: batcher.waiting == 1)
        gate.open()
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await waits

    run(scenario)
