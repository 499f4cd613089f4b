"""Sentences → checked translations: the cache, the queue, and second tries joined.

One `Pipeline` serves all endpoints and models. A request's second tries are one job in the queue
at a time, so they take no more of a batch than the request itself.

A request in the pipeline: what it asks for, and its sentences on their way.

Translations that were made already or are being made: none is made twice.

A key holds everything that changes the output: the model (its manifest's hash, hence that of all
files, and the engine's name), the options, and the sentence itself, in which glossary terms stand.
It is a tuple of typed values, so no two keys are ever joined into the same text.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Generic, NamedTuple, Protocol, TypeVar

from export.runtime.engines import Engine, TranslateOptions, Translation
from service import observability
from service.batching import Batcher, ClosedError, DeadlineError, QueueFullError
from service.fair_queue import Priority
from service.fallback import SentenceWarning, check_output, fallback_options, pick_better
from service.request_context import current_metrics
from service.settings import Settings

V = TypeVar("V")
Rank = tuple[int, int]
"""A request's priority and its sentences: the queue serves lower ranks no later."""
ENTRY_BYTES = 700
"""What an entry takes beside its texts: key, options, dictionary, translation."""


class CacheKey(NamedTuple):
    """What a translation depends on. `model`: its identity; `checked`: with second tries."""

    model: str
    options: TranslateOptions
    checked: bool
    sentence: str


@dataclass(frozen=True)
class _Flight(Generic[V]):
    """A translation in the making, by a request of such a rank."""

    future: asyncio.Future[V | None]
    rank: Rank


