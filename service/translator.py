"""What every HTTP shape calls: one place that turns an order into work, and work into an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.languages import AUTO, Detection, Detector, language_name
from service.models import PROOF, ModelSet, load_models
from service.observability import QUEUE_SENTENCES, show_bundles
from service.pivot import stream_route, translate_route
from service.request_context import current_metrics
from service.scheduler import Scheduler
from service.settings import Settings
from service.types import (
    TranslatedSentence,
    TranslatedText,
    TranslationRequest,
    TranslationResult,
    TranslationWarning,
)

logger = logging.getLogger("quickstudy.service")

OTHER_LANGUAGE = 0.8
"""From this confidence on, a text in a language that is not served gets a warning."""


@dataclass(frozen=True)
class StreamPart:
    """A sentence of the text number `row`, or all of that text, and what translated it."""

    row: int
    found: TranslatedSentence | TranslatedText
    model: str | None
    source: str
    target: str


class Translator:
    """Models and the queue before them. Make it in the process that serves."""

    def __init__(self, models: ModelSet, settings: Settings) -> None:
        self.models = models
        self.settings = settings
        self.detector = Detector(models.languages)
        self.pipeline = Scheduler(settings)
        QUEUE_SENTENCES.set_function(lambda: self.waiting)
        show_bundles(models.models)
        self._proven = False
        self._swapping = asyncio.Lock()

    @classmethod
    def load(cls, settings: Settings) -> Translator:
        """Check and load the bundles that the settings name. Raises BundleError."""
        return cls(load_models(settings.bundle_folders, settings), settings)

    @property
    def waiting(self) -> int:
        """Sentences that wait for a worker."""
        return self.pipeline.batcher.waiting

    async def ready(self) -> bool:
        """Whether a translation has succeeded and languages can be told; tries until it is so."""
        if not self._proven:
            try:
                await asyncio.gather(
                    self.translate(TranslationRequest([PROOF])),
                    asyncio.to_thread(self.detector.load),
                )
                self._proven = True
            except Exception:
                logger.exception("the first translation failed: the service is not ready")
        return self._proven

    async def swap(self, folders: Sequence[Path] | None = None) -> ModelSet:
        """Serve these bundles from now on, or those of the settings as they now are on disk.

        Requests that have begun end with the former ones. Raises BundleError, and then nothing has
        changed.
        """
        wanted = folders or self.settings.bundle_folders
        async with self._swapping:
            loaded = self.models.models
            models = await asyncio.to_thread(load_models, wanted, self.settings, loaded)
            if models.languages != self.models.languages:
                detector = Detector(models.languages)
                await asyncio.to_thread(detector.load)
                self.detector = detector
            self.models = models
            show_bundles(models.models)
        logger.info("serving %s", models.pairs)
        return models

    async def detect(self, texts: Sequence[str]) -> list[list[Detection]]:
        """For each text the languages that it may be in, likeliest first."""
        detector = self.detector
        return await asyncio.to_thread(lambda: [detector.detect(text) for text in texts])

    def choose_source(self, text: str, target: str) -> Detection:
        """The likeliest language of a text among those translated to `target`, and `target`; takes
        milliseconds, in any thread."""
        candidates = [*self.models.sources_of(target), target]
        return _choose(self.detector.detect(text), candidates)

    async def translate(self, order: TranslationRequest) -> TranslationResult:
        """Translate texts, in order, keeping their lines, spaces and blank lines.

        A text that is found to be in the target language already comes back as it is. Raises
        LanguageError for a pair that is not served, QueueFullError when too much waits, ClosedError
        when the service stops. Cancelling it drops what still waits.
        """
        begin = time.perf_counter()
        models = self.models
        known, target = await self._languages(order, models)
        detect_s = time.perf_counter() - begin
        rows_of: dict[str, list[int]] = {}
        for row, item in enumerate(known):
            rows_of.setdefault(item.source, []).append(row)
        results = list(known)
        used: list[str] = []

        async def of_one_source(source: str, rows: list[int]) -> None:
            route = models.route(source, target)
            used.extend(model.manifest.name for model in route)
            texts = [order.texts[row] for row in rows]
            done = await translate_route(self.pipeline, route, texts, order)
            for row, item in zip(rows, done, strict=True):
                results[row] = _with_source(item, known[row])

        await _all_or_none(
            [of_one_source(source, rows) for source, rows in rows_of.items() if source != target]
        )
        total_s = time.perf_counter() - begin
        _note(results)
        return TranslationResult(
            texts=results,
            source=AUTO if order.source == AUTO else known[0].source,
            target=target,
            models=list(dict.fromkeys(used)),
            seconds={"detect": detect_s, "translate": total_s - detect_s, "total": total_s},
        )

    async def stream(self, order: TranslationRequest) -> AsyncGenerator[StreamPart, None]:
        """Translate texts one after the other: each sentence as it is ready, then the whole text.

        Raises as `translate`, and DeadlineError when a text takes too long.
        """
        within_s = self.settings.stream_timeout_s
        models = self.models
        known, target = await self._languages(order, models)
        for row, item in enumerate(known):
            if item.source == target:
                _note([item])
                yield StreamPart(row, item, None, item.source, target)
                continue
            route = models.route(item.source, target)
            name = " + ".join(model.manifest.name for model in route)
            found = stream_route(self.pipeline, route, item.text, order, within_s)
            async with aclosing(found):
                async for one in found:
                    if isinstance(one, TranslatedText):
                        one = _with_source(one, item)
                        _note([one])
                    yield StreamPart(row, one, name, item.source, target)

    async def close(self) -> None:
        """Finish what is here, within the settings' time, and stop translating."""
        await self.pipeline.close(self.settings.grace_s)

    async def close_now(self) -> None:
        """Stop translating; who still waits gets a ClosedError."""
        await self.pipeline.close()

    async def _languages(
        self, order: TranslationRequest, models: ModelSet
    ) -> tuple[list[TranslatedText], str]:
        """Every text untranslated, with its source language and what was detected; the target."""
        if order.source != AUTO:
            source, target = models.pair(order.source, order.target)
            return [TranslatedText(text, source) for text in order.texts], target
        target = models.pair(None, order.target)[1]
        candidates = [*models.sources_of(target), target]
        found = []
        for text, detections in zip(order.texts, await self.detect(order.texts), strict=True):
            chosen = _choose(detections, candidates)
            best = detections[0]
            warnings = []
            if best.language != chosen.language and best.confidence >= OTHER_LANGUAGE:
                message = (
                    f"this looks like {language_name(best.language)}, and was translated as "
                    f"{language_name(chosen.language)}"
                )
                warnings = [TranslationWarning("other_language", message)]
            found.append(TranslatedText(text, chosen.language, chosen, warnings=warnings))
        return found, target


def _note(texts: Sequence[TranslatedText]) -> None:
    """Count what came of a request in its record."""
    if (record := current_metrics()) is not None:
        record.sentences += sum(len(text.sentences) for text in texts)
        record.warnings += sum(len(text.warnings) for text in texts)


def _with_source(done: TranslatedText, known: TranslatedText) -> TranslatedText:
    """A translation, with what is known of the text's language."""
    if not known.warnings and known.detected is None and done.source == known.source:
        return done
    return replace(
        done,
        source=known.source,
        detected=known.detected,
        warnings=[*known.warnings, *done.warnings],
    )


def _choose(detections: Sequence[Detection], candidates: Sequence[str]) -> Detection:
    """The likeliest of the candidates; the first of them, at 0, where none is likely."""
    for one in detections:
        if one.language in candidates:
            return one
    return Detection(candidates[0], 0.0)


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at the same time; the first that fails cancels the others."""
    if len(works) == 1:
        await works[0]
        return
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
