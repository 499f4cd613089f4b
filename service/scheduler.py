"""Translates sentences: joins the cache, the queue and fallback decoding.

One `Scheduler` serves all endpoints and models. A sentence that the cache holds, or that another
request is translating, is not translated again. A translation that looks wrong is decoded again
with other options (`service/fallback.py`). A request has one fallback batch in the queue at a time,
so its fallbacks take no more of a batch than the request itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from export.runtime.engines import Engine, TranslateOptions, Translation, unsupported_option
from quickstudy.form_of_address import Formality
from service import observability
from service.batching import Batcher, ClosedError, DeadlineError, QueuedRequest, QueueFullError
from service.cache import CacheKey, Rank, TranslationCache
from service.fair_queue import Priority
from service.fallback import (
    AskedForm,
    TranslationWarning,
    check_output,
    fallback_options,
    pick_better,
)
from service.observability import current_metrics
from service.settings import Settings

logger = logging.getLogger("quickstudy.service")

COUNT_IN_THREAD_ABOVE = 2000
"""Characters of a request's sentences above which their tokens are counted off the event loop."""


class ServedModel(Protocol):
    """A loaded model. Two are equal if and only if their identities are: the hash of the bundle's
    manifest with the engine's name."""

    @property
    def identity(self) -> str: ...

    @property
    def engine(self) -> Engine: ...

    def asked_form(self, formality: Formality | None) -> AskedForm | None:
        """The form of address that translations by this option should have, where it can be told
        from their text."""


@dataclass(frozen=True)
class BatchKey:
    """What the sentences of a batch have in common."""

    model: ServedModel
    options: TranslateOptions


@dataclass(frozen=True)
class CheckedTranslation:
    """A sentence's translation and what looks wrong with it."""

    translation: Translation
    warnings: tuple[TranslationWarning, ...] = ()

    def without_score(self) -> CheckedTranslation:
        """The same without the score, for requests that did not ask for it."""
        scored = self.translation
        if scored.score is None:
            return self
        unscored = Translation(
            scored.text, scored.tokens, None, scored.truncated, scored.alternatives
        )
        return CheckedTranslation(unscored, self.warnings)


Outcome = CheckedTranslation | Exception
PendingOutcome = asyncio.Future[Outcome | None]
"""The outcome of a sentence in progress; None if the request that translates it was given up."""


@dataclass(eq=False)
class SentenceTask:
    """A sentence that a request translates itself: its cache key, the best translation so far,
    what looks wrong with it, and whether it has the other form of address than asked for."""

    key: CacheKey
    future: PendingOutcome
    asked_form: AskedForm | None = None
    tokens: int = 0
    best: Translation | None = None
    warnings: tuple[TranslationWarning, ...] = ()
    misses_form: bool = False

    def keep(self, translation: Translation) -> None:
        """Make this the best translation so far."""
        self.best = translation
        self.warnings = check_output(self.key.sentence, self.tokens, translation)
        if self.asked_form is not None:
            self.misses_form = self.asked_form.is_missed_by(translation.text)

    @property
    def is_fine(self) -> bool:
        return not self.warnings and not self.misses_form

    def better_of(self, found: Translation) -> Translation | None:
        """What fallback decoding found, if it is better."""
        if self.best is None:
            return None
        better = pick_better(self.key.sentence, self.tokens, self.best, found)
        return found if better is found else None

    def in_asked_form(self, found: Translation) -> Translation | None:
        """Of what was found, the best that has the asked form of address."""
        if self.best is None or self.asked_form is None:
            return None
        return self.asked_form.pick(self.key.sentence, self.tokens, self.best, found)

    def finish(self, outcome: Outcome | None) -> None:
        """Set the outcome, unless it is set already."""
        if not self.future.done():
            self.future.set_result(outcome)


Place = tuple[CacheKey, Outcome | PendingOutcome | SentenceTask]
"""Where the outcome of a sentence comes from: the cache, another request, or a task of our own."""
Request = QueuedRequest[BatchKey]


@lru_cache(256)
def _with_scores(options: TranslateOptions) -> TranslateOptions:
    return replace(options, return_scores=True)


