"""Translates texts by one model, or by two with English as the pivot between them.

A text is opened as a document of sentences (`service/text/`), the sentences are translated by the
scheduler, and the document is put together again. What a translation dropped of protected spans is
translated once more, in pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from export.runtime.engines import TranslateOptions, Translation
from export.runtime.manifest import FORMALITY, Formality
from service.fair_queue import Priority
from service.fallback import ECHO, PARTIAL_ECHO, STEP_ECHO, TranslationWarning
from service.languages import Detection
from service.models import Model
from service.scheduler import CheckedTranslation, Scheduler
from service.text.document import Document, Format, open_document
from service.text.glossary import NO_GLOSSARY, Glossary

THREAD_ABOVE_CHARS = 2000
"""Texts longer than this are cut into sentences in a thread, off the event loop."""


UNKNOWN_CHARACTERS = TranslationWarning(
    "unknown_characters", "The model cannot read some characters, and may have lost them."
)
NUMBER_MISMATCH = TranslationWarning(
    "number_mismatch", "Numbers of the translation are not those of the text: check them."
)


class SearchError(Exception):
    """The model does not support what `field` (`beam_size`, `alternatives`, `formality`) asks for;
    the message says what to do."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = "unsupported_formality" if field == FORMALITY else "unsupported_search"


@dataclass(frozen=True)
class TranslationRequest:
    """What a client wants translated.

    A source or target of None is the first model's; a source of `auto` is detected for each text.
    Bulk requests, for files, leave room for others. Sentences of `wrapped` plain text go on over
    line breaks; without `split`, a paragraph is only cut where it is too long. `formality` is the
    form of address, the model's own if None. Where `needs_alternatives` or `needs_formality` is
    false, a model that does not support it translates without. With `translate_attributes`, the
    attributes of HTML that a reader sees are translated, too.
    """

    texts: Sequence[str]
    source: str | None = None
    target: str | None = None
    format: Format = "text"
    beam_size: int | None = None
    alternatives: int = 0
    needs_alternatives: bool = True
    scores: bool = False
    glossary: Glossary = NO_GLOSSARY
    priority: Priority = Priority.INTERACTIVE
    wrapped: bool = False
    split: bool = True
    formality: Formality | None = None
    needs_formality: bool = True
    translate_attributes: bool = False


@dataclass(frozen=True)
class TranslatedText:
    """A text's translation.

    `score` is the mean log-probability of its `tokens` (nats), None where there are none or it was
    not asked for. `truncated` says that the output limit cut a sentence off. `sentences` are pairs
    of a source sentence and its translation. `detected` is set only where the source was `auto`.
    """

    text: str
    source: str = ""
    detected: Detection | None = None
    score: float | None = None
    truncated: bool = False
    tokens: int = 0
    sentences: Sequence[tuple[str, str]] = ()
    alternatives: Sequence[str] = ()
    warnings: Sequence[TranslationWarning] = ()


@dataclass(frozen=True)
class TranslatedSentence:
    """The sentence number `index` of the `count` sentences of a text, as a reader sees it."""

    index: int
    count: int
    source: str
    target: str


@dataclass(frozen=True)
class TranslationResult:
    """The translations, in the order of the texts, and the names of the models that made them.
    Times are in seconds."""

    texts: Sequence[TranslatedText]
    source: str
    target: str
    models: Sequence[str]
    seconds: Mapping[str, float]


def check_search(route: Sequence[Model], request: TranslationRequest) -> None:
    """Raise SearchError unless every model of a route supports the request's beam, and the last one
    its alternatives and its form of address."""
    if request.beam_size is not None and request.beam_size > 1:
        for model in route:
            _check_option(model, "beam_size", request.beam_size)
    if request.alternatives and request.needs_alternatives:
        _check_option(route[-1], "alternatives", request.alternatives)
    if request.formality is not None and request.needs_formality:
        _check_option(route[-1], FORMALITY, request.formality)


def _check_option(model: Model, option: str, value: int | str) -> None:
    if not model.supports(option):
        message = model.manifest.no_such_option(model.engine_name, option, value)
        raise SearchError(message, option)


