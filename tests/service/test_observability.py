"""The log's lines: numbers and places, never what an exception says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from export.runtime.engines import TranslateOptions, Translation
from service import observability
from service.api_keys import KeyStore
from service.observability import (
    REQUEST_METRICS,
    BufferedStreamHandler,
    JsonLines,
    RequestMetrics,
    TextLines,
    describe,
    request_id,
)
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
SECRET = "Zanzibarit"


def line_of(formatter: logging.Formatter, name: str, message: str, error: Exception | None) -> str:
    try:
        if error is not None:
            raise error
    except Exception as caught:
        info = (type(caught), caught, caught.__traceback__)
        return formatter.format(logging.LogRecord(name, 40, "", 0, message, (), info))
    return formatter.format(logging.LogRecord(name, 40, "", 0, message, (), None))


def test_an_exception_is_its_type_and_place() -> None:
    line = json.loads(
        line_of(JsonLines(), "quickstudy.service", "a stream failed", KeyError(SECRET))
    )
    assert line["message"] == "a stream failed"
    assert line["level"] == "error"
    assert line["error"]["type"] == "KeyError"
    assert line["error"]["at"][-1].startswith("tests/service/test_observability.py:")
    assert line["error"]["at"][-1].endswith(" line_of")
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_causes_and_groups_are_told_without_their_words(formatter: logging.Formatter) -> None:
    inner = ExceptionGroup(SECRET, [ValueError(SECRET)])
    outer = RuntimeError(SECRET)
    outer.__cause__ = inner
    line = line_of(formatter, "quickstudy.service", "failed", outer)
    assert SECRET not in line
    for name in ("RuntimeError", "ExceptionGroup", "ValueError"):
        assert name in line


def test_causes_without_end_are_bounded() -> None:
    error = last = ValueError()
    for _ in range(100):
        last.__cause__ = ValueError()
        last = last.__cause__
    assert json.dumps(describe(error)).count("ValueError") == 5


@pytest.mark.parametrize("name", ["asyncio", "concurrent.futures", "py.warnings", "new"])
def test_other_libraries_messages_with_values_are_not_told(name: str) -> None:
    message = f"Task exception was never retrieved\nfuture: <Task exception=ValueError({SECRET!r})>"
    for error in (None, ValueError(SECRET)):
        assert SECRET not in line_of(JsonLines(), name, message, error)
        assert SECRET not in line_of(TextLines(), name, message, error)


def test_lines_of_a_request_have_its_id() -> None:
    token = REQUEST_METRICS.set(RequestMetrics("abc"))
    try:
        line = line_of(JsonLines(), "quickstudy.service", "failed", None)
    finally:
        REQUEST_METRICS.reset(token)
    assert json.loads(line)["request_id"] == "abc"
    assert "request_id" not in json.loads(line_of(JsonLines(), "quickstudy.service", "a", None))


@pytest.mark.parametrize("given", [b"a", b"A-1.b_2", b"9" * 64])
def test_ids_that_are_taken(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"a b", b"9" * 65, b"a\n", b"-a", "ä".encode(), b'"'])
def test_ids_that_are_not(given: bytes | None) -> None:
    made = request_id(given)
    assert len(made) == 32
    assert made != request_id(given)


class Quoting(StubEngine):
    """Fails with the sentence in the exception's message."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        raise RuntimeError(f"cannot translate {sentences}")


def test_an_engine_that_quotes_the_text_is_not_quoted(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(Quoting())
    with caplog.at_level(logging.DEBUG):
        for url, body in (
            ("/v1/translate", {"text": SECRET}),
            ("/v1/translate/stream", {"text": SECRET}),
            ("/translate", {"q": SECRET, "source": "en", "target": "de"}),
            ("/v2/translate", {"text": SECRET, "target_lang": "DE", "source_lang": "EN"}),
        ):
            assert client.post(url, json=body).status_code == 500
    assert len([one for one in caplog.records if one.name == "quickstudy.requests"]) == 4
    for formatter in (JsonLines(), TextLines()):
        lines = [formatter.format(one) for one in caplog.records if one.name.startswith("quick")]
        assert any("RuntimeError" in line for line in lines)
        assert not any(SECRET in line for line in lines)


def test_the_number_of_a_key_is_logged_and_never_the_key(
    make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    keys.add("somebody else")
    key = keys.add("somebody")
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db")
    with caplog.at_level(logging.DEBUG):
        for headers in ({"X-API-Key": key}, {"X-API-Key": f"{key}x"}, {}):
            client.post("/v1/translate", json={"text": "a b"}, headers=headers)
    lines = [
        json.loads(JsonLines().format(one))
        for one in caplog.records
        if one.name == "quickstudy.requests"
    ]
    assert [line.get("key_id") for line in lines] == [2, None, None]
    assert [line["status"] for line in lines] == [200, 403, 200]
    assert key not in json.dumps(lines)


def test_a_routes_template_is_logged_and_not_its_path(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    with caplog.at_level(logging.DEBUG):
        for path in ("/v1/translate", "/v2/languages", "/livez", f"/v1/{SECRET}"):
            client.get(path)
    found = [
        (json.loads(JsonLines().format(one))["route"], one.levelname)
        for one in caplog.records
        if one.name == "quickstudy.requests"
    ]
    assert found == [
        ("/v1/translate", "INFO"),
        ("/v2/languages", "INFO"),
        ("/livez", "DEBUG"),
        ("other", "INFO"),
    ]


class Stream(io.StringIO):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


def test_lines_of_an_event_loop_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observability, "BUFFER_S", 0.01)
    stream = Stream()
    handler = BufferedStreamHandler(stream)

    def log(text: str, level: int = logging.INFO) -> None:
        handler.handle(logging.LogRecord("quickstudy", level, "", 0, text, (), None))

    async def serve() -> None:
        log("one")
        log("two")
        assert stream.writes == []
        await asyncio.sleep(0.05)
        log("three")
        log("four", logging.WARNING)  # at once, with what waits
        log("five")
        await asyncio.to_thread(log, "six")

    asyncio.run(serve())
    log("seven")
    handler.flush()
    assert stream.writes == ["one\ntwo\n", "three\nfour\n", "five\nsix\n", "seven\n"]


def test_a_reader_of_the_log_that_has_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as stream:
        handler = BufferedStreamHandler(stream)
        for _ in range(2):
            handler.handle(logging.LogRecord("quickstudy", 20, "", 0, "lost", (), None))
        assert handler._lines == []  # and nothing was raised
        with contextlib.suppress(OSError):
            stream.close()
