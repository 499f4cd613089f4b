"""Head and body of a response in one packet: one write in place of two, and one read."""

from __future__ import annotations

import asyncio
from typing import cast

from starlette.types import Send

try:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
except ImportError:  # another server, another way of writing
    RequestResponseCycle = None  # type: ignore[assignment, misc]


class OneWrite:
    """What uvicorn needs of a transport to answer a request: the first write waits for the second,
    or for the event loop's next turn."""

    __slots__ = ("_first", "_transport", "_waits")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._first = b""
        self._waits = True

    def write(self, data: bytes) -> None:
        """Write, or keep what comes first for a moment."""
        if self._waits:
            self._waits = False
            self._first = data
            asyncio.get_running_loop().call_soon(self._flush)
        elif self._first:
            first, self._first = self._first, b""
            self._transport.write(first + data)
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the transport once all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        first, self._first = self._first, b""
        if first and not self._transport.is_closing():
            self._transport.write(first)


def in_one_write(send: Send) -> None:
    """Have uvicorn's answer to this request go out in one write. Nothing for other servers."""
    cycle = getattr(send, "__self__", None)
    if RequestResponseCycle is not None and isinstance(cycle, RequestResponseCycle):
        cycle.transport = cast(asyncio.Transport, OneWrite(cycle.transport))
