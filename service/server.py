"""The process that translates: the app on uvicorn, with limits on connections.

The supervisor starts it with a listening socket, and a pipe that it writes to once a translation
has succeeded.

The limits on connections apply before the app sees a request, so they are part of uvicorn's HTTP
protocol:

| limit | response |
| head or trailers larger than `HEAD_BYTES`, or with more than `HEAD_FIELDS` fields | 431, closed |
| HTTP/1.1 without exactly one Host field | 400, closed |
| no complete head within `head_timeout_s` | closed |
| a response that the client does not read for `WRITE_S` | closed |
| more than `max_connections` | the connection that has waited longest is closed |

A connection waits while it has no complete request, or while its client does not read. Where none
waits, `RESERVED` more connections are accepted for probes only; other requests get 503.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quickstudy.errors import QuickstudyError, explain
from service.app import create_app, guarded, load, start, stop
from service.errors import ApiError, error_response
from service.middleware import PROBES
from service.observability import CONNECTIONS, CONNECTIONS_REFUSED, configure_logs
from service.settings import read_settings
from service.tracing import RequestTraces, open_traces

HEAD_BYTES = 65_536
"""Bytes of a request's line and header fields, its trailers included."""
HEAD_FIELDS = 100
READ_BYTES = 16_384
"""Bytes that are parsed at once, so a head exceeds its limit by no more than that."""
WRITE_S = 30.0
"""Seconds that a client may leave a response unread."""
LINGER_S = 2.0
"""Seconds after a refusal in which a client may still send: a connection that is closed at once is
reset before the client reads the refusal."""
LINGER_BYTES = 1_048_576
NOT_HTTP = "this is no HTTP/1.1 request: check its first line and its header fields"
MAX_PIPELINED = 16
"""Requests that a client may send before the first is answered."""
RESERVED = 32
"""Connections beyond the limit that are for probes only."""
SPARE_FILES = 128
"""File descriptors for all but connections."""
SWEEP_S = 0.5
LOG_EVERY_S = 60.0
"""Seconds between two log lines for the same reason."""

logger = logging.getLogger("quickstudy.service")


