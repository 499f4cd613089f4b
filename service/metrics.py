"""What an operator watches, for Prometheus at /metrics; every label has few values.

BentoML's own metrics are off: their label `endpoint` is the path as sent, which grows with every
path that anybody tries.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)

from service.batcher import BatchReport
from service.second_try import Code

if TYPE_CHECKING:
    from service.models import Model

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
SECOND_TRIES = Counter(
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


def count_warning(code: Code) -> None:
    """Count a translation that looks wrong in spite of second tries."""
    WARNINGS.labels(code).inc()


def count_second_try(is_better: bool) -> None:
    """Count a second try, and whether it was kept."""
    SECOND_TRIES.labels("kept" if is_better else "dropped").inc()


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
