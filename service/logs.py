"""The log: one line an event, as JSON or for people, and never a word of what is translated.

Messages of exceptions may quote a text, so exceptions are told by type and place only, those of
other libraries too. Nothing below logs paths or queries as sent; see `service/api/guard.py`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, Literal, TextIO

from service.record import RequestMetrics, current_metrics

OURS = "quickstudy"
QUIET = ("bentoml.access", "uvicorn.access")
"""Access logs that would tell addresses, paths and queries."""
WITHOUT_VALUES = frozenset(("bentoml", "circus", "opentelemetry", "uvicorn"))
"""Libraries that never see a text, so that their messages cannot quote one."""
TOGETHER_S = 0.05
"""Seconds that a line may wait for others; a process that is killed loses them."""
ROOT = str(Path(__file__).resolve().parents[1]) + "/"
MAX_FRAMES = 16
MAX_CAUSES = 4

logger = logging.getLogger(f"{OURS}.service")
requests = logging.getLogger(f"{OURS}.requests")


def configure_logs(format: Literal["json", "text"], level: str) -> None:
    """Send every line of this process to standard output, in this format, from this level on.

    What other libraries log counts from `warning` on, BentoML's notices from `info` on.
    """
    handler = BufferedStreamHandler(sys.stdout)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, _number(level)))
    for name in ("bentoml", "uvicorn.error", "circus"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    logging.getLogger("bentoml").setLevel(max(logging.INFO, _number(level)))
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # warns of each malformed request
    for name in QUIET:
        quiet = logging.getLogger(name)
        quiet.disabled, quiet.propagate = True, False
    logging.getLogger(OURS).setLevel(_number(level))
    logging.captureWarnings(True)
    threading.excepthook = lambda args: _unexpected("in a thread", args.exc_value)
    sys.unraisablehook = lambda args: _unexpected("that cannot be raised", args.exc_value)


def log_request(
    record: RequestMetrics,
    route: str,
    method: str,
    status: int | None,
    seconds: float,
    level: int,
    trace_id: str | None,
) -> None:
    """Log a request with the numbers of its record; `status` is None where nothing was answered."""
    if not requests.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "request_id": record.id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1e3, 2),
        "queue_ms": round(record.queue_s * 1e3, 2),
        "sentences": record.sentences,
        "characters": record.characters,
        "tokens": record.tokens,
        "warnings": record.warnings,
        "cache_hits": record.cache_hits,
    }
    if record.key_id is not None:
        fields["key_id"] = record.key_id
    if trace_id is not None:
        fields["trace_id"] = trace_id
    line = requests.makeRecord(requests.name, level, "", 0, "request", (), None)
    line.fields = fields
    requests.handle(line)


class BufferedStreamHandler(logging.StreamHandler[TextIO]):
    """Writes what an event loop logs within `TOGETHER_S` by one call, which costs as much as one
    line. What is at least a warning, and what other threads log, is written at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)
            return
        loop = asyncio._get_running_loop()
        if record.levelno >= logging.WARNING or loop is None:
            self.flush()
        elif len(self._lines) == 1:
            loop.call_later(TOGETHER_S, self.flush)

    def flush(self) -> None:
        """Write the lines that are here."""
        with self.lock or nullcontext():
            lines, self._lines = self._lines, []
            try:
                if lines:
                    self.stream.write("".join(lines))
                super().flush()
            except (OSError, ValueError):  # who reads the log has gone
                return


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """A record for people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        head = [fields.pop(name) for name in ("time", "level", "logger", "message")]
        error = fields.pop("error", None)
        tail = [f"{name}={value}" for name, value in fields.items()]
        return "".join([" ".join([*head, *tail]), *(f"\n  {line}" for line in _lines(error))])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    error = record.exc_info[1] if record.exc_info else None
    fields: dict[str, Any] = {
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}"
        f".{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record, error),
    }
    own = getattr(record, "fields", None)
    if own is not None:
        fields.update(own)
    elif (request := current_metrics()) is not None:
        fields["request_id"] = request.id
    if error is not None:
        fields["error"] = describe(error)
    return fields


def _message(record: logging.LogRecord, error: BaseException | None) -> str:
    """The record's message; a fixed one where another library may have put values into it."""
    library = record.name.partition(".")[0]
    if library == OURS or (library in WITHOUT_VALUES and error is None):
        return record.getMessage()
    return f"something that a library tells at {Path(record.pathname).name}:{record.lineno}"


def describe(error: BaseException, causes: int = MAX_CAUSES) -> dict[str, Any]:
    """An exception without its message: type, where it was raised, and what caused it."""
    found: dict[str, Any] = {
        "type": type(error).__qualname__,
        "at": list(_places(error.__traceback__))[-MAX_FRAMES:],
    }
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if isinstance(error, BaseExceptionGroup):
        cause = cause or error.exceptions[0]
    if cause is not None and causes:
        found["cause"] = describe(cause, causes - 1)
    return found


def _places(traceback: TracebackType | None) -> Iterator[str]:
    for frame, line in walk_tb(traceback):
        code = frame.f_code
        file = code.co_filename.removeprefix(ROOT).rpartition("site-packages/")[2]
        yield f"{file}:{line} {code.co_name}"


def _lines(error: Mapping[str, Any] | None) -> Iterator[str]:
    while error:
        yield f"{error['type']}: {' > '.join(error['at'])}"
        error = error.get("cause")


def _unexpected(where: str, error: BaseException | None) -> None:
    logger.error("an exception %s", where, exc_info=error)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
