"""Ends of work: its time is up, or the client has gone. One timer each, which seldom ends."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from fastapi import Request

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