class Scheduler:
    """The queue and the cache of all models. It belongs to the event loop of its first request."""

    def __init__(self, settings: Settings) -> None:
        self._fallback = settings.fallback_decoding
        self._cache: TranslationCache[Outcome] = TranslationCache(settings.cache_bytes)
        self.batcher: Batcher[BatchKey] = Batcher(
            lambda sentences, key: key.model.engine.translate_batch(sentences, key.options),
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
        fallback: bool = True,
    ) -> list[CheckedTranslation]:
        """Translate sentences, in order. Raises as `stream`, and what the engine raises for the
        first sentence that fails."""
        if len(sentences) == 1:
            outcome = await self._translate_one(
                model, sentences[0], options, priority, within_s, fallback
            )
            return [_successful(outcome)]
        if priority is Priority.BULK:
            return await self._translate_bulk(model, sentences, options, within_s, fallback)
        stream = self.stream(
            model,
            sentences,
            options,
            priority=priority,
            within_s=within_s,
            fallback=fallback,
        )
        async with stream as outcomes:
            return [_successful(outcome) async for outcome in outcomes]

    @asynccontextmanager
    async def stream(
        self,
        model: ServedModel,
        sentences: Sequence[str],
        options: TranslateOptions,
        *,
        priority: Priority = Priority.INTERACTIVE,
        within_s: float | None = None,
        fallback: bool = True,
    ) -> AsyncIterator[AsyncIterator[Outcome]]:
        """Each sentence's translation, in order, once it and those before it are ready; or the
        exception that the engine raises for it.

        Entering raises QueueFullError and ClosedError; iterating raises DeadlineError after
        `within_s` seconds, and ClosedError. Leaving drops what still waits. With `fallback`, unless
        the settings switch it off, what looks wrong is decoded up to twice more.
        """
        request, tasks, places = await self._plan(
            model, sentences, options, priority, within_s, fallback
        )
        workers: list[asyncio.Task[None]] = []
        try:
            with self.batcher.queued(request):
                flagged: asyncio.Queue[SentenceTask] = asyncio.Queue()
                workers = [
                    asyncio.create_task(self._read_results(request, tasks, flagged)),
                    asyncio.create_task(self._decode_flagged(request, flagged)),
                ]
                yield self._in_order(request, places, options.return_scores)
        finally:
            for worker in workers:
                worker.cancel()
            for task in tasks:
                task.finish(None)

    async def close(self, grace_s: float = 0.0) -> None:
        """Finish what is in progress within `grace_s` seconds, and stop."""
        await self.batcher.close(grace_s)

    async def _translate_bulk(
        self,
        model: ServedModel,
        sentences: Sequence[str],
        options: TranslateOptions,
        within_s: float | None,
        fallback: bool,
    ) -> list[CheckedTranslation]:
        """Translate sentences of which nobody reads the first before the last is ready: longest
        first, so that a batch has like lengths, and what looks wrong all at once at the end."""
        request, tasks, places = await self._plan(
            model, sentences, options, Priority.BULK, within_s, fallback
        )
        try:
            with self.batcher.queued(request):
                flagged = [
                    task
                    for row, task in enumerate(tasks)
                    if self._accept(task, await request.result(row))
                ]
            await self._decode_again(request, flagged)
            for task in flagged:
                self._settle(task)
            outcomes = [
                await self._outcome(request, place, options.return_scores) for place in places
            ]
        finally:
            for task in tasks:
                task.finish(None)
        return [_successful(outcome) for outcome in outcomes]

    async def _translate_one(
        self,
        model: ServedModel,
        sentence: str,
        options: TranslateOptions,
        priority: Priority,
        within_s: float | None,
        fallback: bool,
    ) -> Outcome:
        """Translate one sentence; again whenever a request that it has joined is given up."""
        loop = asyncio.get_running_loop()
        deadline = None if within_s is None else loop.time() + within_s
        while True:
            time_left = None if deadline is None else max(0.0, deadline - loop.time())
            outcome = await self._try_one(model, sentence, options, priority, time_left, fallback)
            if outcome is not None:
                return outcome

    async def _try_one(
        self,
        model: ServedModel,
        sentence: str,
        options: TranslateOptions,
        priority: Priority,
        within_s: float | None,
        fallback: bool,
    ) -> Outcome | None:
        """A request of one sentence, as most are, without the tasks that a stream needs; None if it
        has joined another request that was given up."""
        request, tasks, [place] = await self._plan(
            model, [sentence], options, priority, within_s, fallback
        )
        try:
            if tasks:
                with self.batcher.queued(request):
                    result = await request.result(0)
                if self._accept(tasks[0], result):
                    await self._decode_again(request, tasks)
                    self._settle(tasks[0])
            elif (
                isinstance(place[1], asyncio.Future) and await self._wait(request, place[1]) is None
            ):
                return None
            return await self._outcome(request, place, options.return_scores)
        finally:
            for task in tasks:
                task.finish(None)

    async def _plan(
        self,
        model: ServedModel,
        sentences: Sequence[str],
        options: TranslateOptions,
        priority: Priority,
        within_s: float | None,
        fallback: bool,
    ) -> tuple[Request, list[SentenceTask], list[Place]]:
        """Look every sentence up; tasks, and a request for the queue, for those not found. Equal
        sentences share a task."""
        deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
        fallback = fallback and self._fallback
        if fallback and not options.return_scores:
            options = _with_scores(options)
        rank = (priority, len(sentences))
        asked_form = model.asked_form(options.formality) if fallback else None
        tasks: list[SentenceTask] = []
        places: dict[str, Place] = {}
        for sentence in dict.fromkeys(sentences):
            key = CacheKey(model.identity, options, fallback, sentence)
            source: Outcome | PendingOutcome | SentenceTask | None = self._look_up(key, rank)
            if source is None:
                source = SentenceTask(key, asyncio.get_running_loop().create_future(), asked_form)
                tasks.append(source)
                self._cache.open(key, rank, source.future)
            places[sentence] = key, source
        try:
            await _count_tokens(model.engine, tasks)
        except BaseException:
            for task in tasks:
                task.finish(None)
            raise
        if priority is Priority.BULK:
            tasks.sort(key=lambda task: task.tokens, reverse=True)
        request = _request_for(tasks, BatchKey(model, options), priority, deadline)
        if request.metrics is not None:
            request.metrics.tokens += sum(task.tokens for task in tasks)
        return request, tasks, [places[sentence] for sentence in sentences]

    def _look_up(self, key: CacheKey, rank: Rank) -> Outcome | PendingOutcome | None:
        """What the cache holds, or another request is translating."""
        outcome = self._cache.get(key)
        if outcome is not None:
            observability.count_lookup("hit")
            if (metrics := current_metrics()) is not None:
                metrics.cache_hits += 1
            return outcome
        pending = self._cache.join(key, rank)
        observability.count_lookup("joined" if pending else "miss")
        return pending

    async def _in_order(
        self, request: Request, places: Sequence[Place], keep_scores: bool
    ) -> AsyncIterator[Outcome]:
        for place in places:
            yield await self._outcome(request, place, keep_scores)

    async def _outcome(self, request: Request, place: Place, keep_scores: bool) -> Outcome:
        """Wait for the outcome of a sentence."""
        key, source = place
        outcome: Outcome | None
        if isinstance(source, SentenceTask):
            outcome = await self._wait(request, source.future)
            if outcome is None:
                raise request.error or ClosedError("the request was given up")
        elif isinstance(source, asyncio.Future):
            outcome = await self._wait(request, source)
            if outcome is None:  # the request that translated it was given up
                outcome = await self._translate_alone(request, key)
        else:
            outcome = source
        if isinstance(outcome, CheckedTranslation) and not keep_scores:
            outcome = outcome.without_score()
        return outcome

    async def _wait(self, request: Request, future: PendingOutcome) -> Outcome | None:
        if future.done():
            return future.result()
        try:
            async with asyncio.timeout_at(request.deadline):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DeadlineError("not translated in time") from None

    async def _translate_alone(self, request: Request, key: CacheKey) -> Outcome:
        """Translate a sentence of a request by itself."""
        time_left = None
        if request.deadline is not None:
            time_left = max(0.0, request.deadline - asyncio.get_running_loop().time())
        return await self._translate_one(
            request.batch_key.model,
            key.sentence,
            key.options,
            request.priority,
            time_left,
            key.fallback,
        )

    async def _read_results(
        self, request: Request, tasks: Sequence[SentenceTask], flagged: asyncio.Queue[SentenceTask]
    ) -> None:
        """Take the results as they come; what looks wrong goes to fallback decoding."""
        try:
            for row, task in enumerate(tasks):
                if self._accept(task, await request.result(row)):
                    flagged.put_nowait(task)
        except Exception as error:
            request.error = request.error or error
            for task in tasks:
                task.finish(None)

    async def _decode_flagged(self, request: Request, flagged: asyncio.Queue[SentenceTask]) -> None:
        """Decode what looks wrong again, all that is flagged by now at a time."""
        while True:
            tasks = [await flagged.get()]
            while not flagged.empty():
                tasks.append(flagged.get_nowait())
            await self._decode_again(request, tasks)
            for task in tasks:
                self._settle(task)

    def _accept(self, task: SentenceTask, result: Translation | Exception) -> bool:
        """Keep a sentence's first translation; whether it needs fallback decoding."""
        if isinstance(result, Exception):
            task.finish(result)
            return False
        task.keep(result)
        if task.key.fallback and not task.is_fine:
            return True
        self._settle(task)
        return False

    async def _decode_again(self, request: Request, tasks: Sequence[SentenceTask]) -> None:
        """Decode sentences with one fallback after the other, until nothing looks wrong; then those
        that have the other form of address than asked for."""
        asked = request.batch_key.options
        try:
            supported = request.batch_key.model.engine.supported_options
            for options in fallback_options(asked, supported):
                wrong = [task for task in tasks if task.warnings and not task.future.done()]
                await self._decode_once(request, wrong, options, SentenceTask.better_of)
            misses = [task for task in tasks if task.misses_form and not task.future.done()]
            form = misses[0].asked_form if misses else None
            search = form.options(asked, supported) if form is not None else None
            if search is not None:
                await self._decode_once(request, misses, search, SentenceTask.in_asked_form)
        except Exception:
            logger.exception("fallback decoding failed: keeping the first translations")

    async def _decode_once(
        self,
        request: Request,
        tasks: Sequence[SentenceTask],
        options: TranslateOptions,
        choose: Callable[[SentenceTask, Translation], Translation | None],
    ) -> None:
        """Decode sentences with these options; keep what is better, settle what looks right."""
        batch_key = BatchKey(request.batch_key.model, options)
        if not tasks or unsupported_option(options, batch_key.model.engine.supported_options):
            return
        again = _request_for(tasks, batch_key, request.priority, request.deadline)
        try:
            with self.batcher.queued(again):
                for row, task in enumerate(tasks):
                    result = await again.result(row)
                    if isinstance(result, Exception):
                        continue
                    better = choose(task, result)
                    observability.count_fallback(better is not None)
                    if better is not None:
                        task.keep(better)
                    if task.is_fine:
                        self._settle(task)
        except (QueueFullError, DeadlineError, ClosedError):
            return  # the first translation stays

    def _settle(self, task: SentenceTask) -> None:
        """Finish a sentence with its best translation: cache it, count its warnings."""
        if task.best is None or task.future.done():
            return
        for warning in task.warnings:
            observability.count_warning(warning.code)
        checked = CheckedTranslation(task.best, task.warnings)
        self._cache.put(task.key, checked, task.best.text, *task.best.alternatives)
        task.finish(checked)


def _request_for(
    tasks: Sequence[SentenceTask], batch_key: BatchKey, priority: Priority, deadline: float | None
) -> Request:
    return QueuedRequest(
        [task.key.sentence for task in tasks],
        batch_key,
        [task.tokens for task in tasks],
        priority,
        deadline,
    )


async def _count_tokens(engine: Engine, tasks: Sequence[SentenceTask]) -> None:
    """Set the tokens of each sentence; those of long texts are counted off the event loop."""

    def count_all() -> None:
        for task in tasks:
            task.tokens = engine.count_tokens(task.key.sentence)

    if sum(len(task.key.sentence) for task in tasks) > COUNT_IN_THREAD_ABOVE:
        await asyncio.to_thread(count_all)
    else:
        count_all()


def _successful(outcome: Outcome) -> CheckedTranslation:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
