"""The outermost layer: bounds bodies, lets no exception out, counts and logs requests.

Ends of work: its time is up, or the client has gone. One timer each, which seldom ends.

How the service stops after SIGTERM, without cutting off what it has begun.

| step | for | `/readyz` | new requests | those that are here |
| drain | `drain_s` | 503 | answered, and the connection closed | go on |
| finish | until they are done, at most `grace_s` | 503 | 503 with Retry-After | go on |
| end | | – | not accepted | 503 |

Until the end the server takes connections, since the listening socket belongs to BentoML's main
process too: what the server did not take from it would be reset.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import FrameType, TracebackType
from typing import Self

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.forms import encoding_error, repeated_key_error
from service.errors import ApiError, error_response, internal_error
from service.observability import OTHER, count_request, log_request
from service.request_context import REQUEST_METRICS, RequestMetrics, request_id
from service.tracing import NO_TRACES, Traces

LISTEN_AFTER_S = 0.25
"""Seconds after which it is noticed that a client has gone; nearly all work is done before."""


class Deadline:
    """Cancels what a task does in this context after some seconds, and raises TimeoutError there.

    `asyncio.timeout` does the same at twice the cost. To be entered once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended = self._left = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left = True
        self._timer.cancel()
        if not self._ended:
            return
        others = self._task.uncancel() > self._cancelling
        if kind is asyncio.CancelledError and not others:
            raise TimeoutError from error

    def _begin(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._end)

    def _end(self) -> None:
        if not self._left and not self._ended:
            self._ended = True
            self._task.cancel()


class RequestDeadline(Deadline):
    """The same for a request's work, which ends when the client has gone, too.

    `client_gone` tells the two apart. Most work is done before a task that listens for that would
    be worth its while.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        super().__init__(seconds)
        self._request = request
        self._listener: asyncio.Task[None] | None = None
        self.client_gone = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
        super().__exit__(kind, error, traceback)

    def _begin(self) -> None:
        if self._seconds <= LISTEN_AFTER_S:
            super()._begin()
        else:
            self._timer = self._loop.call_later(LISTEN_AFTER_S, self._listen)

    def _listen(self) -> None:
        self._timer = self._loop.call_later(self._seconds - LISTEN_AFTER_S, self._end)
        self._listener = self._loop.create_task(self._disconnected())

    async def _disconnected(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.client_gone = not self._ended
        self._end()


TICK_S = 0.02
QUIET_S = 0.5
"""Seconds without a request before the end: a client that was told to connect anew gets its 503."""


class GracefulShutdown:
    """Where the stop has got to, and how many requests are here (`active`)."""

    def __init__(self, drain_s: float, grace_s: float) -> None:
        self._drain_s = drain_s
        self._grace_s = grace_s
        self.begun = False
        self.refusing = False
        self.active = 0
        self._last = -math.inf
        self._task: asyncio.Task[None] | None = None

    def come(self) -> None:
        """A request is here."""
        self.active += 1
        self._last = time.monotonic()

    def go(self) -> None:
        """It is over."""
        self.active -= 1
        self._last = time.monotonic()

    def at_sigterm(self, give_up: Callable[[], Awaitable[None]]) -> None:
        """From now on, stop step by step at SIGTERM, and then let the former handler end the
        server. `give_up` ends the requests that take too long. Needs the main thread."""
        former = signal.getsignal(signal.SIGTERM)
        loop = asyncio.get_running_loop()

        def end() -> None:
            if callable(former):
                former(signal.SIGTERM, None)

        def begin() -> None:
            if self._task is None:
                self._task = loop.create_task(self.stop(give_up, end))

        def on_signal(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(begin)

        signal.signal(signal.SIGTERM, on_signal)

    async def stop(self, give_up: Callable[[], Awaitable[None]], end: Callable[[], None]) -> None:
        """Take the steps."""
        self.begun = True
        try:
            await asyncio.sleep(self._drain_s)
            self.refusing = True
            try:
                async with asyncio.timeout(self._grace_s):
                    while self.active or time.monotonic() - self._last < QUIET_S:
                        await asyncio.sleep(TICK_S)
            except TimeoutError:
                if self.active:
                    await give_up()
        finally:
            end()


SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Headers of every response that does not set them itself: answers are data, not pages."""

