"""Files are read and put together in threads, few at a time, each for so long at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
T = TypeVar("T")


class BusyError(Exception):
    """Too many files are being read already: try again later."""


class SlowFileError(Exception):
    """A file took too long to read or to put together."""


class FileThreads:
    """The threads. It belongs to the event loop of its first work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
        self._free = asyncio.Semaphore(THREADS)

    async def run(self, work: Callable[[], T], within_s: float, wait_s: float | None = None) -> T:
        """What `work` returns or raises.

        Raises BusyError if no thread is free within `wait_s` seconds, SlowFileError if the work
        takes longer than `within_s`; its thread is free again when it has ended in spite of that.
        """
        try:
            async with asyncio.timeout(wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError("too many files are being read: try again later") from None
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._freed)
        done, _ = await asyncio.wait({future}, timeout=within_s)
        if not done:
            raise SlowFileError(f"the file takes longer than {within_s:g} s to be read or written")
        return future.result()

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _freed(self, future: asyncio.Future[T]) -> None:
        self._free.release()
        if not future.cancelled():
            future.exception()  # nobody may be there any more to hear of it