async def translate_via_pivot(
    scheduler: Scheduler, route: Sequence[Model], texts: Sequence[str], request: TranslationRequest
) -> list[TranslatedText]:
    """Translate texts by the models of a route, one after the other.

    Alternatives and the form of address are the last model's. The first model puts the terms of a
    glossary in, the others keep them.
    """
    first, *others = route
    if not others:
        return await translate_with_model(scheduler, first, texts, request)
    translated = await translate_with_model(
        scheduler, first, texts, replace(request, alternatives=0, formality=None)
    )
    kept_terms = Glossary({term: term for term in request.glossary.terms.values()})
    for model in others:
        onward = await translate_with_model(
            scheduler,
            model,
            [text.text for text in translated],
            replace(request, glossary=kept_terms),
        )
        translated = [
            _chained(first, second) for first, second in zip(translated, onward, strict=True)
        ]
    return translated


async def translate_with_model(
    scheduler: Scheduler, model: Model, texts: Sequence[str], request: TranslationRequest
) -> list[TranslatedText]:
    """Translate texts by one model, keeping what is around their sentences."""
    documents = await _open_documents(model, texts, request)
    options = _options_for(model, request)
    checked = await scheduler.translate(
        model,
        [segment.text for document in documents for segment in document.segments],
        options,
        priority=request.priority,
    )
    return await _finish(scheduler, model, documents, checked, options, request.priority)


async def stream_via_pivot(
    scheduler: Scheduler,
    route: Sequence[Model],
    text: str,
    request: TranslationRequest,
    within_s: float,
) -> AsyncGenerator[TranslatedSentence | TranslatedText, None]:
    """Translate a text: each sentence, in order, as it is ready, and then the whole.

    Protected spans that a sentence lacks are restored in the whole. Through two models, the
    sentences come when all are ready.
    """
    if len(route) > 1:
        (translated,) = await translate_via_pivot(scheduler, route, [text], request)
        for index, (source, target) in enumerate(translated.sentences):
            yield TranslatedSentence(index, len(translated.sentences), source, target)
        yield translated
        return
    (model,) = route
    documents = await _open_documents(model, [text], request)
    segments = documents[0].segments
    options = _options_for(model, request)
    checked: list[CheckedTranslation] = []
    stream = scheduler.stream(
        model,
        [segment.text for segment in segments],
        options,
        priority=request.priority,
        within_s=within_s,
    )
    async with stream as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            segment = segments[len(checked)]
            shown = segment.finish(outcome.translation.text).shown
            yield TranslatedSentence(len(checked), len(segments), segment.source, shown)
            checked.append(outcome)
    yield (await _finish(scheduler, model, documents, checked, options, request.priority))[0]


_cached_options = lru_cache(256)(TranslateOptions)


def _options_for(model: Model, request: TranslationRequest) -> TranslateOptions:
    """The options of a request that `check_search` has passed. A bundle's own beam is for those of
    its engines that have one."""
    beam_size = request.beam_size or model.manifest.decoding.beam_size
    if beam_size > 1 and not model.supports("beam_size"):
        beam_size = 1
    alternatives = request.alternatives
    if alternatives and not model.supports("alternatives"):
        alternatives = 0
    formality = request.formality if model.supports(FORMALITY) else None
    tags = model.manifest.formality
    if tags is not None and formality == tags.default:
        formality = None  # the same, for the cache and for batches
    return _cached_options(beam_size, request.scores, alternatives, formality=formality)


def _is_long(texts: Iterable[str]) -> bool:
    return sum(map(len, texts)) > THREAD_ABOVE_CHARS


async def _open_documents(
    model: Model, texts: Sequence[str], request: TranslationRequest
) -> list[Document]:
    """Cut texts into sentences."""

    def open_all() -> list[Document]:
        return [
            open_document(
                text,
                request.format,
                model.manifest.source_lang,
                model.engine.count_tokens,
                model.engine.max_input_tokens,
                request.glossary,
                model.placeholder_words,
                wrapped=request.wrapped,
                split=request.split,
                coverage=model.coverage,
                adds_stop=model.adds_stop,
                numerals=model.numerals,
                translate_attributes=request.translate_attributes,
            )
            for text in texts
        ]

    return await asyncio.to_thread(open_all) if _is_long(texts) else open_all()


