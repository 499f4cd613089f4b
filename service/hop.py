"""Texts through one model, or through two by way of English."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from export.engines import TranslateOptions, Translation
from service.models import Model
from service.order import Order, TranslatedText
from service.text import Part, join_parts, split_text

THREAD_ABOVE_CHARS = 2000
"""Texts longer than this are cut into sentences in a thread, off the event loop."""


@dataclass(frozen=True)
class ModelOptions(TranslateOptions):
    """Options with the model that they are for: equal ones may share a batch."""

    model: Model | None = None


Submit = Callable[[Sequence[str], TranslateOptions], Awaitable[list[Translation]]]


async def along_route(
    route: Sequence[Model], texts: Sequence[str], order: Order, submit: Submit
) -> list[TranslatedText]:
    """Translate texts by the models of a route, one after the other."""
    done = await through_model(route[0], texts, order, submit)
    for model in route[1:]:
        onward = await through_model(model, [item.text for item in done], order, submit)
        done = [_joined(first, second) for first, second in zip(done, onward, strict=True)]
    return done


async def through_model(
    model: Model, texts: Sequence[str], order: Order, submit: Submit
) -> list[TranslatedText]:
    """Translate texts by one model, keeping what is around their sentences."""
    beam = order.beam_size or model.manifest.decoding.beam_size
    options = ModelOptions(beam_size=beam, return_scores=order.scores, model=model)
    if sum(map(len, texts)) > THREAD_ABOVE_CHARS:
        split = await asyncio.to_thread(_split, model, texts)
    else:
        split = _split(model, texts)
    sentences = [part.text for parts in split for part in parts if part.translate]
    translations = iter(await submit(sentences, options))
    return [
        _together(parts, [next(translations) for part in parts if part.translate])
        for parts in split
    ]


def _split(model: Model, texts: Sequence[str]) -> list[list[Part]]:
    language = model.manifest.source_lang
    engine = model.engine
    return [
        split_text(text, language, engine.count_tokens, engine.max_input_tokens) for text in texts
    ]


def _together(parts: list[Part], translations: list[Translation]) -> TranslatedText:
    scored = [t for t in translations if t.score is not None and t.tokens]
    tokens = sum(t.tokens for t in scored)
    mean = sum((t.score or 0.0) * t.tokens for t in scored) / tokens if tokens else None
    sources = [part.text for part in parts if part.translate]
    return TranslatedText(
        text=join_parts(parts, [t.text for t in translations]),
        score=mean,
        truncated=any(t.truncated for t in translations),
        tokens=tokens,
        sentences=list(zip(sources, [t.text for t in translations], strict=True)),
    )


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
        warnings=list(dict.fromkeys([*first.warnings, *second.warnings])),
    )


def _side(text: TranslatedText, side: int) -> str:
    return " ".join(pair[side] for pair in text.sentences)
