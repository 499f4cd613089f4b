"""The cache: what a key is, what is forgotten first, who joins whom."""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from export.runtime.engines import TranslateOptions
from service.cache import ENTRY_BYTES, CacheKey, TranslationCache
from service.fair_queue import Priority

GREEDY = TranslateOptions()


def key(sentence: str, options: TranslateOptions = GREEDY, model: str = "m") -> CacheKey:
    return CacheKey(model, options, True, sentence)


def size(sentence: str, value: str) -> int:
    return ENTRY_BYTES + sys.getsizeof(sentence) + sys.getsizeof(value)


def test_what_changes_the_output_is_in_the_key() -> None:
    cache: TranslationCache[str] = TranslationCache(100_000)
    cache.put(key("a|b"), "A|B", "A|B")
    assert cache.get(key("a|b")) == "A|B"
    for other in (
        key("a"),
        key("b"),
        key("A|B"),
        key("a|b", TranslateOptions(beam_size=2)),
        key("a|b", TranslateOptions(return_scores=True)),
        key("a|b", TranslateOptions(alternatives=1)),
        key("a|b", TranslateOptions(repetition_penalty=1.1)),
        key("a|b", TranslateOptions(no_repeat_ngram_size=2)),
        key("a|b", TranslateOptions(formality="formal")),
        key("a|b", TranslateOptions(formality="informal")),
        key("a|b", model="n"),
        key("a|b")._replace(fallback=False),
    ):
        assert cache.get(other) is None, other


def test_the_least_recently_used_goes_first() -> None:
    cache: TranslationCache[str] = TranslationCache(3 * size("a", "A"))
    for sentence in "abc":
        cache.put(key(sentence), sentence.upper(), sentence.upper())
    assert cache.bytes == 3 * size("a", "A")
    assert cache.get(key("a")) == "A"
    cache.put(key("d"), "D", "D")
    assert [cache.get(key(sentence)) for sentence in "abcd"] == ["A", None, "C", "D"]
    cache.put(key("a"), "Z", "Z")
    assert (len(cache), cache.get(key("a"))) == (3, "Z")


@pytest.mark.parametrize("seed", range(5))
def test_its_bytes_are_bounded(seed: int) -> None:
    rng = random.Random(seed)
    bound = 20_000
    cache: TranslationCache[str] = TranslationCache(bound)
    for _ in range(500):
        sentence, value = str(rng.randrange(200)), "x" * rng.choice([1, 100, 5000, 50_000])
        cache.put(key(sentence), value, value)
        kept = {k: v for k in map(key, map(str, range(200))) if (v := cache._values.get(k))}
        assert cache.bytes == sum(size(k.sentence, v[0]) for k, v in kept.items()) <= bound


def test_a_value_too_large_is_not_kept() -> None:
    cache: TranslationCache[str] = TranslationCache(2 * size("a", "A"))
    cache.put(key("a"), "A", "A")
    cache.put(key("b"), "B" * 10_000, "B" * 10_000)
    assert (cache.get(key("a")), cache.get(key("b"))) == ("A", None)


def test_zero_switches_it_off() -> None:
    async def scenario() -> None:
        cache: TranslationCache[str] = TranslationCache(0)
        cache.put(key("a"), "A", "A")
        assert cache.get(key("a")) is None
        cache.open(key("a"), (0, 1), asyncio.get_running_loop().create_future())
        assert cache.join(key("a"), (1, 9)) is None

    asyncio.run(scenario())


def test_only_requests_of_a_higher_rank_join() -> None:
    async def scenario() -> None:
        cache: TranslationCache[str] = TranslationCache(1000)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        cache.open(key("a"), (0, 5), future)
        assert cache.join(key("a"), (0, 5)) is future
        assert cache.join(key("a"), (0, 9)) is future
        assert cache.join(key("a"), (1, 1)) is future  # bulk waits for interactive
        assert cache.join(key("a"), (0, 1)) is None  # a one-liner does not wait for a document
        assert cache.join(key("b"), (0, 5)) is None
        own: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        cache.open(key("a"), (0, 1), own)
        future.set_result("A")
        await asyncio.sleep(0)
        assert cache.join(key("a"), (0, 1)) is own  # the first one's end is not the second's
        own.set_result("A")
        await asyncio.sleep(0)
        assert cache.join(key("a"), (0, 1)) is None

    asyncio.run(scenario())


def test_a_value_that_was_given_up_is_not_joined_before_its_callbacks_run() -> None:
    """Who joins it would be told at once that it was given up, and would join it again."""

    async def scenario() -> None:
        cache: TranslationCache[str] = TranslationCache(10_000)
        future = asyncio.get_running_loop().create_future()
        cache.open(key("a"), (Priority.INTERACTIVE, 1), future)
        assert cache.join(key("a"), (Priority.INTERACTIVE, 1)) is future
        future.set_result(None)
        assert cache.join(key("a"), (Priority.INTERACTIVE, 1)) is None

    asyncio.run(scenario())
