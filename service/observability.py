"""What operators see: the numbers of each request, Prometheus metrics, and the log.

Each request has a `RequestMetrics` in its context, which the tasks that it starts share. It is
filled in along the way and read at the end, for the log and for traces. Outside of requests (a job
in the background, a test) there is none, and nothing is counted.

Every label of a metric has few values. BentoML's own metrics are off, because their label
`endpoint` is the path as sent: it would grow with every path that anybody tries. Names of metrics
stay as they are, since dashboards and alerts depend on them: `quickstudy_second_tries` counts
fallback decoding.

The log has one line for each event, as JSON or for people, and never a word of what is translated.
Exception messages may quote a text, so exceptions are logged by type and place only, including
those of other libraries. Paths and queries are never logged as sent; see `service/middleware.py`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import platform
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)

if TYPE_CHECKING:
    from service.models import Model


MAX_BATCHES = 32
"""Batches of a request that are kept for its trace."""
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Request ids that are accepted from clients."""


@dataclass(slots=True, frozen=True)
class BatchTimes:
    """A request's part in a batch: its sentences, and by `time.perf_counter` when they arrived,
    when the batch began and when it ended."""

    sentences: int
    arrived: float
    begin: float
    end: float


@dataclass(slots=True)
class RequestMetrics:
    """A request's numbers.

    `tokens` are source tokens given to the engine, not counting what the cache held; `queue_s` is
    the longest that a sentence waited for its batch. `batches` and `began` (by
    `time.perf_counter`) are kept only for a trace.
    """

    id: str
    key_id: int | None = None
    characters: int = 0
    sentences: int = 0
    tokens: int = 0
    cache_hits: int = 0
    warnings: int = 0
    queue_s: float = 0.0
    batches: list[BatchTimes] | None = None
    began: float = 0.0

    def add_batch(self, batch: BatchTimes) -> None:
        """Count a batch."""
        self.queue_s = max(self.queue_s, batch.begin - batch.arrived)
        if self.batches is not None and len(self.batches) < MAX_BATCHES:
            self.batches.append(batch)


@dataclass(frozen=True)
class BatchReport:
    """A translated batch: its size, its seconds, and for each request in it the number of
    sentences and the seconds that they waited."""

    sentences: int
    padded_tokens: int
    seconds: float
    waited: tuple[tuple[int, float], ...]


_random = random.Random()
REQUEST_METRICS: ContextVar[RequestMetrics | None] = ContextVar("request_metrics", default=None)
current_metrics: Callable[[], RequestMetrics | None] = REQUEST_METRICS.get
"""The numbers of the request that is being answered, if there is one."""


def request_id(sent: bytes | None) -> str:
    """The client's id where it is short and plain, else a new one of 32 hexadecimal digits."""
    if sent is not None and REQUEST_ID.fullmatch(text := sent.decode("latin-1")):
        return text
    return f"{_random.getrandbits(128):032x}"


# BentoML has the library keep values in files for several processes; we are one, with a registry
# of its own, and each such value costs a file access and outlives its process.
values.ValueClass = values.MutexValue
REGISTRY = CollectorRegistry()
OTHER = "other"
REVISION_CHARS = 12
ProcessCollector(registry=REGISTRY)


def own_version() -> str:
    """This package's version; "0" in a checkout that is not installed."""
    try:
        return version("quickstudy")
    except PackageNotFoundError:
        return "0"


BUILD_INFO = Gauge(
    "quickstudy_build_info", "1; what runs.", ["version", "python"], registry=REGISTRY
)
BUILD_INFO.labels(own_version(), platform.python_version()).set(1)
BUNDLE_INFO = Gauge(
    "quickstudy_bundle_info",
    "1 for each bundle that is served; its revision is the hash of its manifest, which has the "
    "hashes of all its files.",
    ["name", "version", "source", "target", "engine", "revision"],
    registry=REGISTRY,
)

