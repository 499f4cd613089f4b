"""The translator behind every API: it detects languages, chooses models and translates texts.

It needs no server: `Translator.load(settings)`, then `await translator.translate(request)`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.fallback import TranslationWarning
from service.languages import AUTO, Detection, Detector, language_name
from service.models import PROOF_SENTENCE, LanguageError, Model, ModelSet, load_models
from service.observability import QUEUE_SENTENCES, current_metrics, show_bundles
from service.pivot import (
    TranslatedSentence,
    TranslatedText,
    TranslationRequest,
    TranslationResult,
    check_search,
    stream_via_pivot,
    translate_via_pivot,
)
from service.scheduler import Scheduler
from service.settings import Settings

logger = logging.getLogger("quickstudy.service")

LIKELY = 0.8
"""How likely a text must be in no language that is served to get a warning, or be refused."""
SURE = 0.99
"""How likely it must be to be refused where it may be a name."""


@dataclass(frozen=True)
class StreamPart:
    """A sentence of the text number `row`, or all of that text, and the model that translated
    it."""

    row: int
    content: TranslatedSentence | TranslatedText
    model: str | None
    source: str
    target: str


class Translator:
    """Models and the scheduler in front of them. Make it in the process that serves."""

    def __init__(self, models: ModelSet, settings: Settings) -> None:
        self.models = models
        self.settings = settings
        self.detector = Detector(models.languages)
        self.scheduler = Scheduler(settings)
        QUEUE_SENTENCES.set_function(lambda: self.waiting)
        show_bundles(models.models)
        self._is_proven = False
        self._swapping = asyncio.Lock()

    @classmethod
    def load(cls, settings: Settings) -> Translator:
        """Check and load the bundles that the settings name. Raises BundleError."""
        return cls(load_models(settings.bundle_folders, settings), settings)

    @property
    def waiting(self) -> int:
        """Sentences that wait for a worker."""
        return self.scheduler.batcher.waiting

    async def ready(self) -> bool:
        """Whether a translation has succeeded and the language detector is loaded; tries both."""
        if not self._is_proven:
            try:
                await asyncio.gather(
                    self.translate(TranslationRequest([PROOF_SENTENCE])),
                    asyncio.to_thread(self.detector.load),
                )
                self._is_proven = True
            except Exception:
                logger.exception("the first translation failed: the service is not ready")
        return self._is_proven

    async def swap(self, folders: Sequence[Path] | None = None) -> ModelSet:
        """Serve these bundles from now on, or reload those of the settings from disk.

        Requests in progress finish with the former ones. Raises BundleError, and then nothing has
        changed.
        """
        folders = folders or self.settings.bundle_folders
        async with self._swapping:
            loaded = self.models.models
            models = await asyncio.to_thread(load_models, folders, self.settings, loaded)
            if models.languages != self.models.languages:
                detector = Detector(models.languages)
                await asyncio.to_thread(detector.load)
                self.detector = detector
            self.models = models
            show_bundles(models.models)
        logger.info("serving %s", models.pairs)
        return models

    async def detect(self, texts: Sequence[str]) -> list[list[Detection]]:
        """The languages that each text may be in, likeliest first."""
        detector = self.detector
        return await asyncio.to_thread(lambda: [detector.detect(text) for text in texts])

    def choose_source(self, text: str, target: str) -> Detection:
        """The likeliest language of a file's text: one that is translated to `target`, or `target`
        itself.

        Raises LanguageError for a text in another language, unless the settings have it translated.
        Takes milliseconds, in any thread."""
        candidates = [*self.models.sources_of(target), target]
        detections = self.detector.detect(text)
        if self.settings.other_language != "translate" and _is_other(text, detections, candidates):
            raise _refusal(detections[0], candidates[:-1], target)
        return _choose(detections, candidates)

    async def translate(self, request: TranslationRequest) -> TranslationResult:
        """Translate texts, in order, keeping their lines, spaces and blank lines.

        A text that is detected to be in the target language comes back as it is. Raises
        LanguageError for a pair that is not served and, depending on the settings, for a text that
        is detected to be in a language that is not; SearchError for a search that the engine does
        not support, QueueFullError when too much waits, ClosedError when the service stops.
        Cancelling it drops what still waits.
        """
        begin = time.perf_counter()
        models = self.models
        untranslated, target = await self._with_languages(request, models)
        detect_s = time.perf_counter() - begin
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(untranslated):
            rows_of.setdefault(text.source, []).append(row)
        routes = {source: models.route(source, target) for source in rows_of if source != target}
        for route in routes.values():
            check_search(route, request)
        results = list(untranslated)
        model_names: list[str] = []

        async def translate_from(source: str, route: tuple[Model, ...]) -> None:
            rows = rows_of[source]
            model_names.extend(model.manifest.name for model in route)
            texts = [request.texts[row] for row in rows]
            translated = await translate_via_pivot(self.scheduler, route, texts, request)
            for row, text in zip(rows, translated, strict=True):
                results[row] = _with_language(text, untranslated[row])

        await all_or_none([translate_from(source, route) for source, route in routes.items()])
        total_s = time.perf_counter() - begin
        _count(results)
        return TranslationResult(
            texts=results,
            source=AUTO if request.source == AUTO else untranslated[0].source,
            target=target,
            models=list(dict.fromkeys(model_names)),
            seconds={"detect": detect_s, "translate": total_s - detect_s, "total": total_s},
        )

    async def stream(self, request: TranslationRequest) -> AsyncGenerator[StreamPart, None]:
        """Translate texts one after the other: each sentence as it is ready, then the whole text.

        Raises as `translate`, and DeadlineError when a text takes too long.
        """
        within_s = self.settings.stream_timeout_s
        models = self.models
        untranslated, target = await self._with_languages(request, models)
        for source in {text.source for text in untranslated} - {target}:
            check_search(models.route(source, target), request)
        for row, text in enumerate(untranslated):
            if text.source == target:
                _count([text])
                yield StreamPart(row, text, None, text.source, target)
                continue
            route = models.route(text.source, target)
            name = " + ".join(model.manifest.name for model in route)
            contents = stream_via_pivot(self.scheduler, route, text.text, request, within_s)
            async with aclosing(contents):
                async for content in contents:
                    if isinstance(content, TranslatedText):
                        content = _with_language(content, text)
                        _count([content])
                    yield StreamPart(row, content, name, text.source, target)

    async def close(self) -> None:
        """Finish what is in progress within the settings' time, and stop translating."""
        await self.scheduler.close(self.settings.shutdown_grace_s)

    async def close_now(self) -> None:
        """Stop translating at once; requests in progress get a ClosedError."""
        await self.scheduler.close()

    async def _with_languages(
        self, request: TranslationRequest, models: ModelSet
    ) -> tuple[list[TranslatedText], str]:
        """Every text, still untranslated, with its source language and what was detected; and the
        target."""
        if request.source != AUTO:
            source, target = models.pair(request.source, request.target)
            return [TranslatedText(text, source) for text in request.texts], target
        target = models.pair(None, request.target)[1]
        candidates = [*models.sources_of(target), target]
        texts = []
        for text, detections in zip(request.texts, await self.detect(request.texts), strict=True):
            chosen = _choose(detections, candidates)
            best = detections[0]
            source, warnings = chosen.language, []
            if best.language not in candidates and _others(detections, candidates) >= LIKELY:
                is_other = _is_other(text, detections, candidates)
                done = f"was translated as {language_name(chosen.language)}"
                if chosen.language == target:
                    done = "was left as it is"
                if is_other and self.settings.other_language == "refuse":
                    raise _refusal(best, candidates[:-1], target)
                if is_other and self.settings.other_language == "keep":
                    source, chosen, done = target, best, "was left as it is"
                message = f"this looks like {language_name(best.language)}, and {done}"
                warnings = [TranslationWarning("other_language", message)]
            texts.append(TranslatedText(text, source, chosen, warnings=warnings))
        return texts, target