class Phase(IntEnum):
    """What a connection waits for; those with a lower value are closed first."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class ConnectionTable:
    """The connections of a process and their limits.

    `head_s` are the seconds that a request's head may take, from the start of the connection or the
    head's first byte.
    """

    def __init__(self, max_connections: int, head_s: float) -> None:
        self.max_connections = max_connections
        self.head_s = head_s
        self._connections: set[BoundedProtocol] = set()
        self._logged_at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        CONNECTIONS.set_function(lambda: len(self._connections))

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: BoundedProtocol) -> bool:
        """Accept a connection; whether it may request more than probes."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        has_room = self._make_room()
        if not has_room and len(self) >= self.max_connections + RESERVED:
            self.refused("connections", "all connections are busy: a new one was closed")
            connection.abort()
            return False
        self._connections.add(connection)
        return has_room

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)

    def refused(self, reason: str, message: str | None = None) -> None:
        """Count a refusal; log it at most once in `LOG_EVERY_S` seconds."""
        CONNECTIONS_REFUSED.labels(reason).inc()
        now = time.monotonic()
        if message is not None and now - self._logged_at.get(reason, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged_at[reason] = now
            logger.warning("%s (QUICKSTUDY_MAX_CONNECTIONS is %d)", message, self.max_connections)

    def _make_room(self) -> bool:
        """Whether there is room for one more; closes the one that has waited longest if need be."""
        if len(self) < self.max_connections:
            return True
        waiting = [each for each in self._connections if not each.is_working]
        if not waiting:
            return False
        longest = min(waiting, key=lambda each: (each.phase, each.since))
        self.refused("evicted", "too many connections: closing those that have waited longest")
        longest.abort()
        self._connections.discard(longest)
        return True

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            if reason := connection.overdue(now, self.head_s):
                self.refused(reason)
                connection.abort()
        self._timer = None
        if self._connections:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol within the limits of a `table`."""

    table: ConnectionTable

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.phase = Phase.HEAD
        self.since = time.monotonic()
        self.is_reserved = False
        self._unread_since: float | None = None
        self._ends_at: float | None = None
        self._lingering_bytes = 0
        self._head_bytes = 0
        self._fields = 0
        self._unparsed = 0
        self._hosts = 0
        self._refusal: ApiError | None = None
        self._deferred: ApiError | None = None
        self.url = b""

    @property
    def is_working(self) -> bool:
        """Whether a complete request is being answered, and the client reads the response."""
        cycle = self.cycle
        is_answering = bool(self.pipeline) or (
            cycle is not None and not cycle.response_complete and not cycle.more_body
        )
        return is_answering and self._unread_since is None

    def abort(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()

    def overdue(self, now: float, head_s: float) -> str | None:
        """Why the connection should be closed by now, as a word for metrics; None if it should
        not."""
        if self._ends_at is not None:
            return "lingering" if now > self._ends_at else None
        if self._unread_since is not None and now - self._unread_since > WRITE_S:
            return "unread_response"
        if self.transport.is_closing():
            self._ends_at = now + WRITE_S
        if self.phase is Phase.HEAD and not self.is_working and now - self.since > head_s:
            return "head_timeout"
        return None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.is_reserved = not self.table.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.remove(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._unread_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._ends_at is not None or self._deferred is not None:
            self._lingering_bytes += len(data)
            if self._lingering_bytes > LINGER_BYTES:
                self.abort()
            return
        if len(data) <= READ_BYTES:
            self._parse(data)
            return
        view = memoryview(data)
        for begin in range(0, len(data), READ_BYTES):
            self._parse(cast(bytes, view[begin : begin + READ_BYTES]))
            if self._ends_at or self._deferred or self.transport.is_closing():
                return

    def _parse(self, data: bytes) -> None:
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > HEAD_BYTES + READ_BYTES and self._ends_at is None:
            self._refuse_head()
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser rejects, and close once the client has read it."""
        if self.transport.is_closing() or self._ends_at is not None:
            return
        error = self._refusal or ApiError(400, "invalid_request", NOT_HTTP)
        self.table.refused(error.code)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._answer(error)
        elif not cycle.more_body:  # requests before it are still being answered
            self._deferred = error
        elif self.pipeline or cycle.response_started:
            self.abort()
        else:  # its own trailers are at fault
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: ApiError) -> None:
        path = self.url.partition(b"?")[0].decode("latin-1") if self.url else "/"
        response = error_response(path, error)
        head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"connection: close", b"", response.body]))
        self._ends_at = time.monotonic() + LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase, self.since = Phase.HEAD, time.monotonic()
        self._head_bytes = self._fields = self._unparsed = self._hosts = 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count(len(name) + len(value))
        if self.phase is not Phase.HEAD:
            return  # a trailer: it must not pass for a header field
        if len(name) == 4 and name.lower() == b"host":
            self._hosts += 1
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        if self.parser.get_http_version() == "1.1" and self._hosts != 1:
            self._refuse(400, "host", "HTTP/1.1 needs one Host header field: send exactly one")
        if len(self.pipeline) >= MAX_PIPELINED - 1:
            self._refuse(400, "pipelined", "too many requests before an answer: wait for it")
        if self.is_reserved and httptools.parse_url(self.url).path.decode("latin-1") not in PROBES:
            self._refusal = ApiError.later(503, "overloaded", "too many connections", 1)
            raise httptools.HttpParserError("overloaded")
        self.phase = Phase.BODY
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        """A chunk has ended; called by the parser."""
        self._unparsed = 0

    def on_message_complete(self) -> None:
        self._unparsed = 0
        self.phase, self.since = Phase.IDLE, time.monotonic()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.since = time.monotonic()
        if self._deferred is not None and not self.pipeline and self.cycle.response_complete:
            self._answer(self._deferred)

    def _count(self, more: int) -> None:
        self._unparsed = 0
        self._head_bytes += more
        if self._head_bytes > HEAD_BYTES or self._fields > HEAD_FIELDS:
            self._refuse_head()
            raise httptools.HttpParserError("head_too_large")

    def _refuse_head(self) -> None:
        self._refusal = ApiError(
            431,
            "head_too_large",
            f"the request's head is larger than {HEAD_BYTES} bytes or of more than {HEAD_FIELDS} "
            "fields: send less",
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Have the parser stop, which calls `send_400_response`."""
        self._refusal = ApiError(status, code, message)
        raise httptools.HttpParserError(code)


def connection_limit(wanted: int) -> int:
    """`wanted` connections, or as many as the process may have files open; raises its limit."""
    needed = wanted + RESERVED + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = max(8, soft - RESERVED - SPARE_FILES)
    logger.warning("only %d files may be open: serving %d connections at once", soft, allowed)
    return allowed


CANNOT_START = 78
"""Exit status after a line that says what is wrong (EX_CONFIG of sysexits.h)."""
READY_POLL_S = 0.5


def serve(listener: socket.socket, ready_fd: int | None) -> None:
    """Serve by the settings of the environment until SIGTERM.

    Raises QuickstudyError for what the operator can fix.
    """
    settings = read_settings()
    traces = open_traces()
    configure_logs(settings.log_format, settings.log_level)
    app = create_app(settings, lifespan=_lifespan(traces, ready_fd))
    load(app)
    table = ConnectionTable(connection_limit(settings.max_connections), settings.head_timeout_s)
    protocol = type("Protocol", (BoundedProtocol,), {"table": table})
    config = uvicorn.Config(
        guarded(app, settings, traces),
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s),
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Serve on an inherited socket; exit status `CANNOT_START` after a line that says why."""
    parser = argparse.ArgumentParser(prog="service.server", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--ready-fd", type=int, help="pipe to write to when it translates")
    chosen = parser.parse_args()
    try:
        serve(socket.socket(fileno=chosen.fd), chosen.ready_fd)
    except QuickstudyError as error:
        print(f"quickstudy: {error}", file=sys.stderr, flush=True)
        return CANNOT_START
    except OSError as error:
        if (message := explain(error)) is None:
            raise
        print(f"quickstudy: {message}", file=sys.stderr, flush=True)
        return CANNOT_START
    return 0


def _lifespan(traces: RequestTraces | None, ready_fd: int | None):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await start(app)
        reporting = asyncio.create_task(_report_ready(app, ready_fd))
        yield
        reporting.cancel()
        await stop(app, traces)

    return lifespan


async def _report_ready(app: FastAPI, ready_fd: int | None) -> None:
    while not await app.state.translator.ready():
        await asyncio.sleep(READY_POLL_S)
    if ready_fd is not None:
        os.write(ready_fd, b"ready")
        os.close(ready_fd)


if __name__ == "__main__":
    raise SystemExit(main())