BODY_S = 9.0
"""Seconds that a body may take to come."""
PROBES = frozenset(("/livez", "/healthz", "/readyz", "/metrics", "/health"))
"""Paths that are asked every few seconds, and logged at `debug`."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

logger = logging.getLogger("quickstudy.service")


class RequestMiddleware:
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
        traces: Traces = NO_TRACES,
        stopping: GracefulShutdown | None = None,
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._patterns = [
            (re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)), path) for path in paths if "{" in path
        ]
        self._traces = traces
        self._stopping = stopping or GracefulShutdown(0, 0)
        self._max_body_bytes = max_body_bytes
        self._uploads = uploads or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        record = RequestMetrics(request_id(_header(scope, b"x-request-id")))
        self._traces.begin(record)
        token = REQUEST_METRICS.set(record)
        scope.pop("route", None)
        status: int | None = None

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = _with_headers(message, record.id, self._stopping.begun)
            await send(message)

        counts = scope["path"] not in PROBES
        if counts:
            self._stopping.come()
        try:
            await self._serve(scope, receive, watched_send)
        except Exception:
            logger.exception("a request failed")
            if status is None:
                await internal_error(scope["path"])(scope, receive, watched_send)
        finally:
            if counts:
                self._stopping.go()
            self._tell(scope, record, status, begin)
            REQUEST_METRICS.reset(token)

    def _route(self, path: str) -> str:
        """The path as metrics and logs name it."""
        if path in self._paths:
            return path
        return next((name for pattern, name in self._patterns if pattern.fullmatch(path)), OTHER)

    def _tell(self, scope: Scope, record: RequestMetrics, status: int | None, begin: float) -> None:
        """Count, log and trace a request that is over, by its route rather than its path."""
        route = self._route(scope["path"])
        if status is not None:
            count_request(route, status, begin)
        level = logging.INFO
        if status is None or status >= 500:
            level = logging.WARNING
        elif route in PROBES:
            level = logging.DEBUG
        method = scope["method"] if scope["method"] in METHODS else OTHER
        seconds = time.perf_counter() - begin
        trace_id = None
        if level > logging.DEBUG:
            parent = _header(scope, b"traceparent")
            trace_id = self._traces.end(record, parent, method, route, status)
        log_request(record, route, method, status, seconds, level, trace_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stopping.refusing and scope["path"] not in PROBES:
            error = ApiError.later(503, "stopping", "the service is stopping: ask again", 1)
            await error_response(scope["path"], error)(scope, receive, send)
            return
        if refusal := encoding_error(scope):
            await error_response(scope["path"], refusal)(scope, receive, send)
            return
        upload_bytes = self._uploads.get(scope["path"])
        if _announced_bytes(scope) > (upload_bytes or self._max_body_bytes):
            await self._refuse(scope, receive, send)
            return
        if upload_bytes is not None:
            await self._app(scope, _counted(receive, upload_bytes), send)
            return
        try:
            with Deadline(BODY_S):
                body = await self._body(receive)
        except TimeoutError:
            message = f"the body did not come within {BODY_S:g} seconds: send it at once"
            error = ApiError(408, "body_timeout", message, headers={"Connection": "close"})
            await error_response(scope["path"], error)(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > self._max_body_bytes:
            await self._refuse(scope, receive, send)
            return
        if refusal := repeated_key_error(body):
            await error_response(scope["path"], refusal)(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, or of a larger one more than the limit; None if the client has gone."""
        body = bytearray()
        more = True
        while more and len(body) <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

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


def _with_headers(message: Message, identity: str, last: bool) -> Message:
    """A response's start with the headers of all; the last one of a connection says so."""
    headers = list(message.get("headers", []))
    there = {name.lower() for name, _ in headers}
    missing = [(name, value) for name, value in SECURITY_HEADERS.items() if name not in there]
    missing.append((b"x-request-id", identity.encode()))
    if last:
        missing.append((b"connection", b"close"))
    return {**message, "headers": [*headers, *missing]}


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _announced_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
