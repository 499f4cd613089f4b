"""Processes that send load, probe and call the engine, driven by JSON lines on standard input.

    python -m benchmarks.load.workers clients
    python -m benchmarks.load.workers probe PORT
    python -m benchmarks.load.workers engine BUNDLE THREADS

`clients` is one event loop with raw connections, since a general HTTP client costs more than the
service that it measures, and both share the processor: about 0.05 CPU ms a request. Commands:

    {"loop": "closed", "port", "path", "bodies", "clients", "seconds", "count"}
        so many clients, each with one request at a time, until the seconds or `count` requests
        are over
    {"loop": "open", "port", "path", "bodies", "rate", "seconds", "seed"}
        requests at random times (Poisson), whether or not earlier ones are answered; the latency of
        each counts from when it was due, so time spent waiting in the client counts too

It answers with `ms` of each response of status 200, `statuses` by count, `retried` (503 with
Retry-After, which is obeyed), `lost` connections, `seconds`, and the client's own `cpu_seconds`;
`ends` and `losses` are times of the machine's monotonic clock.

`probe` asks `/livez` every PROBE_PERIOD_S from one line to the next, each time over a new
connection as an orchestrator does: {"seconds": […]}, null for no answer.

`engine` calls a bundle's engine in process, as what the service is measured against:

    {"sentences", "scores"}            one by one: {"ms": […]}
    {"sentences", "scores", "sizes"}   in batches of these sizes, as many at a time as threads:
                                       {"seconds", "cpu_seconds"}; with "alike" each of like lengths
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.runtime.engines import Engine, TranslateOptions

HOST = "127.0.0.1"
MAX_CONNECTIONS = 900
MAX_WAIT_S = 15.0
"""Seconds after the last request of an open loop in which answers are awaited."""
RECONNECT_S = 0.05
PROBE_PERIOD_S = 0.02
PROBE_TIMEOUT_S = 60.0
HEAD_END = b"\r\n\r\n"


# --- HTTP ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """A response: its status, the seconds that Retry-After names (0 if none), its body."""

    status: int
    retry_after: float
    body: bytes


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time. Responses must have a Content-Length, as
    the service's have.

    What ends the connection while a response is awaited is raised as ConnectionError.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiter: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect. Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes) -> Reply:
        """Send a whole request and wait for its response. Raises ConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = end + len(HEAD_END)
        size = int(_header(head, b"content-length") or 0)
        if len(self._buffer) < start + size:
            return
        reply = Reply(
            int(head[9:12]),
            float(_header(head, b"retry-after") or 0),
            self._buffer[start : start + size],
        )
        self._buffer = self._buffer[start + size :]
        if _header(head, b"connection") == b"close":
            self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(f"the connection was lost: {exc}"))


def request(path: str, host: str, body: bytes | None = None) -> bytes:
    """The bytes of a POST of JSON, of a GET where there is no body."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value; empty if it is not there. `head` is in lower case."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


# --- closed and open loops ------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the requests."""

    ms: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    retried: int = 0
    lost: int = 0

    def keep(self, reply: Reply, since: float) -> None:
        now = time.monotonic()
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.ms.append((now - since) * 1e3)
            self.ends.append(now)

    def lose(self) -> None:
        self.lost += 1
        self.losses.append(time.monotonic())


class Requests:
    """The requests of a command, one after the other and from the start again."""

    def __init__(self, command: dict[str, Any]) -> None:
        self._all = [request(command["path"], HOST, body.encode()) for body in command["bodies"]]
        self._left: int | None = command.get("count")
        self._place = 0

    def next(self) -> bytes | None:
        """The next one; None when there were enough."""
        if self._left is not None and self._place >= self._left:
            return None
        self._place += 1
        return self._all[(self._place - 1) % len(self._all)]


