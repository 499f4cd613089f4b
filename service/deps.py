"""What routes of every shape share: the translator, bounds on sizes, deadlines, clients that go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from service.auth import Access
from service.batching import ClosedError, DeadlineError, QueueFullError
from service.errors import ApiError, ErrorBody
from service.languages import Detection
from service.middleware import RequestDeadline
from service.models import LanguageError
from service.pivot import SearchError
from service.request_context import current_metrics
from service.settings import Settings
from service.translator import Translator
from service.types import TranslationRequest, TranslationResult

CLIENT_GONE = 499
T = TypeVar("T")


def get_translator(request: Request) -> Translator:
    """The app's translator. Raises ApiError 503 before it is loaded."""
    translator: Translator | None = getattr(request.app.state, "translator", None)
    if translator is None:
        raise ApiError.later(503, "not_ready", "the model is still loading: try again", 1)
    return translator


def get_access(request: Request) -> Access:
    """The app's door."""
    door: Access = request.app.state.access
    return door


async def _serving(request: Request) -> Translator:
    return get_translator(request)


async def _door(request: Request) -> Access:
    return get_access(request)


# Those that are not coroutines, FastAPI runs in threads.
TranslatorDep = Annotated[Translator, Depends(_serving)]
AccessDep = Annotated[Access, Depends(_door)]
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The body is not UTF-8, or has a key twice in one JSON object.",
        401: "A key is needed.",
        403: "The key is not valid.",
        408: "The body took too long to come.",
        413: "The body or the text is too large.",
        415: "The body is compressed.",
        422: "The request is not valid, or its languages are not served.",
        429: "Too many requests or wrong keys, or the quota is used up; see Retry-After.",
        503: "Too many requests wait; Retry-After says when to come back.",
        504: "The translation took too long.",
    }.items()
}


def check_text(text: str) -> str:
    """Raise ValueError where a text holds half of a surrogate pair, which UTF-8 cannot write."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a surrogate pair is not text: escape both halves or neither")
    return text


def check_sizes(texts: Sequence[str], settings: Settings, field: str = "text") -> None:
    """Raise ApiError 413 if there are too many texts or characters."""
    longest = max(map(len, texts), default=0)
    total = sum(map(len, texts))
    for size, limit, what in (
        (len(texts), settings.max_texts, "texts in a request"),
        (longest, settings.max_text_chars, "characters in a text"),
        (total, settings.max_request_chars, "characters in a request"),
    ):
        if size > limit:
            message = f"{size} {what} are too many, {limit} are possible: send several requests"
            raise ApiError(413, "too_large", message, field)


async def translate_request(
    request: Request, translator: Translator, order: TranslationRequest, key: str | None = None
) -> TranslationResult:
    """Translate what a client orders, if it may, within the time limit, unless it goes away.

    `key` is an API key that was not in the headers. Raises ApiError: 401, 403 or 429 by the door,
    413 for too much text, 422 for languages that are not served, 503 with Retry-After when too much
    waits, 504 when time is up.
    """
    if get_access(request).is_open:
        check_sizes(order.texts, translator.settings)
        if (record := current_metrics()) is not None:
            record.characters += sum(map(len, order.texts))
        return await within_limits(request, translator.settings, translator.translate(order))
    async with admitted(request, translator, order.texts, key):
        return await within_limits(request, translator.settings, translator.translate(order))


async def detections(
    request: Request, translator: Translator, texts: Sequence[str], key: str | None = None
) -> list[list[Detection]]:
    """The languages that each text may be in; raises ApiError as `answer`."""
    async with admitted(request, translator, texts, key):
        return await within_limits(request, translator.settings, translator.detect(texts))


@asynccontextmanager
async def admitted(
    request: Request, translator: Translator, texts: Sequence[str], key: str | None
) -> AsyncIterator[None]:
    """Let a request with these texts in. Raises ApiError 401, 403, 413 or 429."""
    check_sizes(texts, translator.settings)
    async with get_access(request).admitted(request, sum(map(len, texts)), key):
        yield


async def within_limits(
    request: Request, settings: Settings, work: Awaitable[T], within_s: float | None = None
) -> T:
    """Wait for work until the time limit, and stop it when the client has gone. The limit is the
    settings' for requests, if no other is given.

    Raises ApiError as `as_api_errors`, and 504 when time is up.
    """
    within_s = settings.timeout_s if within_s is None else within_s
    limit = RequestDeadline(request, within_s)
    with as_api_errors(settings):
        try:
            with limit:
                return await work
        except TimeoutError:
            if limit.client_gone:
                message = "the client closed the connection"
                raise ApiError(CLIENT_GONE, "client_gone", message) from None
            raise DeadlineError(f"not translated within {within_s:g} s") from None


@contextmanager
def as_api_errors(settings: Settings) -> Iterator[None]:
    """Raise what a translator raises as ApiError: 422 for languages that are not served
    and searches that an engine has not, 503 with Retry-After when too much waits or the service
    stops, 504 when time is up."""
    try:
        yield
    except LanguageError as error:
        raise ApiError(422, "unsupported_language", str(error), error.field) from error
    except SearchError as error:
        raise ApiError(422, "unsupported_search", str(error)) from error
    except DeadlineError as error:
        raise ApiError(504, "timeout", f"{error}: send less text at once") from error
    except QueueFullError as error:
        message = "too many requests wait: try again after the time that Retry-After names"
        raise ApiError.later(503, "overloaded", message, settings.retry_after_s) from error
    except ClosedError as error:
        raise ApiError.later(503, "stopping", str(error), settings.retry_after_s) from error
