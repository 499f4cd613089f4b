"""What the routes of all APIs share: dependencies, limits on sizes and time, errors."""

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
from service.observability import current_metrics
from service.pivot import SearchError, TranslationRequest, TranslationResult
from service.settings import Settings
from service.translator import Translator

CLIENT_GONE = 499
T = TypeVar("T")


def get_translator(request: Request) -> Translator:
    """The app's translator. Raises ApiError 503 before it is loaded."""
    translator: Translator | None = getattr(request.app.state, "translator", None)
    if translator is None:
        raise ApiError.later(503, "not_ready", "the model is still loading: try again", 1)
    return translator


def get_access(request: Request) -> Access:
    """The app's access control."""
    access: Access = request.app.state.access
    return access


async def _translator(request: Request) -> Translator:
    return get_translator(request)


async def _access(request: Request) -> Access:
    return get_access(request)


# FastAPI runs dependencies that are not coroutines in threads.
TranslatorDep = Annotated[Translator, Depends(_translator)]
AccessDep = Annotated[Access, Depends(_access)]
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
    """Raise ValueError where a text holds half a surrogate pair, which UTF-8 cannot encode."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a surrogate pair is not text: escape both halves or neither")
    return text


def check_sizes(texts: Sequence[str], settings: Settings, field: str = "text") -> None:
    """Raise ApiError 413 if there are too many texts or characters."""
    longest = max(map(len, texts), default=0)
    total = sum(map(len, texts))
    for size, limit, unit in (
        (len(texts), settings.max_texts, "texts in a request"),
        (longest, settings.max_text_chars, "characters in a text"),
        (total, settings.max_request_chars, "characters in a request"),
    ):
        if size > limit:
            message = f"{size} {unit} are too many, {limit} are possible: send several requests"
            raise ApiError(413, "too_large", message, field)


async def translate_request(
    request: Request,
    translator: Translator,
    translation_request: TranslationRequest,
    key: str | None = None,
) -> TranslationResult:
    """Translate for a client that is authorised, within the time limit, while it is connected.

    `key` is an API key that was not in the headers. Raises ApiError: 401, 403 or 429 from the
    access control, 413 for too much text, 422 for languages that are not served, 503 with
    Retry-After when too much waits, 504 when time is up.
    """
    texts = translation_request.texts
    if get_access(request).is_public:
        check_sizes(texts, translator.settings)
        if (metrics := current_metrics()) is not None:
            metrics.characters += sum(map(len, texts))
        return await within_limits(
            request, translator.settings, translator.translate(translation_request)
        )
    async with admitted(request, translator, texts, key):
        return await within_limits(
            request, translator.settings, translator.translate(translation_request)
        )


async def detections(
    request: Request, translator: Translator, texts: Sequence[str], key: str | None = None
) -> list[list[Detection]]:
    """The languages that each text may be in. Raises ApiError as `translate_request`."""
    async with admitted(request, translator, texts, key):
        return await within_limits(request, translator.settings, translator.detect(texts))


@asynccontextmanager
async def admitted(
    request: Request, translator: Translator, texts: Sequence[str], key: str | None
) -> AsyncIterator[None]:
    """Authorise a request with these texts. Raises ApiError 401, 403, 413 or 429."""
    check_sizes(texts, translator.settings)
    async with get_access(request).admitted(request, sum(map(len, texts)), key):
        yield


async def within_limits(
    request: Request, settings: Settings, work: Awaitable[T], within_s: float | None = None
) -> T:
    """Wait for work until the time limit, and cancel it when the client disconnects. The default
    limit is the settings' for requests.

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
    """Raise what a translator raises as ApiError: 422 for languages that are not served and
    options that a model does not support, 503 with Retry-After when too much waits or the
    service stops, 504 when time is up."""
    try:
        yield
    except LanguageError as error:
        raise ApiError(422, "unsupported_language", str(error), error.field) from error
    except SearchError as error:
        raise ApiError(422, error.code, str(error), error.field) from error
    except DeadlineError as error:
        raise ApiError(504, "timeout", f"{error}: send less text at once") from error
    except QueueFullError as error:
        message = "too many requests wait: try again after the time that Retry-After names"
        raise ApiError.later(503, "overloaded", message, settings.retry_after_s) from error
    except ClosedError as error:
        raise ApiError.later(503, "stopping", str(error), settings.retry_after_s) from error
