"""What an operator sees of a served process: its log, which holds no text, and how it stops."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.runtime.bundle import Bundle
from tests.service.serving import STOP_S, Served, serving

pytestmark = pytest.mark.slow

SECRET = "Zanzibarit"
TEXT = f"the old {SECRET} street cat."
CLIENTS = 8


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("operations")
    with serving(
        folder,
        model=tiny_bundle.path,
        keys_file=folder / "keys.db",
        suggestions_file=folder / "suggestions.db",
        shutdown_grace_s=30,
    ) as one:
        yield one


def requests_with_the_secret() -> Iterator[dict[str, Any]]:
    """Every shape of the API, answered and refused, with the secret wherever text can be."""
    ours = {"text": TEXT, "return": ["scores", "sentences", "timings"]}
    libre = {"q": TEXT, "source": "en", "target": "de"}
    deepl = {"text": [TEXT], "target_lang": "DE"}
    for url in ("/v1/translate", "/v1/translate/stream"):
        yield {"url": url, "json": ours}
        yield {"url": url, "json": {**ours, "format": "html", "glossary": {SECRET: SECRET}}}
        yield {"url": url, "json": {**ours, "source": SECRET}}
        yield {"url": url, "json": {**ours, SECRET: SECRET}}
        yield {"url": url, "json": {**ours, "format": SECRET}}
        yield {"url": url, "content": f'{{"text": "{SECRET}'.encode()}
        yield {"url": url, "content": b'{"text": "\xff' + SECRET.encode() + b'"}'}
        yield {"url": url, "json": {"text": TEXT * 1000}}
        yield {"url": url, "content": f"{SECRET} ".encode() * 50_000}
    yield {"url": "/v1/translate", "json": {"text": TEXT, "glossary": {SECRET: ""}}}
    yield {"url": "/v1/detect", "json": {"text": TEXT}}
    yield {"url": "/v1/detect", "json": {"text": [TEXT, {SECRET: 1}]}}
    yield {"url": "/translate", "json": libre}
    yield {"url": "/translate", "data": libre}
    yield {"url": "/translate", "params": libre}
    yield {"url": "/translate", "params": {**libre, "target": SECRET}}
    yield {"url": "/translate", "data": {**libre, "format": SECRET}}
    yield {"url": "/translate", "data": libre, "files": {SECRET: (SECRET, SECRET)}}
    yield {"url": "/detect", "params": {"q": TEXT}}
    yield {"url": "/suggest", "params": {"q": TEXT}}
    yield {"url": "/suggest", "json": {**libre, "s": TEXT}}
    glossary = {"source_lang": "EN", "target_lang": "DE", "entries": f"{SECRET}\t{SECRET}"}
    yield {"url": "/v2/glossaries", "json": {**glossary, "name": SECRET}}
    yield {"url": "/v2/glossaries", "json": {**glossary, "name": SECRET, "entries": SECRET}}
    yield {"url": "/v3/glossaries", "json": {"name": SECRET, "dictionaries": [glossary]}}
    yield {"method": "PUT", "url": f"/v3/glossaries/{SECRET}/dictionaries", "json": glossary}
    yield {"method": "GET", "url": f"/v2/glossaries/{SECRET}/entries"}
    yield {"method": "DELETE", "url": f"/v2/glossaries/{SECRET}"}
    for option in ("style_id", "custom_instructions", "translation_memory_id", "filename"):
        yield {"url": "/v2/translate", "json": {**deepl, option: SECRET}}
    yield {"url": "/translate", "json": {**libre, "api_key": SECRET}}
    yield {"url": "/v2/translate", "json": deepl}
    yield {"url": "/v2/translate", "data": {**deepl, "tag_handling": "html"}}
    yield {"url": "/v2/translate", "json": {**deepl, "glossary_id": SECRET}}
    yield {"url": "/v2/translate", "json": {**deepl, "target_lang": SECRET}}
    yield {"method": "GET", "url": "/v2/languages", "params": {"type": SECRET}}
    for kind, content in (("txt", TEXT), ("html", f"<p>{TEXT}"), ("docx", SECRET), (SECRET, TEXT)):
        upload = {"file": (f"{SECRET}.{kind}", content)}
        languages = {"source": "en", "target": "de"}
        yield {"url": "/v1/translate/file", "files": upload, "data": languages}
        yield {"url": "/v1/translate/file", "files": upload, "data": {"target": SECRET}}
        yield {"url": "/translate_file", "files": upload, "data": languages}
        yield {"url": "/v2/document", "files": upload, "data": {"target_lang": "DE"}}
    yield {"method": "GET", "url": f"/v1/files/{SECRET}"}
    yield {"method": "GET", "url": f"/v1/files/{SECRET}/result"}
    yield {"url": f"/v2/document/{SECRET}", "data": {"document_key": SECRET}}
    yield {"url": "/admin/models", "json": {"models": [f"/{SECRET}"]}}
    yield {"method": "GET", "url": f"/{SECRET}"}
    yield {"method": "GET", "url": f"/v1/{SECRET}?{SECRET}={SECRET}"}
    yield {"method": "GET", "url": f"/translate?q={SECRET}"}
    yield {"method": "PUT", "url": f"/v1/translate?q={SECRET}"}
    yield {"method": "OPTIONS", "url": f"/v1/translate?q={SECRET}"}
    yield {"method": "GET", "url": f"/livez?{SECRET}"}
    for header in ("X-API-Key", "Authorization", "Content-Type", "User-Agent", "Cookie"):
        value = f"Bearer {SECRET}" if header == "Authorization" else SECRET
        yield {"url": "/v1/translate", "content": json.dumps(ours), "headers": {header: value}}
    for header in ("X-Request-ID", "traceparent", "X-Forwarded-For"):
        yield {"url": "/v1/translate", "json": ours, "headers": {header: f"{SECRET} {SECRET}"}}


RAW = (
    f"{SECRET} /{SECRET} HTTP/1.1\r\nHost: a\r\n\r\n",
    f"GET /{SECRET}\r\n{SECRET}: {SECRET}",
    f"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: {SECRET}\r\n\r\n{SECRET}",
    f"GET /{SECRET}?{SECRET} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    # A client that goes away: within its body, and while it is answered.
    f"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n{SECRET}",
    "POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    f'Content-Length: {len(TEXT) + 12}\r\n\r\n{{"text": "{TEXT}"}}',
)


def logged(served: Served) -> list[dict[str, Any]]:
    """The worker's lines; the supervisor's begin with `quickstudy: `."""
    lines = served.log.read_text().splitlines()
    return [json.loads(line) for line in lines if not line.startswith("quickstudy: ")]


def test_the_log_has_every_request_and_no_text(served: Served) -> None:
    sent = 0
    statuses = set()
    for request in requests_with_the_secret():
        answer = served.client.request(**{"method": "POST", **request})
        assert len(answer.headers["x-request-id"]) == 32, request
        assert answer.status_code < 500, request
        statuses.add(answer.status_code)
        sent += answer.request.url.path != "/livez"
    assert statuses >= {200, 400, 403, 404, 405, 413, 422}
    for raw in RAW:
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(raw.encode())
            time.sleep(0.2)
    time.sleep(0.5)

    log = served.log.read_text()
    assert SECRET.lower() not in log.lower()
    assert "127.0.0.1:" not in log.replace(f"127.0.0.1:{served.port}", "")
    found = [line for line in logged(served) if line["logger"] == "quickstudy.requests"]
    assert len(found) >= sent
    assert {line["route"] for line in found} >= {"/v1/translate", "/translate", "other"}
    assert {line["status"] for line in found} >= statuses


def test_a_line_tells_what_a_request_did(served: Served) -> None:
    text = "the red dog rides. A cat sleeps.\nthe red dog rides."
    ids = ["first-1", "second.2"]
    for identity in ids:
        headers = {"X-Request-ID": identity}
        answer = served.client.post("/v1/translate", json={"text": text}, headers=headers)
        assert answer.headers["x-request-id"] == identity
    wrong = served.client.post("/v1/translate", json={}, headers={"X-Request-ID": "third"})
    assert wrong.json()["error"]["request_id"] == "third"
    time.sleep(0.5)
    lines = {line.get("request_id"): line for line in logged(served)}
    first, second = (lines[identity] for identity in ids)
    for line in (first, second):
        assert line["level"] == "info"
        assert line["method"] == "POST"
        assert line["route"] == "/v1/translate"
        assert line["status"] == 200
        assert line["characters"] == len(text)
        assert line["sentences"] == 3
        assert line["ms"] >= line["queue_ms"] >= 0
    assert first["tokens"] > 0
    assert first["cache_hits"] == 0
    assert second["cache_hits"] == 2
    assert second["tokens"] == 0
    assert lines["third"]["status"] == 422


def schemathesis() -> str | None:
    return shutil.which("schemathesis", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(schemathesis() is None, reason="schemathesis is not installed")
def test_no_request_that_the_description_allows_or_not_is_a_fault(served: Served) -> None:
    command = [str(schemathesis()), "run", f"{served.client.base_url}/openapi.json"]
    choices = ["--checks", "not_a_server_error", "--mode", "all", "--max-examples", "5"]
    found = subprocess.run(
        [*command, *choices, "--max-time", "60", "--no-color"],
        cwd=served.log.parent,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


class Client(threading.Thread):
    """Asks again and again until it is told that the service stops, or finds it gone."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__()
        self.url = url
        self.number = number
        self.statuses: list[int] = []
        self.fault: Exception | None = None

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.statuses or self.statuses[-1] == 200:
                turn = f"{self.number} {len(self.statuses)}"
                body = {"text": [f"the old blue street cat {turn} {n}." for n in range(20)]}
                try:
                    self.statuses.append(client.post("/v1/translate", json=body).status_code)
                except httpx.ConnectError:
                    return
                except Exception as error:
                    self.fault = error
                    return


def test_a_stop_finishes_what_is_in_flight(served: Served) -> None:
    """The last test of this file: it ends the process."""
    clients = [Client(str(served.client.base_url), number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    while not all(client.statuses for client in clients):
        time.sleep(0.05)
    served.process.terminate()
    unready = False
    deadline = time.monotonic() + STOP_S
    while served.process.poll() is None and time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{served.client.base_url}/readyz", timeout=5)
        except httpx.TransportError:
            break
        unready = unready or answer.status_code == 503
        time.sleep(0.05)
    served.process.wait(STOP_S)
    for client in clients:
        client.join()
    assert unready
    for client in clients:
        assert client.fault is None, repr(client.fault)
        assert client.statuses[0] == 200
        assert set(client.statuses) <= {200, 503}
    assert SECRET not in served.log.read_text()
