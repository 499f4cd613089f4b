"""The outermost layer: bounds bodies, lets no exception out, counts and logs requests."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.body import encoding_error, repeated_key_error
from service.api.errors import ApiError, error_response, internal_error
from service.api.limits import Deadline
from service.logs import log_request
from service.metrics import OTHER, count_request
from service.record import REQUEST_METRICS, RequestMetrics, request_id
from service.stopping import GracefulShutdown
from service.traces import NO_TRACES, Traces

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