async def closed_loop(command: dict[str, Any]) -> Tally:
    """Clients that wait for an answer before they ask again."""
    tally, requests = Tally(), Requests(command)
    until = time.monotonic() + command["seconds"]

    async def client() -> None:
        connection: Connection | None = None
        while time.monotonic() < until and (one := requests.next()) is not None:
            while time.monotonic() < until:
                try:
                    if connection is None or not connection.is_open:
                        connection = await Connection.open(HOST, command["port"])
                    since = time.monotonic()
                    reply = await connection.send(one)
                except OSError:
                    tally.lose()
                    await asyncio.sleep(RECONNECT_S)
                    continue
                if reply.status == 503 and reply.retry_after:
                    tally.retried += 1
                    await asyncio.sleep(min(reply.retry_after, max(0, until - time.monotonic())))
                    continue
                tally.keep(reply, since)
                break
        if connection is not None:
            connection.close()

    await asyncio.gather(*(client() for _ in range(command["clients"])))
    return tally


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are to be sent: a Poisson process."""
    chance, at = random.Random(seed), 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        yield at


async def open_loop(command: dict[str, Any]) -> Tally:
    """Requests that come when they come."""
    tally, requests = Tally(), Requests(command)
    free: list[Connection] = []
    slots = asyncio.Semaphore(MAX_CONNECTIONS)
    tasks: set[asyncio.Task[None]] = set()
    start = time.monotonic()

    async def send(one: bytes, due: float) -> None:
        async with slots:
            try:
                while free and not free[-1].is_open:
                    free.pop()
                connection = free.pop() if free else await Connection.open(HOST, command["port"])
                tally.keep(await connection.send(one), due)
            except OSError:
                tally.lose()
            else:
                free.append(connection)

    for at in arrivals(command["rate"], command["seconds"], command["seed"]):
        await asyncio.sleep(max(0, start + at - time.monotonic()))
        one = requests.next()
        assert one is not None
        task = asyncio.ensure_future(send(one, start + at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=MAX_WAIT_S)
        for task in late:
            task.cancel()
            tally.lose()
    for connection in free:
        connection.close()
    return tally


def send_load(command: dict[str, Any]) -> dict[str, Any]:
    """Run one loop; its tally with the time that it took."""
    loop = closed_loop if command["loop"] == "closed" else open_loop
    cpu, begin = time.process_time(), time.monotonic()
    tally = asyncio.run(loop(command))
    return {
        **asdict(tally),
        "statuses": dict(tally.statuses),
        "seconds": time.monotonic() - begin,
        "cpu_seconds": time.process_time() - cpu,
    }


# --- probe --------------------------------------------------------------------------------------


def probe(port: int, stop: threading.Event) -> list[float | None]:
    """Latencies of `/livez` in seconds until `stop` is set; None where there was no answer."""
    latencies: list[float | None] = []
    while not stop.is_set():
        begin = time.monotonic()
        connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_TIMEOUT_S)
        try:
            connection.request("GET", "/livez", headers={"Connection": "close"})
            is_alive = connection.getresponse().status == 200
            latencies.append(time.monotonic() - begin if is_alive else None)
        except (OSError, http.client.HTTPException):
            latencies.append(None)
        finally:
            connection.close()
        stop.wait(max(0.0, begin + PROBE_PERIOD_S - time.monotonic()))
    return latencies


def probe_until_next_line(port: int) -> dict[str, Any]:
    """Probe until another line comes on standard input."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe, port, stop)
        sys.stdin.readline()
        stop.set()
        return {"seconds": probing.result()}


# --- engine -------------------------------------------------------------------------------------


def one_by_one(engine: Engine, sentences: Sequence[str], options: TranslateOptions) -> list[float]:
    """Milliseconds of each sentence."""
    milliseconds = []
    for sentence in sentences:
        begin = time.perf_counter()
        engine.translate_batch([sentence], options)
        milliseconds.append((time.perf_counter() - begin) * 1e3)
    return milliseconds


def in_batches(
    engine: Engine,
    sentences: Sequence[str],
    sizes: Sequence[int],
    options: TranslateOptions,
    threads: int,
) -> dict[str, Any]:
    """Seconds, of the clock and of the processor, that all batches take together."""
    batches = list(_cut(sentences, sizes))
    cpu, begin = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda batch: engine.translate_batch(batch, options), batches):
            pass
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "sentences": sum(map(len, batches)),
    }


def _cut(sentences: Sequence[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Batches of these sizes, from the start again where the sentences end."""
    place = 0
    for size in sizes:
        yield [sentences[(place + index) % len(sentences)] for index in range(size)]
        place += size


def call_engine(engine: Engine, threads: int, command: dict[str, Any]) -> dict[str, Any]:
    """Translate one by one, or in batches where the command has `sizes`."""
    from export.runtime.engines import TranslateOptions

    options = TranslateOptions(return_scores=command["scores"])
    sentences = command["sentences"]
    if command.get("alike"):
        sentences = sorted(sentences, key=engine.count_tokens)
    if "sizes" in command:
        return in_batches(engine, sentences, command["sizes"], options, threads)
    return {"ms": one_by_one(engine, sentences, options)}


def main(worker: str, *arguments: str) -> None:
    if worker == "engine":
        from export.runtime.bundle import load_bundle
        from export.runtime.engines import load_engine

        path, threads = Path(arguments[0]), int(arguments[1])
        engine = load_engine(load_bundle(path), inter_threads=threads)
    # readline, not iteration over the lines: `probe` reads on while it answers one.
    while line := sys.stdin.readline():
        command = json.loads(line)
        match worker:
            case "clients":
                answer = send_load(command)
            case "probe":
                answer = probe_until_next_line(int(arguments[0]))
            case "engine":
                answer = call_engine(engine, threads, command)
            case _:
                raise SystemExit(f"{worker!r}: choose of clients, probe, engine")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
