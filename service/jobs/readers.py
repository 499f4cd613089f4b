"""The reader processes, which read files and write their translations, few at a time.

A file comes from a stranger: however long it takes to parse, and even if it crashes the parser, the
service keeps answering. A process is killed when a file takes too long, and its memory is limited.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service import observability
from service.documents import FILE_KINDS, FileError, FileKind, Unit, UnitWarning
from service.jobs.reader import LENGTHS, MAX_JSON, Fields, FileTooLongError, packed, unpacked

logger = logging.getLogger("quickstudy.service")

READERS = 2
"""The most processes; an idle one waits for the next file."""
TRIES = 2
"""How many processes a file may crash before it is given up."""
CLOSE_S = 2.0
COMMAND = (sys.executable, "-m", "service.jobs.reader")
ROOT = Path(__file__).resolve().parents[2]
WRITE_AT_ONCE = 1 << 20

Translated = tuple[str, str, Sequence[tuple[str, str]]]
"""The hexadecimal digest of a unit, its translation, and the codes and messages of its warnings."""
Pages = Callable[[], AsyncIterator[Sequence[Translated]]]
"""Pages of translations; may be called again."""


class BusyError(Exception):
    """Too many files are being read already: try again later."""


STOPS = "the service stops: try again later"


class FileLimitError(Exception):
    """A file took more time or memory than allowed."""


class _DiedError(Exception):
    """The process that read a file ended in the middle of it."""


@dataclass(frozen=True)
class Look:
    """What a file is, how much there is to translate, and a sample to detect its language."""

    kind: FileKind
    characters: int
    units: int
    sample: str


@dataclass(frozen=True)
class WorkItem:
    """A unit to translate: its hash, and how often it occurs in the file."""

    unit: Unit
    digest: bytes
    times: int


@dataclass(frozen=True)
class RebuiltFile:
    """A translated file; what its reader warned of by code, and the first of its texts that it or
    the translator warned of."""

    data: bytes
    counts: Mapping[str, int]
    warnings: Sequence[UnitWarning]


class Readers:
    """The processes, each with at most `memory_bytes` of address space. They belong to the event
    loop of the first file.

    `replace` also translates what has a translation.

    All methods raise FileError, FileLimitError if the file takes more than `within_s` seconds or
    too much memory, and BusyError if no process is free within `wait_s`.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._is_closed = False
        self._free = asyncio.Semaphore(READERS)
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    async def look(
        self,
        name: str,
        data: bytes,
        source: str,
        target: str,
        max_chars: int,
        within_s: float,
        wait_s: float | None = None,
        *,
        replace: bool = False,
    ) -> Look:
        """Read a new file; `source` may be `auto`. Also raises FileTooLongError."""
        request = {
            "do": "look",
            "name": name,
            "source": source,
            "target": target,
            "replace": replace,
            "max_chars": max_chars,
        }
        answer, _ = await self._ask(request, data, within_s, wait_s)
        kind = FILE_KINDS[answer["kind"]]
        return Look(kind, answer["characters"], answer["units"], answer["sample"])

    async def units(
        self,
        data: bytes,
        kind: str,
        source: str,
        target: str,
        within_s: float,
        *,
        replace: bool = False,
    ) -> list[WorkItem]:
        """The distinct units of a file that `look` has read, in order."""
        items: list[WorkItem] = []

        def take(part: Sequence[Sequence[Any]]) -> None:
            for format, text, times, key in part:
                items.append(WorkItem(Unit(text, format), bytes.fromhex(key), times))

        request = _request("units", kind, source, target, replace)
        await self._ask(request, data, within_s, take=take, begin=items.clear)
        return items

    async def rebuild(
        self,
        data: bytes,
        kind: str,
        source: str,
        target: str,
        pages: Pages,
        within_s: float,
        *,
        replace: bool = False,
    ) -> RebuiltFile:
        """The translated file; `pages` has a translation for each of its units."""
        request = _request("rebuild", kind, source, target, replace)
        answer, result = await self._ask(request, data, within_s, pages=pages)
        return RebuiltFile(
            result, answer["counts"], [UnitWarning(*one) for one in answer["warnings"]]
        )

    async def close(self) -> None:
        """End all processes, busy ones at once, and read no more files."""
        self._is_closed = True
        for process in self._all - set(self._idle):
            _kill(process)
        for process in self._idle:
            assert process.stdin is not None
            process.stdin.close()
        self._idle.clear()
        for process in list(self._all):
            await self._ended(process)

    async def _ask(
        self,
        request: Fields,
        data: bytes,
        within_s: float,
        wait_s: float | None = None,
        *,
        take: Callable[[Sequence[Any]], None] | None = None,
        begin: Callable[[], None] | None = None,
        pages: Pages | None = None,
    ) -> tuple[Fields, bytes]:
        """The last message of an answer; `take` gets the parts before it. `begin` is called before
        each try."""
        try:
            async with asyncio.timeout(wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise BusyError("too many files are being read: try again later") from None
        try:
            for _ in range(TRIES):
                if self._is_closed:
                    raise BusyError(STOPS)
                if begin is not None:
                    begin()
                with suppress(_DiedError):
                    return await self._try(request, data, within_s, take, pages)
        finally:
            self._free.release()
        raise FileError(
            f"the file ended the process that reads it, {TRIES} times; save it again, or in "
            "another format"
        )

    async def _try(
        self,
        request: Fields,
        data: bytes,
        within_s: float,
        take: Callable[[Sequence[Any]], None] | None,
        pages: Pages | None,
    ) -> tuple[Fields, bytes]:
        process = await self._process()
        is_usable = False
        try:
            async with asyncio.timeout(within_s):
                with suppress(ConnectionError):  # it may answer all the same
                    await _send(process, {**request, "seconds": within_s}, data, pages)
                answer, result = await _receive(process, take)
            is_usable = not answer["end"]
        except TimeoutError:
            raise self._over_limit("time", within_s) from None
        except asyncio.IncompleteReadError:
            if await self._ended(process) == -signal.SIGXCPU:
                raise self._over_limit("time", within_s) from None
            observability.count_reader_end("died")
            logger.warning("a process that read a file ended: %s", process.returncode)
            raise _DiedError from None
        finally:
            if is_usable and not self._is_closed:
                self._idle.append(process)
            else:
                _kill(process)
                await self._ended(process)
        return self._checked(answer), result

    def _checked(self, answer: Fields) -> Fields:
        """The answer, unless it is an error, which is raised."""
        message = answer.get("message", "")
        match answer.get("error"):
            case None:
                return answer
            case "file":
                raise FileError(message)
            case "too_long":
                raise FileTooLongError(message)
            case "memory":
                raise self._over_limit("memory", 0)
        observability.count_reader_end("failed")
        raise RuntimeError(f"a file could not be read: {message}")

    def _over_limit(self, what: str, seconds: float) -> FileLimitError:
        observability.count_reader_end(what)
        logger.warning("a process that read a file was ended: too much %s", what)
        if what == "time":
            how = f"longer than {seconds:g} s"
        else:
            how = f"more than {self._memory_bytes >> 20} MB of memory"
        return FileLimitError(f"the file takes {how} to be read or written: send it in parts")

    async def _process(self) -> Process:
        """An idle process, else a new one."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            await self._ended(process)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("QUICKSTUDY_")
        }
        environment["PYTHONPATH"] = str(ROOT)
        environment["MALLOC_ARENA_MAX"] = "1"  # each of glibc's would count as 64 MB
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            str(self._memory_bytes),
            stdin=PIPE,
            stdout=PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            limit=WRITE_AT_ONCE,
        )
        self._all.add(process)
        if self._is_closed:  # while it started: `close` has not seen it
            _kill(process)
            await self._ended(process)
            raise BusyError(STOPS)
        return process

    async def _ended(self, process: Process) -> int:
        """Wait until a process ends, and kill it if it does not. Returns its status."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()
        self._all.discard(process)
        return process.returncode or 0


def _request(what: str, kind: str, source: str, target: str, replace: bool) -> Fields:
    return {"do": what, "kind": kind, "source": source, "target": target, "replace": replace}


async def _send(process: Process, request: Fields, data: bytes, pages: Pages | None) -> None:
    stdin = process.stdin
    assert stdin is not None
    stdin.write(packed(request, data))
    for start in range(0, len(data), WRITE_AT_ONCE):
        stdin.write(data[start : start + WRITE_AT_ONCE])
        await stdin.drain()
    if pages is not None:
        async for page in pages():
            stdin.write(packed({"part": page}))
            await stdin.drain()
        stdin.write(packed({"end": True}))
    await stdin.drain()


async def _receive(
    process: Process, take: Callable[[Sequence[Any]], None] | None
) -> tuple[Fields, bytes]:
    stdout = process.stdout
    assert stdout is not None
    while True:
        json_bytes, data_bytes = LENGTHS.unpack(await stdout.readexactly(LENGTHS.size))
        if json_bytes > MAX_JSON:
            raise RuntimeError("a reader of files sent too long a message")
        answer = unpacked(await stdout.readexactly(json_bytes))
        if "part" not in answer:
            return answer, await stdout.readexactly(data_bytes)
        if take is not None:
            take(answer["part"])


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
