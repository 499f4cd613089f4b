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

from benchmarks.load.connection import Connection, Reply, request

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