def _count(texts: Sequence[TranslatedText]) -> None:
    """Add translations to the request's metrics."""
    if (metrics := current_metrics()) is not None:
        metrics.sentences += sum(len(text.sentences) for text in texts)
        metrics.warnings += sum(len(text.warnings) for text in texts)


def _with_language(translated: TranslatedText, untranslated: TranslatedText) -> TranslatedText:
    """A translation, with what is known of the text's language."""
    if (
        not untranslated.warnings
        and untranslated.detected is None
        and translated.source == untranslated.source
    ):
        return translated
    return replace(
        translated,
        source=untranslated.source,
        detected=untranslated.detected,
        warnings=[*untranslated.warnings, *translated.warnings],
    )


def _others(detections: Sequence[Detection], candidates: Sequence[str]) -> float:
    """How likely a text is in none of the candidates, 0 to 1."""
    return sum(one.confidence for one in detections if one.language not in candidates)


def _is_other(text: str, detections: Sequence[Detection], candidates: Sequence[str]) -> bool:
    """Whether a text is in none of the candidates; a name may be in any language."""
    least = SURE if _may_be_a_name(text) else LIKELY
    other = detections[0].language not in candidates
    return other and _others(detections, candidates) >= least


def _refusal(best: Detection, sources: Sequence[str], target: str) -> LanguageError:
    """The error for a text in a language that is not served."""
    message = (
        f"`source` is 'auto', and the text looks like {language_name(best.language)} "
        f"({best.language}), which is not translated to {target}: if it is none, give "
        f"{' or '.join(map(repr, sources))} as `source`"
    )
    return LanguageError(message, "source")


def _may_be_a_name(text: str) -> bool:
    """Whether a text is of at most three words, all of them with a capital."""
    words = text.split()
    return len(words) <= 3 and not any(word[:1].islower() for word in words)


def _choose(detections: Sequence[Detection], candidates: Sequence[str]) -> Detection:
    """The likeliest of the candidates; the first of them, at 0, where none is likely."""
    for detection in detections:
        if detection.language in candidates:
            return detection
    return Detection(candidates[0], 0.0)


async def all_or_none(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all at the same time; the first that fails cancels the others, and they have ended when
    this returns."""
    if len(coroutines) == 1:
        await coroutines[0]
        return
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
