"""Texts through one model, or through two by way of English."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from export.runtime.engines import TranslateOptions, Translation
from service.fair_queue import Priority
from service.models import Model
from service.scheduler import CheckedTranslation, Scheduler
from service.text import Document, Glossary, Repair, open_document
from service.types import TranslatedSentence, TranslatedText, TranslationRequest, TranslationWarning

THREAD_ABOVE_CHARS = 2000
"""Texts longer than this are cut into sentences in a thread, off the event loop."""
T = TypeVar("T")
_options = lru_cache(256)(TranslateOptions)


class SearchError(Exception):
    """The engine has no such search: a beam or alternatives; the message says what to do."""


async def translate_route(
    pipeline: Scheduler, route: Sequence[Model], texts: Sequence[str], order: TranslationRequest
) -> list[TranslatedText]:
    """Translate texts by the models of a route, one after the other.

    Alternatives are those of the last one. Terms of a glossary are put in by the first and kept by
    the others.
    """
    first, *further = route
    if not further:
        return await translate_with_model(pipeline, first, texts, order)
    done = await translate_with_model(pipeline, first, texts, replace(order, alternatives=0))
    kept = Glossary({term: term for term in order.glossary.terms.values()})
    for model in further:
        onward_order = replace(order, glossary=kept)
        onward = await translate_with_model(
            pipeline, model, [item.text for item in done], onward_order
        )
        done = [_joined(first, second) for first, second in zip(done, onward, strict=True)]
    return done


async def translate_with_model(
    pipeline: Scheduler, model: Model, texts: Sequence[str], order: TranslationRequest
) -> list[TranslatedText]:
    """Translate texts by one model, keeping what is around their sentences."""
    work = await _PreparedDocuments.open(pipeline, model, texts, order)
    with _searching(order):
        checked = await pipeline.translate(
            model, work.sentences, work.options, priority=order.priority
        )
    return await work.finish(checked)


async def stream_route(
    pipeline: Scheduler,
    route: Sequence[Model],
    text: str,
    order: TranslationRequest,
    within_s: float,
) -> AsyncGenerator[TranslatedSentence | TranslatedText, None]:
    """Translate a text: each sentence, in order, as it is ready, and then the whole.

    What a sentence lacks of protected pieces is put right in the whole. Through two models, the
    sentences come when all are ready.
    """
    if len(route) > 1:
        (done,) = await translate_route(pipeline, route, [text], order)
        for index, (source, target) in enumerate(done.sentences):
            yield TranslatedSentence(index, len(done.sentences), source, target)
        yield done
        return
    (model,) = route
    work = await _PreparedDocuments.open(pipeline, model, [text], order)
    (document,) = work.documents
    checked: list[CheckedTranslation] = []
    stream = pipeline.stream(
        model, work.sentences, work.options, priority=order.priority, within_s=within_s
    )
    async with stream as outcomes:
        async for one in outcomes:
            if isinstance(one, Exception):
                with _searching(order):
                    raise one
            segment = document.segments[len(checked)]
            shown = segment.finish(one.translation.text).shown
            yield TranslatedSentence(len(checked), len(work.sentences), segment.source, shown)
            checked.append(one)
    yield (await work.finish(checked))[0]


@contextmanager
def _searching(order: TranslationRequest) -> Iterator[None]:
    """Raise SearchError for the ValueError by which engines refuse a search they do not have."""
    try:
        yield
    except ValueError as error:
        if order.alternatives or (order.beam_size or 1) > 1:
            raise SearchError(str(error)) from error
        raise


@dataclass(frozen=True)
class _PreparedDocuments:
    """Texts opened for a model: what to translate, and how to put it together."""

    pipeline: Scheduler
    model: Model
    options: TranslateOptions
    priority: Priority
    documents: Sequence[Document]
    in_thread: bool

    @classmethod
    async def open(
        cls, pipeline: Scheduler, model: Model, texts: Sequence[str], order: TranslationRequest
    ) -> _PreparedDocuments:
        """Cut texts into sentences."""
        beam_size = order.beam_size or model.manifest.decoding.beam_size
        options = _options(beam_size, order.scores, order.alternatives)
        in_thread = sum(map(len, texts)) > THREAD_ABOVE_CHARS

        def documents() -> list[Document]:
            return [
                open_document(
                    text,
                    order.format,
                    model.manifest.source_lang,
                    model.engine.count_tokens,
                    model.engine.max_input_tokens,
                    order.glossary,
                    model.stand_ins,
                    wrapped=order.wrapped,
                    split=order.split,
                )
                for text in texts
            ]

        opened = await asyncio.to_thread(documents) if in_thread else documents()
        return cls(pipeline, model, options, order.priority, opened, in_thread)

    @property
    def sentences(self) -> list[str]:
        """Of all texts, in order."""
        return [segment.text for document in self.documents for segment in document.segments]

    async def finish(self, checked: Sequence[CheckedTranslation]) -> list[TranslatedText]:
        """The texts of the sentences' translations; what these dropped is repaired."""
        each = _by_document(self.documents, checked)
        translated = [[one.translation.text for one in part] for part in each]
        repairs = [
            (row, repair)
            for row, document in enumerate(self.documents)
            for repair in document.check(translated[row])
        ]
        await self._repair(translated, repairs)

        def texts() -> list[TranslatedText]:
            return [
                _together(document, found, part, self.model.manifest.source_lang)
                for document, found, part in zip(self.documents, translated, each, strict=True)
            ]

        return await asyncio.to_thread(texts) if self.in_thread else texts()

    async def _repair(
        self, translated: list[list[str]], repairs: Sequence[tuple[int, Repair]]
    ) -> None:
        """Translate what repairs ask for, all at once, and put it in its places."""
        if not repairs:
            return
        wanted = [text for _, repair in repairs for text in repair.texts]
        options = replace(self.options, alternatives=0, return_scores=False)
        found = await self.pipeline.translate(
            self.model, wanted, options, priority=self.priority, second_tries=False
        )
        more = iter(found)
        for row, repair in repairs:
            parts = [next(more).translation.text for _ in repair.texts]
            translated[row][repair.segment] = repair.join(parts)


