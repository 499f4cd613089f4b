"""A response's head and body go out together, and nothing waits for what does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.one_write import OneWrite, in_one_write


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def run(scenario: Callable[[OneWrite, Wire], Coroutine[Any, Any, None]]) -> list[bytes]:
    wire = Wire()

    async def with_wire() -> None:
        await scenario(OneWrite(wire), wire)  # type: ignore[arg-type]

    asyncio.run(with_wire())
    return wire.writes


def test_head_and_body_are_one_write() -> None:
    async def scenario(transport: OneWrite, wire: Wire) -> None:
        transport.write(b"head ")
        transport.write(b"body")
        await asyncio.sleep(0)
        transport.write(b"more")

    assert run(scenario) == [b"head body", b"more"]


def test_a_head_does_not_wait_for_a_body_that_comes_later() -> None:
    async def scenario(transport: OneWrite, wire: Wire) -> None:
        transport.write(b"head")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert wire.writes == [b"head"]
        transport.write(b"event")

    assert run(scenario) == [b"head", b"event"]


def test_what_waits_is_written_before_closing() -> None:
    async def scenario(transport: OneWrite, wire: Wire) -> None:
        transport.write(b"head")
        transport.close()
        assert wire.closed
        await asyncio.sleep(0)

    assert run(scenario) == [b"head"]


def test_uvicorn_writes_through_it_and_other_servers_are_left_alone() -> None:
    cycle: Any = RequestResponseCycle.__new__(RequestResponseCycle)
    wire: Any = Wire()
    cycle.transport = wire
    in_one_write(cycle.send)
    assert isinstance(cycle.transport, OneWrite)

    class Other:
        transport = wire

        async def send(self, message: Any) -> None: ...

    other = Other()
    in_one_write(other.send)
    assert other.transport is wire
