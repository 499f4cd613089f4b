"""OpenTelemetry traces of requests. Where they are not configured, nothing is imported.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or its form for traces) switches them on, and the other variables of
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ count too. Spans
are made from a request's metrics when it ends: one for the request, with the client's `traceparent`
as its parent, and within it one for the wait in the queue and one for the engine, for each batch.
They hold numbers, never a text, a path or an address.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from quickstudy.errors import QuickstudyError
from service.observability import BatchTimes, RequestMetrics

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXTRA = "pip install 'quickstudy[otel]'"
FLUSH_MS = 2000


class TracesError(QuickstudyError, RuntimeError):
    """Traces are configured but cannot be made; the message says what to do."""


def configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


def open_traces(environment: Mapping[str, str] = os.environ) -> RequestTraces | None:
    """Traces as the environment configures them, None if it does not.

    Raises TracesError if OpenTelemetry is not installed.
    """
    if not configured(environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        message = (
            f"traces are configured ({' or '.join(ENDPOINTS)}), but {error.name} is not installed: "
            f"{EXTRA}, or unset the variable"
        )
        raise TracesError(message) from error
    name = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "quickstudy"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return RequestTraces(provider)


class RequestTraces:
    """Makes spans with a tracer provider of OpenTelemetry."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("quickstudy")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, metrics: RequestMetrics) -> None:
        """Have a request keep its batches."""
        metrics.batches = []
        metrics.began = time.perf_counter()

    def end(
        self,
        metrics: RequestMetrics,
        parent: bytes | None,
        method: str,
        route: str,
        status: int | None,
    ) -> str | None:
        """Make the spans of a request that has ended. Returns the trace's id."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carrier = {"traceparent": parent.decode("latin-1")} if parent else {}
        now = time.perf_counter()
        epoch = time.time_ns() - int(now * 1e9)

        def at(seconds: float) -> int:
            return epoch + int(seconds * 1e9)

        span = self._tracer.start_span(
            f"{method} {route}",
            context=self._propagator.extract(carrier, Context()),
            kind=SpanKind.SERVER,
            attributes=_attributes(metrics, method, route, status),
            start_time=at(metrics.began),
        )
        if span.is_recording():
            if status is None or status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            inside = set_span_in_context(span, Context())
            for batch in metrics.batches or ():
                numbers = {"quickstudy.sentences": batch.sentences}
                for name, start, stop in _steps(batch):
                    step = self._tracer.start_span(
                        name, inside, attributes=numbers, start_time=at(start)
                    )
                    step.end(at(stop))
            span.end(at(now))
        return _trace_id(span)

    def close(self) -> None:
        """Send the remaining spans, and stop."""
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def _steps(batch: BatchTimes) -> tuple[tuple[str, float, float], ...]:
    return ("queue", batch.arrived, batch.begin), ("engine", batch.begin, batch.end)


def _attributes(
    metrics: RequestMetrics, method: str, route: str, status: int | None
) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "quickstudy.request_id": metrics.id,
        "quickstudy.characters": metrics.characters,
        "quickstudy.sentences": metrics.sentences,
        "quickstudy.tokens": metrics.tokens,
        "quickstudy.cache_hits": metrics.cache_hits,
        "quickstudy.warnings": metrics.warnings,
    }
    if status is not None:
        attributes["http.response.status_code"] = status
    return attributes


def _trace_id(span: Span) -> str:
    return format(span.get_span_context().trace_id, "032x")
