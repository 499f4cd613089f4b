"""How the service stops after SIGTERM, without cutting off what it has begun.

| step | for | `/readyz` | new requests | those that are here |
| drain | `drain_s` | 503 | answered, and the connection closed | go on |
| finish | until they are done, at most `grace_s` | 503 | 503 with Retry-After | go on |
| end | | – | not accepted | 503 |

Until the end the server takes connections, since the listening socket belongs to BentoML's main
process too: what the server did not take from it would be reset.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Awaitable, Callable
from types import FrameType

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
