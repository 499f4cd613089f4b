"""An event loop in a thread of its own, for callers that wait."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from quickstudy.errors import QuickstudyError

CLOSE_S = 5.0
"""Longest wait for the thread when a model is closed."""
T = TypeVar("T")


class EventLoopThread:
    """An event loop in a daemon thread, so that it never keeps the process from ending.

    Work that comes after `stop` raises what `when_stopped` makes.
    """

    def __init__(self, when_stopped: Callable[[], Exception]) -> None:
        self._when_stopped = when_stopped
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="quickstudy", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine; an exception here, such as Ctrl-C, cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the event loop."""
        if os.getpid() != self._pid:
            work.close()
            raise QuickstudyError(
                "the model was loaded before this process was forked: load it in each process, or "
                "start processes with `spawn`"
            )
        with self._lock:
            if self._stopped:
                work.close()
                raise self._when_stopped()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `close`, cancel what still runs, and end the thread."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            asyncio.run_coroutine_threadsafe(self._end(close), self._loop)
        if threading.current_thread() is not self._thread:  # garbage is collected in any thread
            self._thread.join(CLOSE_S)

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._loop.stop()
