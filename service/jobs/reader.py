"""A process that reads files and puts them together: `python -m service.jobs.reader BYTES`.

It reads requests from standard input and answers on standard output, one after the other. A message
is two lengths (big-endian, 4 and 8 bytes), a JSON object, and the bytes of a file. What it parses
comes from strangers, so its memory (BYTES of address space) and processor time are limited, and the
service kills it when its time is up. It ends when standard input ends, even in the middle of a
file, so it never outlives the service.

| request | then | answer |
| --- | --- | --- |
| `look`, the file | | `kind`, `characters`, `units`, `sample` |
| `units`, the file | | any number of `part`: lists of units; the end |
| `rebuild`, the file | any number of `part`: translations; `end` | `warnings`, the new file |

A translation is its unit's digest, the text, and the codes and messages of its warnings. Every
answer ends with a message that has `end`: whether the process ends after it. A failed request
is answered with `error` and `message`.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from queue import SimpleQueue
from struct import Struct
from typing import Any, BinaryIO, TypeVar

from service.documents import (
    FILE_KINDS,
    FileError,
    FileKind,
    OpenFile,
    Unit,
    UnitWarning,
    kind_of,
    open_file,
)
from service.languages import Detection

LENGTHS = Struct("!IQ")
MAX_JSON = 16 << 20
"""Bytes of JSON in a message; a longer message is an error of its sender."""
PART_CHARS = 65_536
PART_UNITS = 256
"""What is sent at a time, so its receiver is never busy for long."""
T = TypeVar("T")
Fields = Mapping[str, Any]


def packed(fields: Fields, data: bytes = b"") -> bytes:
    """The lengths and JSON of a message, which go before the file's bytes `data`."""
    encoded = json.dumps(fields).encode()
    return LENGTHS.pack(len(encoded), len(data)) + encoded


def unpacked(encoded: bytes) -> Fields:
    """The object of a message. Raises ValueError if it is not one."""
    fields = json.loads(encoded)
    if not isinstance(fields, dict):
        raise ValueError("a message is no JSON object")
    return fields


def read_message(stream: BinaryIO) -> tuple[Fields, bytes]:
    """The next message. Raises EOFError if there is none, or not all of it."""
    json_bytes, data_bytes = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    encoded = _exactly(stream, json_bytes)
    return unpacked(encoded), _exactly(stream, data_bytes)


