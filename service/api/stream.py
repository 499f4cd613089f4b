"""`POST /v1/translate/stream`: server-sent events, each sentence as it is ready, in order.

| event | data |
| `sentence` | `text` (its place in the list), `index` and `count` of the sentence, `source`, `target`, `progress` (0 to 1, by characters) |
| `text` | `index`, and what `/v1/translate` gives for a text |
| `end` | `model`, `source`, `target` |
| `error` | as the body of an error; the last event |
"""  # noqa: E501

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from service.api.errors import ApiError, native_body
from service.api.native import TranslateRequest, item_of, translation_request_of
from service.api.work import ERRORS, TranslatorDep, admitted, as_api_errors, within_limits
from service.order import TranslatedSentence, TranslationRequest
from service.translator import StreamPart, Translator

logger = logging.getLogger("quickstudy.service")
router = APIRouter()


@router.post(
    "/v1/translate/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `sentence`, `text` and `end`, or `error`.",
            "content": {
                "text/event-stream": {
                    "example": 'event: sentence\ndata: {"text": 0, "index": 0, "count": 1, '
                    '"source": "Hello.", "target": "Hallo.", "progress": 1.0}\n\n'
                }
            },
        },
        **ERRORS,
    },
    tags=["translation"],
)
async def stream(
    request: Request, body: TranslateRequest, translator: TranslatorDep
) -> StreamingResponse:
    """Translate a text or a list of texts, sending each sentence as soon as it is ready.

    What goes wrong before the first sentence has a status; later, it is an `error` event.
    """
    order = translation_request_of(body)
    parts = translator.stream(order)
    async with admitted(request, translator, order.texts, None):
        with as_api_errors(translator.settings):
            first = await within_limits(request, translator.settings, anext(parts))
    events = _events(body, order, translator, first, parts)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(
    body: TranslateRequest,
    order: TranslationRequest,
    translator: Translator,
    first: StreamPart,
    parts: AsyncGenerator[StreamPart, None],
) -> AsyncIterator[str]:
    """The events from the first part on; whatever goes wrong is the last one."""
    total = sum(map(len, order.texts)) or 1
    before = [sum(map(len, order.texts[:row])) for row in range(len(order.texts))]
    try:
        with as_api_errors(translator.settings):
            async with aclosing(parts):
                part: StreamPart | None = first
                while part is not None:
                    row = part.row
                    if isinstance(part.found, TranslatedSentence):
                        done = before[row] + len(order.texts[row]) * (part.found.index + 1) / (
                            part.found.count
                        )
                        yield _event("sentence", _sentence(row, part.found, done / total))
                    else:
                        item = item_of(part.found, body).model_dump(exclude_unset=True)
                        yield _event("text", {"index": row, **item})
                        last = part
                    part = await anext(parts, None)
        summary = {"model": last.model, "source": order.source or last.source}
        yield _event("end", {**summary, "target": last.target})
    except ApiError as error:
        yield _event("error", native_body(error))
    except Exception:
        logger.exception("a stream failed")
        message = "the service failed on this request: see its log"
        yield _event("error", native_body(ApiError(500, "internal", message)))


def _sentence(row: int, found: TranslatedSentence, progress: float) -> dict[str, Any]:
    return {
        "text": row,
        "index": found.index,
        "count": found.count,
        "source": found.source,
        "target": found.target,
        "progress": round(progress, 4),
    }


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
