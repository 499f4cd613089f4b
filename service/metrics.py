"""What an operator watches, for Prometheus at /metrics; every label has few values.

BentoML's own metrics are off: their label `endpoint` is the path as sent, which grows with every
path that anybody tries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
OTHER = "other"

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


@contextmanager
def timed_batch(sentences: int) -> Iterator[None]:
    """Count a batch and the time it takes."""
    BATCH_SENTENCES.observe(sentences)
    with BATCH_SECONDS.time():
        yield


def count_request(route: str, status: int, started: float) -> None:
    """Count an answered request; `started` is its `time.perf_counter()`."""
    REQUESTS.labels(route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)


def exposition() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