async def _finish(
    scheduler: Scheduler,
    model: Model,
    documents: Sequence[Document],
    checked: Sequence[CheckedTranslation],
    options: TranslateOptions,
    priority: Priority,
) -> list[TranslatedText]:
    """Put the texts together from their sentences' translations, restoring what these dropped."""
    remaining = iter(checked)
    of_document = [[next(remaining) for _ in document.segments] for document in documents]
    translated = [[sentence.translation.text for sentence in part] for part in of_document]
    await _repair(scheduler, model, documents, translated, options, priority)

    def finish_all() -> list[TranslatedText]:
        return [
            _translated_text(document, texts, part, model.manifest.source_lang)
            for document, texts, part in zip(documents, translated, of_document, strict=True)
        ]

    is_long = _is_long(text for texts in translated for text in texts)
    return await asyncio.to_thread(finish_all) if is_long else finish_all()


async def _repair(
    scheduler: Scheduler,
    model: Model,
    documents: Sequence[Document],
    translated: list[list[str]],
    options: TranslateOptions,
    priority: Priority,
) -> None:
    """Translate the pieces that repairs ask for, all at once, and put them in their places."""
    repairs = [
        (row, repair)
        for row, document in enumerate(documents)
        for repair in document.check(translated[row])
    ]
    if not repairs:
        return
    pieces = await scheduler.translate(
        model,
        [text for _, repair in repairs for text in repair.texts],
        replace(options, alternatives=0, return_scores=False),
        priority=priority,
        fallback=False,
    )
    remaining = iter(pieces)
    for row, repair in repairs:
        parts = [next(remaining).translation.text for _ in repair.texts]
        translated[row][repair.segment] = repair.join(parts)


def _translated_text(
    document: Document,
    translated: Sequence[str],
    checked: Sequence[CheckedTranslation],
    source: str,
) -> TranslatedText:
    finished = document.finish(translated)
    translations = [sentence.translation for sentence in checked]
    scored = [one for one in translations if one.score is not None and one.tokens]
    tokens = sum(one.tokens for one in scored)
    warnings = [warning for sentence in checked for warning in sentence.warnings]
    if not all(ECHO in sentence.warnings for sentence in checked):
        warnings = [PARTIAL_ECHO if warning == ECHO else warning for warning in warnings]
    if any(segment.is_unread for segment in document.segments):
        warnings.append(UNKNOWN_CHARACTERS)
    if any(text.numbers_differ for text in finished):
        warnings.append(NUMBER_MISMATCH)
    total = sum((one.score or 0.0) * one.tokens for one in scored)
    text = document.rebuild(finished)
    others = dict.fromkeys(map(document.rebuild, _alternatives(translations, finished)))
    return TranslatedText(
        text=text,
        source=source,
        score=total / tokens if tokens else None,
        truncated=any(one.truncated for one in translations),
        tokens=tokens,
        sentences=document.pairs(finished),
        # What was mended may have become what another one was.
        alternatives=[other for other in others if other != text],
        warnings=_distinct(warnings),
    )


def _alternatives(translations: Sequence[Translation], finished: Sequence[str]) -> list[list[str]]:
    """Whole texts' sentences: the k-th alternative of each, or its translation if it has fewer."""
    most = max((len(translation.alternatives) for translation in translations), default=0)
    return [
        [
            translation.alternatives[rank] if rank < len(translation.alternatives) else best
            for translation, best in zip(translations, finished, strict=True)
        ]
        for rank in range(most)
    ]


def _distinct(warnings: Iterable[TranslationWarning]) -> list[TranslationWarning]:
    """One warning of each code."""
    return list({warning.code: warning for warning in warnings}.values())


def _chained(first: TranslatedText, second: TranslatedText) -> TranslatedText:
    """Two steps as one: sentence pairs where they agree in number, the mean score of all tokens."""
    if len(first.sentences) == len(second.sentences):
        pairs = [
            (source, target)
            for (source, _), (_, target) in zip(first.sentences, second.sentences, strict=True)
        ]
    else:
        sources = " ".join(source for source, _ in first.sentences)
        pairs = [(sources, " ".join(target for _, target in second.sentences))]
    tokens = first.tokens + second.tokens
    warnings = [*first.warnings, *second.warnings]
    if not (ECHO in first.warnings and ECHO in second.warnings):
        warnings = [STEP_ECHO if warning.code == ECHO.code else warning for warning in warnings]
    total = (first.score or 0.0) * first.tokens + (second.score or 0.0) * second.tokens
    return replace(
        second,
        sentences=pairs,
        tokens=tokens,
        score=total / tokens if tokens else None,
        truncated=first.truncated or second.truncated,
        warnings=_distinct(warnings),
    )
