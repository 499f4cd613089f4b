"""The load: one process, one event loop, raw connections; told by JSON lines.

    {"do": "closed", "port", "path", "bodies", "clients", "seconds", "count"}
        so many clients, each with one request at a time, until the seconds or `count` requests
        are over
    {"do": "open", "port", "path", "bodies", "rate", "seconds", "seed"}
        requests at random times (Poisson), whether or not earlier ones are answered; the time of
        each counts from when it was to be sent, so what waits in the client counts too

The answer: `ms` of each that was answered with 200, `statuses` by count, `retried` (503 with
Retry-After, which is obeyed), `lost` connections, `seconds`, and the client's own `cpu_seconds`;
`ends` and `losses` are times by the machine's monotonic clock.

A keep-alive HTTP/1.1 connection, as cheap as asyncio allows: about 0.05 CPU ms a request.

A general client costs more than the service that it measures, and both share the processor.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Reply:
    """A response: its status, the seconds that Retry-After names (0 if none), its body."""

    status: int
    retry_after: float
    body: bytes


class Connection(asyncio.Protocol):
    """One request at a time. Responses must have a Content-Length, as the service's have.

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


HOST = "127.0.0.1"
MAX_CONNECTIONS = 900
MAX_WAIT_S = 15.0
"""Seconds after the last request of an open loop in which answers are awaited."""
RECONNECT_S = 0.05


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
    """The requests of an order, one after the other and from the start again."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._all = [request(order["path"], HOST, body.encode()) for body in order["bodies"]]
        self._left: int | None = order.get("count")
        self._place = 0

    def next(self) -> bytes | None:
        """The next one; None when there were enough."""
        if self._left is not None and self._place >= self._left:
            return None
        self._place += 1
        return self._all[(self._place - 1) % len(self._all)]


async def closed_loop(order: dict[str, Any]) -> Tally:
    """Clients that wait for an answer before they ask again."""
    tally, requests = Tally(), Requests(order)
    until = time.monotonic() + order["seconds"]

    async def client() -> None:
        connection: Connection | None = None
        while time.monotonic() < until and (one := requests.next()) is not None:
            while time.monotonic() < until:
                try:
                    if connection is None or not connection.is_open:
                        connection = await Connection.open(HOST, order["port"])
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

    await asyncio.gather(*(client() for _ in range(order["clients"])))
    return tally


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are to be sent: a Poisson process."""
    chance, at = random.Random(seed), 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        yield at


async def open_loop(order: dict[str, Any]) -> Tally:
    """Requests that come when they come."""
    tally, requests = Tally(), Requests(order)
    free: list[Connection] = []
    slots = asyncio.Semaphore(MAX_CONNECTIONS)
    tasks: set[asyncio.Task[None]] = set()
    start = time.monotonic()

    async def send(one: bytes, due: float) -> None:
        async with slots:
            try:
                while free and not free[-1].is_open:
                    free.pop()
                connection = free.pop() if free else await Connection.open(HOST, order["port"])
                tally.keep(await connection.send(one), due)
            except OSError:
                tally.lose()
            else:
                free.append(connection)

    for at in arrivals(order["rate"], order["seconds"], order["seed"]):
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


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        loop = closed_loop if order["do"] == "closed" else open_loop
        cpu, begin = time.process_time(), time.monotonic()
        tally = asyncio.run(loop(order))
        found = {
            **asdict(tally),
            "statuses": dict(tally.statuses),
            "seconds": time.monotonic() - begin,
            "cpu_seconds": time.process_time() - cpu,
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