REQUESTS = Counter(
    "quickstudy_requests", "Requests answered.", ["route", "status"], registry=REGISTRY
)
REQUEST_SECONDS = Histogram(
    "quickstudy_request_seconds",
    "Seconds from a request to its answer.",
    ["route"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
CONNECTIONS = Gauge("quickstudy_connections", "Connections that are open.", registry=REGISTRY)
CONNECTIONS_REFUSED = Counter(
    "quickstudy_connections_refused",
    "Connections that were closed for what they did, by reason.",
    ["reason"],
    registry=REGISTRY,
)
QUEUE_SENTENCES = Gauge(
    "quickstudy_queue_sentences", "Sentences that wait for a worker.", registry=REGISTRY
)
BATCH_SENTENCES = Histogram(
    "quickstudy_batch_sentences",
    "Sentences translated together.",
    registry=REGISTRY,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_SECONDS = Histogram(
    "quickstudy_batch_seconds",
    "Seconds that a batch took to translate.",
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BATCH_TOKENS = Histogram(
    "quickstudy_batch_tokens",
    "Source tokens translated together, padding counted.",
    registry=REGISTRY,
    buckets=(16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
)
TOKENS = Counter(
    "quickstudy_tokens", "Source tokens translated, padding counted.", registry=REGISTRY
)
QUEUE_SECONDS = Histogram(
    "quickstudy_queue_seconds",
    "Seconds that a request's sentences waited for the batch they went with.",
    registry=REGISTRY,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
CACHE_LOOKUPS = Counter(
    "quickstudy_cache_lookups",
    "Sentences looked up in the cache; joined: another request was translating it.",
    ["result"],
    registry=REGISTRY,
)
WARNINGS = Counter(
    "quickstudy_warnings", "Sentences whose translation looks wrong.", ["code"], registry=REGISTRY
)
FALLBACKS = Counter(
    "quickstudy_second_tries",
    "Sentences translated again because they looked wrong.",
    ["result"],
    registry=REGISTRY,
)
FILES = Counter(
    "quickstudy_files",
    "Files that were translated, failed or were cancelled.",
    ["kind", "status"],
    registry=REGISTRY,
)
FILE_SECONDS = Histogram(
    "quickstudy_file_seconds",
    "Seconds from a file's arrival to its translation.",
    ["kind"],
    registry=REGISTRY,
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200),
)
FILES_WAITING = Gauge(
    "quickstudy_files_waiting", "Files that are not translated yet.", registry=REGISTRY
)
WRONG_KEYS = Counter(
    "quickstudy_wrong_keys",
    "Wrong API keys, and keys of addresses that had sent too many of them.",
    ["result"],
    registry=REGISTRY,
)


def show_bundles(models: Sequence[Model]) -> None:
    """Show these bundles, and no others, as those that are served."""
    BUNDLE_INFO.clear()
    for model in models:
        manifest = model.manifest
        BUNDLE_INFO.labels(
            name=manifest.name,
            version=manifest.version,
            source=manifest.source_lang,
            target=manifest.target_lang,
            engine=model.engine_name,
            revision=model.identity[:REVISION_CHARS],
        ).set(1)


READERS_ENDED = Counter(
    "quickstudy_file_readers_ended",
    "Processes that ended in the middle of a file, or because of it.",
    ["reason"],
    registry=REGISTRY,
)


def count_reader_end(reason: str) -> None:
    """Count a process that read a file: `time` or `memory` was over, it `died` or `failed`."""
    READERS_ENDED.labels(reason).inc()


def watch_files(waiting: Callable[[], int]) -> None:
    """Show how many files `waiting` says wait."""
    FILES_WAITING.set_function(waiting)


def count_file(kind: str, status: str, seconds: float) -> None:
    """Count a file that is over: its kind, what became of it, and how long that took."""
    FILES.labels(kind, status).inc()
    if status == "done":
        FILE_SECONDS.labels(kind).observe(seconds)


def count_batch(report: BatchReport) -> None:
    """Count a batch of the queue: its size, its time, and what its sentences waited."""
    BATCH_SENTENCES.observe(report.sentences)
    BATCH_TOKENS.observe(report.padded_tokens)
    TOKENS.inc(report.padded_tokens)
    BATCH_SECONDS.observe(report.seconds)
    for _, seconds in report.waited:
        QUEUE_SECONDS.observe(seconds)


def count_lookup(result: Literal["hit", "joined", "miss"]) -> None:
    """Count a sentence that was looked up in the cache."""
    _child(CACHE_LOOKUPS, result).inc()


def count_wrong_key(result: Literal["refused", "limited"]) -> None:
    """Count a wrong key, or one that was not looked at."""
    WRONG_KEYS.labels(result).inc()


def count_warning(code: str) -> None:
    """Count a translation that looks wrong in spite of fallback decoding."""
    WARNINGS.labels(code).inc()


def count_fallback(is_better: bool) -> None:
    """Count a sentence that was decoded again, and whether the new translation was kept."""
    FALLBACKS.labels("kept" if is_better else "dropped").inc()


def count_request(route: str, status: int, started: float) -> None:
    """Count an answered request; `started` is its `time.perf_counter()`."""
    _child(REQUESTS, route, str(status)).inc()
    _child(REQUEST_SECONDS, route).observe(time.perf_counter() - started)


@cache
def _child(metric: Any, *labels: str) -> Any:
    """A metric's child; `labels()` checks and joins labels anew each time."""
    return metric.labels(*labels)


def exposition() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


OURS = "quickstudy"
QUIET = ("bentoml.access", "uvicorn.access")
"""Access logs that would tell addresses, paths and queries."""
WITHOUT_VALUES = frozenset(("bentoml", "circus", "opentelemetry", "uvicorn"))
"""Libraries that never see a text, so that their messages cannot quote one."""
BUFFER_S = 0.05
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
    metrics: RequestMetrics,
    route: str,
    method: str,
    status: int | None,
    seconds: float,
    level: int,
    trace_id: str | None,
) -> None:
    """Log a request with its numbers; `status` is None where nothing was answered."""
    if not requests.isEnabledFor(level):
        return
    fields: dict[str, Any] = {
        "request_id": metrics.id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1e3, 2),
        "queue_ms": round(metrics.queue_s * 1e3, 2),
        "sentences": metrics.sentences,
        "characters": metrics.characters,
        "tokens": metrics.tokens,
        "warnings": metrics.warnings,
        "cache_hits": metrics.cache_hits,
    }
    if metrics.key_id is not None:
        fields["key_id"] = metrics.key_id
    if trace_id is not None:
        fields["trace_id"] = trace_id
    line = requests.makeRecord(requests.name, level, "", 0, "request", (), None)
    line.fields = fields
    requests.handle(line)


class BufferedStreamHandler(logging.StreamHandler[TextIO]):
    """Writes what an event loop logs within `BUFFER_S` by one call, which costs as much as one
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
            loop.call_later(BUFFER_S, self.flush)

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
