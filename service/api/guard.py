"""The outermost layer: bounds the size of bodies, lets no exception out, counts requests."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import ApiError, error_response, internal_error
from service.metrics import OTHER, count_request

SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Headers of every response that does not set them itself: answers are data, not pages."""

logger = logging.getLogger("quickstudy.service")


class Guard:
    """Reads a body of at most `max_body_bytes` before the app sees it; more is 413.

    The size announced counts, and so does what really comes, in chunks or not. An exception that
    the app lets out is logged and becomes a 500, since the server around would keep the client
    waiting. Requests are counted by path, those outside of `paths` as one; a `{…}` in a path stands
    for any name. `uploads` are paths with limits of their own, whose bodies the app reads as they
    come.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        paths: Collection[str] = frozenset(),
        uploads: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._patterns = [
            (re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)), path) for path in paths if "{" in path
        ]
        self._max_body_bytes = max_body_bytes
        self._uploads = uploads or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        status: int | None = None

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = _with_security_headers(message)
            await send(message)

        try:
            await self._serve(scope, receive, watched_send)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if status is None:
                await internal_error(scope["path"])(scope, receive, watched_send)
        finally:
            if status is not None:
                count_request(self._route(scope["path"]), status, begin)

    def _route(self, path: str) -> str:
        """The path as metrics name it."""
        if path in self._paths:
            return path
        return next((name for pattern, name in self._patterns if pattern.fullmatch(path)), OTHER)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        upload_bytes = self._uploads.get(scope["path"])
        if _announced_bytes(scope) > (upload_bytes or self._max_body_bytes):
            await self._refuse(scope, receive, send)
            return
        if upload_bytes is not None:
            await self._app(scope, _counted(receive, upload_bytes), send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body_bytes:
                await self._refuse(scope, receive, send)
                return
        unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _too_large(self._uploads.get(scope["path"], self._max_body_bytes))
        await error_response(scope["path"], error)(scope, receive, send)


def _counted(receive: Receive, max_bytes: int) -> Receive:
    """A body that is read as it comes; reading more than `max_bytes` raises ApiError 413."""
    count = 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


def _too_large(max_bytes: int) -> ApiError:
    message = f"the body is larger than {max_bytes} bytes: send less in a request"
    return ApiError(413, "too_large", message, headers={"Connection": "close"})


def _with_security_headers(message: Message) -> Message:
    headers = list(message.get("headers", []))
    there = {name.lower() for name, _ in headers}
    missing = [(name, value) for name, value in SECURITY_HEADERS.items() if name not in there]
    return {**message, "headers": [*headers, *missing]}


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
