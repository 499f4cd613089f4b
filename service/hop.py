"""Texts through one model, or through two by way of English."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from export.engines import TranslateOptions, Translation
from service.models import Model
from service.order import Notice, Order, TranslatedText
from service.pipeline import Checked
from service.text import Part, join_parts, split_text

THREAD_ABOVE_CHARS = 2000
"""Texts longer than this are cut into sentences in a thread, off the event loop."""


async def along_route(
    route: Sequence[Model], texts: Sequence[str], order: Order
) -> list[TranslatedText]:
    """Translate texts by the models of a route, one after the other.

    Alternatives are those of the last one.
    """
    if len(route) == 1:
        return await through_model(route[0], texts, order)
    done = await through_model(route[0], texts, replace(order, alternatives=0))
    for model in route[1:]:
        onward = await through_model(model, [item.text for item in done], order)
        done = [_joined(first, second) for first, second in zip(done, onward, strict=True)]
    return done


async def through_model(model: Model, texts: Sequence[str], order: Order) -> list[TranslatedText]:
    """Translate texts by one model, keeping what is around their sentences."""
    options = options_of(model, order)
    if sum(map(len, texts)) > THREAD_ABOVE_CHARS:
        split = await asyncio.to_thread(_split, model, texts)
    else:
        split = _split(model, texts)
    sentences = [part.text for parts in split for part in parts if part.translate]
    checked = iter(await model.pipeline.translate(sentences, options))
    return [
        _together(parts, [next(checked) for part in parts if part.translate]) for parts in split
    ]


def options_of(model: Model, order: Order) -> TranslateOptions:
    """How a model is to decode for an order."""
    return TranslateOptions(
        beam_size=order.beam_size or model.manifest.decoding.beam_size,
        return_scores=order.scores,
        alternatives=order.alternatives,
    )


def _split(model: Model, texts: Sequence[str]) -> list[list[Part]]:
    language = model.manifest.source_lang
    engine = model.engine
    return [
        split_text(text, language, engine.count_tokens, engine.max_input_tokens) for text in texts
    ]


def _together(parts: list[Part], checked: Sequence[Checked]) -> TranslatedText:
    found = [one.translation for one in checked]
    scored = [one for one in found if one.score is not None and one.tokens]
    tokens = sum(one.tokens for one in scored)
    mean = sum((one.score or 0.0) * one.tokens for one in scored) / tokens if tokens else None
    sources = [part.text for part in parts if part.translate]
    return TranslatedText(
        text=join_parts(parts, [one.text for one in found]),
        score=mean,
        truncated=any(one.truncated for one in found),
        tokens=tokens,
        sentences=list(zip(sources, [one.text for one in found], strict=True)),
        alternatives=[join_parts(parts, texts) for texts in _alternatives(found)],
        warnings=_once(Notice(w.code, w.message) for one in checked for w in one.warnings),
    )


def _alternatives(found: Sequence[Translation]) -> list[list[str]]:
    """Whole texts' sentences: the k-th alternative of each, or its translation if it has fewer."""
    most = max((len(one.alternatives) for one in found), default=0)
    return [
        [one.alternatives[rank] if rank < len(one.alternatives) else one.text for one in found]
        for rank in range(most)
    ]


def _once(notices: Iterable[Notice]) -> list[Notice]:
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
