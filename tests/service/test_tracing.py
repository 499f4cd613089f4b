"""Spans of a request, by OpenTelemetry's exporter in memory: numbers, times, parents, no text."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from export.runtime.bundle import Bundle
from export.runtime.engines import Engine
from service import tracing
from service.app import create_app, guarded
from service.models import Model, ModelSet
from service.observability import MAX_BATCHES, BatchTimes, RequestMetrics
from service.settings import Settings
from service.tracing import RequestTraces, TracesError, configured, open_traces
from service.translator import Translator

SECRET = "Zanzibarit"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def test_a_requests_spans(
    tiny_bundle: Bundle, engine: Engine, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    settings = Settings(model=tiny_bundle.path, inter_threads=1, fallback_decoding=False)
    models = ModelSet([Model.of(tiny_bundle, engine, settings)])
    app = create_app(settings, Translator(models, settings))
    with TestClient(guarded(app, settings, RequestTraces(provider))) as client:
        body = {"text": f"the old {SECRET} cat. A dog.", "glossary": {SECRET: SECRET}}
        headers = {"traceparent": PARENT, "X-Request-ID": "one", "User-Agent": SECRET}
        assert client.post("/v1/translate?a=b", json=body, headers=headers).status_code == 200
        client.get(f"/{SECRET}?q={SECRET}", headers={"traceparent": f"{SECRET}"})
        client.get("/livez")

    *steps, request, other = exporter.get_finished_spans()
    assert request.name == "POST /v1/translate"
    assert request.kind.name == "SERVER"
    assert format(request.context.trace_id, "032x") == TRACE
    assert request.parent is not None
    assert format(request.parent.span_id, "016x") == "00f067aa0ba902b7"
    assert request.attributes is not None
    assert request.attributes["http.route"] == "/v1/translate"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["quickstudy.request_id"] == "one"
    assert request.attributes["quickstudy.sentences"] == 2
    assert [step.name for step in steps[:2]] == ["queue", "engine"]
    for step in steps:
        assert step.parent is not None
        assert step.parent.span_id == request.context.span_id
        assert request.start_time <= step.start_time <= step.end_time <= request.end_time
    assert other.name == "GET other"
    assert other.parent is None
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert SECRET not in everything


def test_a_parent_that_is_not_sampled_is_heeded(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    record = RequestMetrics("one")
    found = RequestTraces(provider)
    found.begin(record)
    parent = f"{PARENT[:-2]}00".encode()
    assert found.end(record, parent, "GET", "/", 200) == TRACE
    assert exporter.get_finished_spans() == ()


def test_a_failed_request_is_an_error_and_spans_are_bounded(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    record = RequestMetrics("one")
    found = RequestTraces(provider)
    found.begin(record)
    for number in range(3 * MAX_BATCHES):
        record.add_batch(BatchTimes(1, number, number + 0.25, number + 0.5))
    assert record.queue_s == 0.25
    found.end(record, None, "POST", "/v1/translate", 503)
    spans = exporter.get_finished_spans()
    assert len(spans) == 2 * MAX_BATCHES + 1
    assert spans[-1].status.status_code.name == "ERROR"
    assert [span.end_time - span.start_time for span in spans[:2]] == [250_000_000, 250_000_000]


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_what_switches_them_on(environment: dict[str, str], on: bool) -> None:
    assert configured(environment) is on


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracesError, match=r"pip install 'quickstudy\[otel\]'"):
        open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"})
    assert open_traces({}) is None


class Collector(BaseHTTPRequestHandler):
    """Keeps what is sent to it."""

    taken: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        self.taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_spans_are_sent_by_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        found = open_traces()
        record = RequestMetrics("one")
        found.begin(record)
        found.end(record, PARENT.encode(), "POST", "/v1/translate", 200)
        found.close()
        server.shutdown()
    ((path, body),) = Collector.taken
    assert path == "/v1/traces"
    assert b"POST /v1/translate" in body
    assert bytes.fromhex(TRACE) in body
    assert b"quickstudy" in body


def test_nothing_is_imported_when_they_are_off() -> None:
    code = (
        f"import sys; import {tracing.__name__} as traces; traces.open_traces({{}}); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
