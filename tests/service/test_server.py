"""Heads, connections and clients that would keep the service from others."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from export.runtime.bundle import Bundle
from service.server import HEAD_BYTES, HEAD_FIELDS, MAX_PIPELINED, BoundedProtocol, ConnectionTable
from tests.service.serving import ROOT, Served, serving

pytestmark = pytest.mark.slow

LIMIT = 8
HEAD_S = 1.0
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
POST = b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("connections")
    with serving(
        folder,
        model=tiny_bundle.path,
        max_connections=LIMIT,
        head_timeout_s=HEAD_S,
        keep_alive_s=2,
    ) as one:
        yield one


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=10)


def read(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answer(served: Served, request: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to these bytes; 0 if there is none."""
    with connect(served) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        head, _, body = read(connection).partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def refused(served: Served, reason: str) -> float:
    name = f'quickstudy_connections_refused_total{{reason="{reason}"}}'
    for line in served.client.get("/metrics").text.splitlines():
        if line.startswith(name):
            return float(line.split()[-1])
    return 0.0


def fields(count: int) -> bytes:
    return b"".join(b"X-%d: 1\r\n" % number for number in range(count))


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + fields(HEAD_FIELDS - 2) + b"\r\n", 200),
        (GET + fields(HEAD_FIELDS - 1) + b"\r\n", 431),
        (GET + b"X: " + b"a" * (HEAD_BYTES - 100) + b"\r\n\r\n", 200),
        (GET + b"X: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
        (GET + b"X: " + b"a" * 3 * HEAD_BYTES, 431),
        (GET + b"a" * 3 * HEAD_BYTES, 431),
        (b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    ],
    ids=["fields", "too many", "long", "too long", "unended", "no colon", "path"],
)
def test_heads_are_bounded(served: Served, request_bytes: bytes, status: int) -> None:
    assert answer(served, request_bytes)[0] == status


def test_trailers_are_bounded_and_are_no_headers(served: Served) -> None:
    head = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = head + b'f\r\n{"text": "cat"}\r\n0\r\n'
    assert answer(served, POST + body + b"Host: b\r\n\r\n")[0] == 200
    assert answer(served, POST + body + b"T: " + b"a" * 3 * HEAD_BYTES)[0] == 431
    assert answer(served, POST + body + fields(HEAD_FIELDS) + b"\r\n")[0] == 431


def test_a_body_in_many_chunks_is_no_large_head(served: Served) -> None:
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in b'{"text": "cat"}' + b" " * 20_000)
    head = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert answer(served, POST + head + chunks + b"0\r\n\r\n")[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"HELLO\r\n\r\n", 400),
    ],
    ids=["none", "two", "HTTP/1.0", "no request"],
)
def test_a_request_names_one_host(served: Served, head: bytes, status: int) -> None:
    found, body = answer(served, head)
    assert found == status
    assert (b'"message"' in body) == (status == 400)


def test_refusals_have_the_shape_of_their_path(served: Served) -> None:
    head = b"POST /translate HTTP/1.1\r\n\r\n"
    status, body = answer(served, head)
    assert (status, body[:10]) == (400, b'{"error":"')


def test_requests_on_one_connection_are_answered_in_order(served: Served) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(request * (MAX_PIPELINED - 1) + GET + b"\r\n")
        assert read(connection).count(b"HTTP/1.1 200") == MAX_PIPELINED


def test_a_connection_has_few_requests_at_once(served: Served) -> None:
    """Those within the limit are answered, then the one beyond it; the rest is not read."""
    before = refused(served, "pipelined")
    request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    for count in (MAX_PIPELINED + 1, 1000):
        with connect(served) as connection:
            connection.sendall(request * count)
            answers = read(connection)
        assert answers.count(b"HTTP/1.1 200") == MAX_PIPELINED
        assert answers.count(b"HTTP/1.1 400") == 1
        assert b'"pipelined"' in answers
    assert refused(served, "pipelined") == before + 2


def test_what_follows_a_request_is_refused_after_its_answer(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /livez HTTP/1.1\r\n\r\n")
        answers = read(connection)
    assert re.findall(rb"HTTP/1.1 (\d{3})", answers) == [b"200", b"400"]


@pytest.mark.parametrize("begin", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_has_to_come_in_time(served: Served, begin: bytes) -> None:
    with connect(served) as connection:
        started = time.monotonic()
        connection.sendall(begin)
        assert read(connection) == b""
        assert HEAD_S * 0.9 < time.monotonic() - started < HEAD_S + 3


def test_a_head_that_trickles_is_late(served: Served) -> None:
    started = time.monotonic()
    with connect(served) as connection, suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(GET)
        while time.monotonic() < started + 10:
            connection.sendall(b"X: 1\r\n")
            time.sleep(0.1)
    assert time.monotonic() - started < HEAD_S + 3


def test_an_idle_connection_is_closed(served: Served) -> None:
    with connect(served) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        started = time.monotonic()
        assert read(connection).startswith(b"HTTP/1.1 200")
        assert 1 < time.monotonic() - started < 5


def test_waiting_connections_make_room_for_new_ones(served: Served) -> None:
    before = refused(served, "evicted")
    with ExitStack() as opened:
        for _ in range(3 * LIMIT):
            opened.enter_context(connect(served)).sendall(b"GET /")
        for _ in range(3):
            assert answer(served, GET + b"\r\n")[0] == 200
            found = httpx.post(f"{served.client.base_url}/v1/translate", json={"text": "cat"})
            assert found.status_code == 200
    assert refused(served, "evicted") >= before + 2 * LIMIT
    assert "closing those that have waited longest" in served.log.read_text()


def test_a_place_is_kept_for_probes() -> None:
    """Where every connection has a whole request that is being worked on, none makes room."""
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/livez":
            await done.wait()
        await PlainTextResponse("ok")(scope, receive, send)

    async def status(request: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return int(answer.split()[1])

    async def run() -> None:
        protocol = type("Protocol", (BoundedProtocol,), {"table": ConnectionTable(LIMIT, HEAD_S)})
        config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        working = [asyncio.create_task(status(POST + b"\r\n")) for _ in range(LIMIT)]
        await asyncio.sleep(HEAD_S + 1)
        assert [await status(POST + b"\r\n"), await status(GET + b"\r\n")] == [503, 200]
        done.set()
        assert await asyncio.gather(*working) == [200] * LIMIT
        assert await status(POST + b"\r\n") == 200
        server.should_exit = True
        await serving

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        asyncio.run(run())


def test_a_service_of_few_files_has_few_connections(tmp_path: Path) -> None:
    """The limit of open files is raised as far as may be, and then supported."""
    code = (
        "import resource; from service.server import *;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}));"
        "print(connection_limit(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("this user may not open 2,000 files")
    found = []
    for allowed in (2000, 400):
        done = subprocess.run(
            [sys.executable, "-c", code.format(hard=allowed)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.split())
    assert found == [["1000", "1160"], ["240", "400"]]