class TranslationCache(Generic[V]):
    """The most recently used values, of at most `max_bytes` (their texts and a constant each), and
    those in the making. With `max_bytes` 0 it keeps and joins nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[CacheKey, tuple[V, int]] = OrderedDict()
        self._flights: dict[CacheKey, _Flight[V]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: CacheKey) -> V | None:
        """The value of a key, which is now the most recently used."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: CacheKey, value: V, *texts: str) -> None:
        """Keep a value whose texts are given; the least recently used ones make room."""
        size = ENTRY_BYTES + sum(map(sys.getsizeof, (key.sentence, *texts)))
        if size > self._max_bytes:
            return
        if key in self._values:
            self.bytes -= self._values.pop(key)[1]
        self._values[key] = (value, size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed

    def join(self, key: CacheKey, rank: Rank) -> asyncio.Future[V | None] | None:
        """The future of a key in the making, for a request of a rank.

        Only if a request of the same or a lower rank makes it, so that a one-liner never waits for
        a document. The result is None if its maker gave up.
        """
        flight = self._flights.get(key)
        return flight.future if flight and flight.rank <= rank else None

    def open(self, key: CacheKey, rank: Rank, future: asyncio.Future[V | None]) -> None:
        """Say that a request of a rank makes a key's value, which others may join."""
        if not self._max_bytes:
            return
        flight = _Flight(future, rank)
        self._flights[key] = flight
        future.add_done_callback(lambda _: self._land(key, flight))

    def _land(self, key: CacheKey, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


class ServedModel(Protocol):
    """A loaded model. Two are equal if and only if their identities are: the hash of the bundle's
    manifest with the engine's name."""

    @property
    def identity(self) -> str: ...

    @property
    def engine(self) -> Engine: ...


@dataclass(frozen=True)
class BatchKey:
    """What sentences of a batch have in common."""

    model: ServedModel
    options: TranslateOptions


@dataclass(frozen=True)
class CheckedTranslation:
    """A sentence's translation and what looks wrong with it."""

    translation: Translation
    warnings: tuple[SentenceWarning, ...] = ()

    def without_score(self) -> CheckedTranslation:
        """The same for who did not ask for a score."""
        one = self.translation
        if one.score is None:
            return self
        kept = Translation(one.text, one.tokens, None, one.truncated, one.alternatives)
        return CheckedTranslation(kept, self.warnings)


Outcome = CheckedTranslation | Exception
PendingOutcome = asyncio.Future[Outcome | None]
"""What will be known of a sentence; None: the request that translates it gave up."""


@dataclass(eq=False)
class SentenceTask:
    """A sentence that a request translates itself, its place in the cache; `best` of the tries so
    far, and what looks wrong with it."""

    text: str
    key: CacheKey
    tokens: int
    future: PendingOutcome
    best: Translation | None = None
    warnings: tuple[SentenceWarning, ...] = ()

    def keep(self, translation: Translation) -> None:
        """This is the best one so far."""
        self.best = translation
        self.warnings = check_output(self.text, self.tokens, translation)

    def answer(self, outcome: Outcome | None) -> None:
        """Say what came of it, if that is not said yet."""
        if not self.future.done():
            self.future.set_result(outcome)


@dataclass(eq=False)
class InFlightRequest:
    """A request on its way.

    `deadline`: by the event loop's clock; `own`: the sentences that it translates itself; `error`:
    what ended it before its time; `doubtful`: those that look wrong and are to be tried again.
    """

    kind: BatchKey
    priority: Priority
    second_tries: bool
    deadline: float | None
    own: list[SentenceTask] = field(default_factory=list)
    error: Exception | None = None
    doubtful: asyncio.Queue[SentenceTask] = field(default_factory=asyncio.Queue)

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, None if there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


logger = logging.getLogger("quickstudy.service")


@lru_cache(256)
def _with_scores(options: TranslateOptions) -> TranslateOptions:
    return replace(options, return_scores=True)


class Scheduler:
    """The queue and the cache of all models. It belongs to the event loop of its first request."""

    def __init__(self, settings: Settings) -> None:
        self._second_tries = settings.second_tries
        self._cache: TranslationCache[Outcome] = TranslationCache(settings.cache_bytes)
        # By identity: a model that was swapped out is not held.
        self._refused: set[tuple[str, TranslateOptions]] = set()
        self.batcher: Batcher[BatchKey] = Batcher(
            lambda sentences, kind: kind.model.engine.translate_batch(sentences, kind.options),
            lambda sentence, kind: kind.model.engine.count_tokens(sentence),
            workers=settings.inter_threads,
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_sentences=settings.max_batch_sentences,
            queue_sentences=settings.queue_size,
            queue_tokens=settings.queue_tokens,
            on_batch=observability.count_batch,
        )

    async def translate(
        self,
        model: ServedModel,
        sentences: Sequence[str],
        options: TranslateOptions,
        *,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
        second_tries: bool = True,
    ) -> list[CheckedTranslation]:
        """Translate sentences, in order; `stream` says what it raises, and it raises what the
        engine does for the first sentence that fails."""
        if len(sentences) == 1:
            run = self._run(model, options, priority, within_s, second_tries)
            return [await self._translate_one(run, sentences[0], options.return_scores)]
        stream = self.stream(
            model,
            sentences,
            options,
            priority=priority,
            within_s=within_s,
            second_tries=second_tries,
        )
        found = []
        async with stream as outcomes:
            async for one in outcomes:
                if isinstance(one, Exception):
                    raise one
                found.append(one)
        return found

    @asynccontextmanager
    async def stream(
        self,
        model: ServedModel,
        sentences: Sequence[str],
        options: TranslateOptions,
        *,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
        second_tries: bool = True,
    ) -> AsyncIterator[AsyncIterator[Outcome]]:
        """Each sentence's translation, in order, once it and those before it are ready; or the
        exception that the engine raises for it.

        Entering raises QueueFullError and ClosedError; iterating raises DeadlineError after
        `within_s` seconds, and ClosedError. Leaving drops what still waits. `second_tries`, unless
        the settings switch them off, translate what looks wrong up to twice more.
        """
        run = self._run(model, options, priority, within_s, second_tries)
        places = await self._plan(run, sentences)
        tasks: list[asyncio.Task[None]] = []
        try:
            async with self.batcher.stream(
                [one.text for one in run.own],
                run.kind,
                tokens=[one.tokens for one in run.own],
                priority=priority,
                within_s=run.time_left,
            ) as found:
                tasks = [asyncio.create_task(self._read(run, found))]
                if run.second_tries:
                    tasks.append(asyncio.create_task(self._try_again(run)))
                yield self._in_order(run, places, keep_scores=options.return_scores)
        finally:
            for task in tasks:
                task.cancel()
            for one in run.own:
                one.answer(None)

    async def close(self, grace_s: float = 0.0) -> None:
        """Finish what is here within `grace_s` seconds, and stop."""
        await self.batcher.close(grace_s)

    def _run(
        self,
        model: ServedModel,
        options: TranslateOptions,
        priority: Priority,
        within_s: float | None,
        second_tries: bool,
    ) -> InFlightRequest:
        checked = second_tries and self._second_tries
        deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
        if checked and not options.return_scores:
            options = _with_scores(options)
        return InFlightRequest(BatchKey(model, options), priority, checked, deadline)

    async def _translate_one(
        self, run: InFlightRequest, sentence: str, keep_scores: bool
    ) -> CheckedTranslation:
        """A request of one sentence, most of them, without the tasks that a stream needs."""
        [(_, place)] = await self._plan(run, [sentence])
        try:
            if run.own:
                await self._first_try(run, run.own[0])
            outcome = await self._outcome(run, sentence, place, keep_scores)
        finally:
            for one in run.own:
                one.answer(None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _first_try(self, run: InFlightRequest, one: SentenceTask) -> None:
        result = await self.batcher.translate_one(
            one.text,
            run.kind,
            tokens=one.tokens,
            priority=run.priority,
            within_s=run.time_left,
        )
        if isinstance(result, Exception):
            one.answer(result)
            return
        one.keep(result)
        if run.second_tries and one.warnings:
            await self._further_tries(run, [one])
        self._settle(run, one)

    async def _plan(
        self, run: InFlightRequest, sentences: Sequence[str]
    ) -> list[tuple[str, Outcome | PendingOutcome]]:
        """For each sentence what the cache has, or the future that will have it: another
        request's, or one of our own, of which equal sentences share one."""
        rank = (run.priority, len(sentences))
        new: dict[str, tuple[CacheKey, PendingOutcome]] = {}
        known: dict[str, Outcome | PendingOutcome] = {}
        for sentence in dict.fromkeys(sentences):
            key = CacheKey(run.kind.model.identity, run.kind.options, run.second_tries, sentence)
            found = self._look_up(key, rank)
            if found is None:
                found = asyncio.get_running_loop().create_future()
                new[sentence] = key, found
                self._cache.open(key, rank, found)
            known[sentence] = found
        try:
            counts = await self.batcher.count(list(new), run.kind)
        except BaseException:
            for _, future in new.values():
                future.set_result(None)
            raise
        if (record := current_metrics()) is not None:
            record.tokens += sum(counts)
        run.own = [
            SentenceTask(sentence, key, tokens, future)
            for (sentence, (key, future)), tokens in zip(new.items(), counts, strict=True)
        ]
        return [(sentence, known[sentence]) for sentence in sentences]

    def _look_up(self, key: CacheKey, rank: Rank) -> Outcome | PendingOutcome | None:
        """What the cache has, or another request is making."""
        found = self._cache.get(key)
        if found is not None:
            observability.count_lookup("hit")
            if (record := current_metrics()) is not None:
                record.cache_hits += 1
            return found
        pending = self._cache.join(key, rank)
        observability.count_lookup("joined" if pending else "miss")
        return pending

    async def _in_order(
        self,
        run: InFlightRequest,
        places: Sequence[tuple[str, Outcome | PendingOutcome]],
        keep_scores: bool,
    ) -> AsyncIterator[Outcome]:
        for sentence, place in places:
            yield await self._outcome(run, sentence, place, keep_scores)

    async def _outcome(
        self,
        run: InFlightRequest,
        sentence: str,
        place: Outcome | PendingOutcome,
        keep_scores: bool,
    ) -> Outcome:
        """What came of a sentence, once it is there."""
        outcome: Outcome | None
        if isinstance(place, asyncio.Future):
            outcome = place.result() if place.done() else await self._wait(run, place)
            if outcome is None and any(one.future is place for one in run.own):
                raise run.error or ClosedError("the request was given up")
            if outcome is None:  # the request that made it gave up
                outcome = await self._alone(run, sentence)
        else:
            outcome = place
        if isinstance(outcome, CheckedTranslation) and not keep_scores:
            outcome = outcome.without_score()
        return outcome

    async def _wait(self, run: InFlightRequest, future: PendingOutcome) -> Outcome | None:
        try:
            async with asyncio.timeout_at(run.deadline):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineError("not translated in time") from None

    async def _alone(self, run: InFlightRequest, sentence: str) -> Outcome:
        stream = self.stream(
            run.kind.model,
            [sentence],
            run.kind.options,
            priority=run.priority,
            within_s=run.time_left,
            second_tries=run.second_tries,
        )
        async with stream as outcomes:
            return await anext(outcomes)

    async def _read(
        self, run: InFlightRequest, found: AsyncIterator[Translation | Exception]
    ) -> None:
        """Take the first tries as they come; what looks wrong goes to the second tries."""
        try:
            for one in run.own:
                result = await anext(found)
                if isinstance(result, Exception):
                    one.answer(result)
                    continue
                one.keep(result)
                if run.second_tries and one.warnings:
                    run.doubtful.put_nowait(one)
                else:
                    self._settle(run, one)
        except Exception as error:
            run.error = error
            for one in run.own:
                one.answer(None)

    async def _try_again(self, run: InFlightRequest) -> None:
        """Translate what looks wrong again, all that there is at a time."""
        while True:
            doubtful = [await run.doubtful.get()]
            while not run.doubtful.empty():
                doubtful.append(run.doubtful.get_nowait())
            await self._further_tries(run, doubtful)
            for one in doubtful:
                self._settle(run, one)

    async def _further_tries(self, run: InFlightRequest, doubtful: Sequence[SentenceTask]) -> None:
        try:
            for options in fallback_options(run.kind.options):
                left = [one for one in doubtful if not one.future.done()]
                await self._one_try(run, left, BatchKey(run.kind.model, options))
        except Exception:
            logger.exception("second tries failed: the first ones have to do")

    async def _one_try(
        self, run: InFlightRequest, doubtful: Sequence[SentenceTask], kind: BatchKey
    ) -> None:
        """Keep what is better; settle what no longer looks wrong."""
        search = (kind.model.identity, kind.options)
        if not doubtful or search in self._refused:
            return
        stream = self.batcher.stream(
            [one.text for one in doubtful],
            kind,
            tokens=[one.tokens for one in doubtful],
            priority=run.priority,
            within_s=run.time_left,
        )
        try:
            async with stream as results:
                for one in doubtful:
                    result = await anext(results)
                    if isinstance(result, ValueError):
                        self._refused.add(search)  # the engine has no such search
                        return
                    if isinstance(result, Exception) or one.best is None:
                        continue
                    kept = pick_better(one.text, one.tokens, one.best, result)
                    observability.count_second_try(kept is result)
                    if kept is result:
                        one.keep(kept)
                    if not one.warnings:
                        self._settle(run, one)
        except (QueueFullError, DeadlineError, ClosedError):
            return  # the first try has to do

    def _settle(self, run: InFlightRequest, one: SentenceTask) -> None:
        """A sentence is done: answer, keep, count its warnings."""
        if one.best is None or one.future.done():
            return
        for warning in one.warnings:
            observability.count_warning(warning.code)
        checked = CheckedTranslation(one.best, one.warnings)
        texts = (one.best.text, *one.best.alternatives)
        self._cache.put(one.key, checked, *texts)
        one.answer(checked)