def _by_document(documents: Sequence[Document], items: Sequence[T]) -> list[list[T]]:
    remaining = iter(items)
    return [[next(remaining) for _ in document.segments] for document in documents]


def _together(
    document: Document,
    translated: Sequence[str],
    checked: Sequence[CheckedTranslation],
    source: str,
) -> TranslatedText:
    finished = document.finish(translated)
    found = [one.translation for one in checked]
    scored = [one for one in found if one.score is not None and one.tokens]
    tokens = sum(one.tokens for one in scored)
    mean = sum((one.score or 0.0) * one.tokens for one in scored) / tokens if tokens else None
    return TranslatedText(
        text=document.rebuild(finished),
        source=source,
        score=mean,
        truncated=any(one.truncated for one in found),
        tokens=tokens,
        sentences=document.pairs(finished),
        alternatives=[document.rebuild(texts) for texts in _alternatives(found, finished)],
        warnings=_once(
            TranslationWarning(w.code, w.message) for one in checked for w in one.warnings
        ),
    )


def _alternatives(found: Sequence[Translation], translated: Sequence[str]) -> list[list[str]]:
    """Whole texts' sentences: the k-th alternative of each, or its translation if it has fewer."""
    most = max((len(one.alternatives) for one in found), default=0)
    return [
        [
            one.alternatives[rank] if rank < len(one.alternatives) else best
            for one, best in zip(found, translated, strict=True)
        ]
        for rank in range(most)
    ]


def _once(notices: Iterable[TranslationWarning]) -> list[TranslationWarning]:
    """One notice a code."""
    return list({notice.code: notice for notice in notices}.values())


def _joined(first: TranslatedText, second: TranslatedText) -> TranslatedText:
    """Two steps as one: sentence pairs where they agree in number, the mean score of all tokens."""
    if len(first.sentences) == len(second.sentences):
        pairs = [
            (source, target)
            for (source, _), (_, target) in zip(first.sentences, second.sentences, strict=True)
        ]
    else:
        pairs = [(_side(first, 0), _side(second, 1))]
    tokens = first.tokens + second.tokens
    total = (first.score or 0.0) * first.tokens + (second.score or 0.0) * second.tokens
    return replace(
        second,
        sentences=pairs,
        tokens=tokens,
        score=total / tokens if tokens else None,
        truncated=first.truncated or second.truncated,
        warnings=_once([*first.warnings, *second.warnings]),
    )


def _side(text: TranslatedText, side: int) -> str:
    return " ".join(pair[side] for pair in text.sentences)