def in_parts(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Items in parts that fit into a message."""
    part: list[T] = []
    chars = 0
    for item in items:
        part.append(item)
        chars += size(item)
        if chars >= PART_CHARS or len(part) == PART_UNITS:
            yield part
            part, chars = [], 0
    if part:
        yield part


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


UNIT_CHARS = 2000
"""Characters of a unit, where the file can be cut: the step of progress, and what a crash costs."""
SAMPLE_CHARS = 4000
"""The part of a file's beginning that its language is detected by."""


NAMED_WARNINGS = 100
"""Texts with a warning that are named; all are counted."""
PLACE_CHARS = 200
INCOMPLETE = ("echo", "truncated")
"""Warnings of a translation that is not one, or not all of it."""


class FileTooLongError(Exception):
    """The file has more characters than a job may have."""


@dataclass(frozen=True)
class Reading:
    """What a file is and how much there is to translate. `detected` only where the source language
    was to be detected."""

    kind: FileKind
    source: str
    characters: int
    units: int
    detected: Detection | None = None


def check_length(units: Iterable[Unit], max_chars: int) -> int:
    """Characters to translate. Raises FileTooLongError if they are too many."""
    characters = sum(len(unit.text) for unit in units)
    if characters > max_chars:
        raise FileTooLongError(
            f"the file has {characters} characters, {max_chars} are possible: send it in parts"
        )
    return characters


def open_again(data: bytes, kind: str, source: str, target: str, replace: bool = False) -> OpenFile:
    """A file that was read before. Raises FileError."""
    return open_file(data, FILE_KINDS[kind], source, target, UNIT_CHARS, replace)


def sample(units: Iterable[Unit]) -> str:
    """The beginning of what is to be translated."""
    text = ""
    for unit in units:
        text += unit.text + "\n"
        if len(text) > SAMPLE_CHARS:
            break
    return text[:SAMPLE_CHARS]


def digest(unit: Unit) -> bytes:
    """The hash by which a unit's translation is found again."""
    return blake2b(f"{unit.format}\0{unit.text}".encode(), digest_size=16).digest()


KEPT_BYTES = 128 << 20
"""A process that has used more memory than this ends after its answer, to free it."""
KILL_FIRST = "1000"
"""Tells the kernel to kill this process before the service when memory is short."""
SPARE_S = 2


class Reader:
    """Answers requests until standard input ends."""

    def __init__(self) -> None:
        self._messages: SimpleQueue[tuple[Fields, bytes] | Exception] = SimpleQueue()
        self._work: Mapping[str, Callable[[Fields, bytes], tuple[Fields, bytes]]] = {
            "look": self._look,
            "units": self._units,
            "rebuild": self._rebuild,
        }

    def run(self) -> None:
        """Answer requests until memory runs out, or a request has used much of it."""
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            answer, data, is_last = self._answer()
            is_last = is_last or _peak_bytes() > KEPT_BYTES
            _send({**answer, "end": is_last}, data)
            if is_last:
                return

    def _receive(self) -> None:
        """Receive messages while the main thread works; ends the process when there are no more."""
        try:
            while True:
                self._messages.put(read_message(sys.stdin.buffer))
        except EOFError:
            os._exit(0)
        except Exception as error:
            self._messages.put(error)

    def _next(self) -> tuple[Fields, bytes]:
        message = self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    def _answer(self) -> tuple[Fields, bytes, bool]:
        """The answer to the next request, its file, and whether nothing more can be answered."""
        try:
            request, data = self._next()
            _limit_seconds(request["seconds"])
            return *self._work[request["do"]](request, data), False
        except FileError as error:
            return _error("file", str(error)), b"", request["do"] == "rebuild"
        except FileTooLongError as error:
            return _error("too_long", str(error)), b"", False
        except MemoryError:
            return _error("memory"), b"", True
        except Exception as error:
            return _error("internal", _places(error)), b"", True

    def _look(self, request: Fields, data: bytes) -> tuple[Fields, bytes]:
        kind = kind_of(request["name"], data)
        opened = _opened(request, data, kind.extension)
        characters = check_length(opened.units, request["max_chars"])
        answer = {
            "kind": kind.extension,
            "characters": characters,
            "units": len(opened.units),
            "sample": sample(opened.units),
        }
        return answer, b""

    def _units(self, request: Fields, data: bytes) -> tuple[Fields, bytes]:
        opened = _opened(request, data, request["kind"])
        for part in in_parts(_counted(opened.units), lambda item: len(item[1])):
            _send({"part": part})
        return {}, b""

    def _rebuild(self, request: Fields, data: bytes) -> tuple[Fields, bytes]:
        opened = _opened(request, data, request["kind"])
        translations: dict[str, str] = {}
        warnings_of: dict[str, list[tuple[str, str]]] = {}
        while not (message := self._next()[0]).get("end"):
            for key, text, warnings in message["part"]:
                translations[key] = text
                if warnings:
                    warnings_of[key] = warnings
        keys = [digest(unit).hex() for unit in opened.units]
        in_order = [translations[key] for key in keys]
        own = opened.warnings(in_order)
        of_texts = [
            UnitWarning(opened.places[at], code, reason)
            for at, key in enumerate(keys)
            for code, reason in warnings_of.get(key, ())
        ]
        opened.incomplete = {
            at
            for at, key in enumerate(keys)
            if any(code in INCOMPLETE for code, _ in warnings_of.get(key, ()))
        }
        answer = {
            "counts": Counter(warning.code for warning in own),
            "warnings": [
                (warning.place[:PLACE_CHARS], warning.code, warning.message)
                for warning in [*own, *of_texts][:NAMED_WARNINGS]
            ],
        }
        return answer, opened.rebuild(in_order)


def _opened(request: Fields, data: bytes, kind: str) -> OpenFile:
    return open_again(data, kind, request["source"], request["target"], request["replace"])


def _counted(units: Sequence[Unit]) -> Iterator[tuple[str, str, int, str]]:
    """Format, text, count and digest of each distinct unit, in the order of the file."""
    times: dict[str, int] = {}
    unit_of: dict[str, Unit] = {}
    for unit in units:
        key = digest(unit).hex()
        times[key] = times.get(key, 0) + 1
        unit_of.setdefault(key, unit)
    for key, unit in unit_of.items():
        yield unit.format, unit.text, times[key], key


def _error(code: str, message: str = "") -> Fields:
    return {"error": code, "message": message}


def _send(fields: Fields, data: bytes = b"") -> None:
    sys.stdout.buffer.write(packed(fields, data))
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _places(error: Exception) -> str:
    """An error's type and where it came from, without its message, which may quote the file."""
    frames = traceback.extract_tb(error.__traceback__)
    places = (f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__} ({' '.join(places)})"


def _peak_bytes() -> int:
    """The peak memory of this process; 0 where the system does not report it. `getrusage` would
    report the service's at first."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _limit_seconds(seconds: float) -> None:
    """Limit the processor time, in case the service does not end this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = ceil(usage.ru_utime + usage.ru_stime + seconds) + SPARE_S
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(memory_bytes: int) -> None:
    """Limit this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which still needs us
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILL_FIRST)


def main(arguments: Sequence[Any]) -> None:
    """Read files within this many bytes of memory."""
    _limit(int(arguments[0]))
    Reader().run()


if __name__ == "__main__":
    main(sys.argv[1:])
