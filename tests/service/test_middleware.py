"""The outermost layer: large bodies and stray exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import middleware
from service.middleware import RequestMiddleware

MakeClient = Callable[..., TestClient]
URL = "/v1/translate"


def test_a_large_body_is_413(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1024)
    answer = client.post(URL, json={"text": "a" * 2000})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert client.post(URL, json={"text": "a" * 100}).status_code == 200


def test_a_large_body_in_chunks_is_413(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1024)
    read = []

    def chunks() -> Iterator[bytes]:
        for index in range(100):
            read.append(index)
            yield b" " * 100

    answer = client.post(URL, content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "member"),
    [
        (URL, "error"),
        ("/v1/translate/stream", "error"),
        ("/v1/translate/file", "error"),
        ("/translate", "error"),
        ("/translate_file", "error"),
        ("/v2/translate", "message"),
        ("/v2/document", "message"),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "br", " GZip", "identity, zstd"])
def test_a_compressed_body_is_415(
    make_client: MakeClient, path: str, member: str, encoding: str
) -> None:
    answer = make_client().post(path, content=b"\x1f\x8b", headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "without Content-Encoding" in str(answer.json()[member])
    assert answer.headers["accept-encoding"] == "identity"
    assert answer.headers["connection"] == "close"


def test_a_compressed_body_is_not_read() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body is read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-encoding", b"gzip"), (b"content-length", b"1000000")]
    scope = {"type": "http", "path": URL, "method": "POST", "headers": headers}
    asyncio.run(RequestMiddleware(failing_app, 1024)(scope, receive, send))
    assert sent[0]["status"] == 415


def test_a_body_may_say_that_it_is_not_compressed(make_client: MakeClient) -> None:
    answer = make_client().post(
        URL, json={"text": "a cat"}, headers={"Content-Encoding": "identity"}
    )
    assert answer.status_code == 200


TWICE = '{"text": "a", "glossary": {"Baum": "x", "Baum": "y"}}'


@pytest.mark.parametrize("origins", [(), ("https://a.example",)])
@pytest.mark.parametrize(
    ("path", "body", "key", "member"),
    [
        (URL, '{"text": "a", "text": "b"}', "text", "error"),
        (URL, TWICE, "Baum", "error"),
        (URL, TWICE.encode("utf-16"), "Baum", "error"),
        (URL, TWICE.encode("utf-16-le"), "Baum", "error"),
        (URL, TWICE.encode("utf-8-sig"), "Baum", "error"),
        (URL, '{"text": "a", "te\\u0078t": "b"}', "text", "error"),
        (URL, '{"a\\ud800": 1, "a\\ud800": 1}', "ud800", "error"),
        ("/v1/translate/stream", '{"text": "a", "text": "b"}', "text", "error"),
        ("/v1/detect", '{"text": "a", "text": "b"}', "text", "error"),
        ("/admin/models", '{"models": ["a"], "models": ["b"]}', "models", "error"),
        ("/translate", '{"q": "a", "q": "b", "source": "en", "target": "de"}', "q", "error"),
        ("/detect", '{"q": "a", "q": "b"}', "q", "error"),
        ("/v2/translate", '{"text": ["a"], "text": ["b"], "target_lang": "DE"}', "text", "message"),
        ("/v2/document/1", '{"document_key": "1", "document_key": "2"}', "document_key", "message"),
    ],
)
def test_a_key_that_comes_twice_is_400(
    make_client: MakeClient,
    origins: tuple[str, ...],
    path: str,
    body: str | bytes,
    key: str,
    member: str,
) -> None:
    client = make_client(cors_origins=origins)
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "twice" in str(answer.json()[member])
    assert key in str(answer.json()[member])


def test_keys_of_different_objects_may_be_equal(make_client: MakeClient) -> None:
    body = {"text": "a cat", "glossary": {"text": "a", "glossary": "b"}}
    assert make_client().post(URL, json=body).status_code == 200
    nested = "[" * 5000
    headers = {"Content-Type": "application/json"}
    assert make_client().post(URL, content=nested, headers=headers).status_code in (400, 422)


def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_S", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        if not sent:
            await asyncio.sleep(0 if len(parts) else 60)
            return parts.pop()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    parts = [{"type": "http.request", "body": b"{", "more_body": True}]
    scope = {"type": "http", "path": URL, "method": "POST", "headers": []}
    asyncio.run(RequestMiddleware(failing_app, 1024)(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"body_timeout" in sent[1]["body"]


async def failing_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": False})
    raise RuntimeError("secret detail")


@pytest.mark.parametrize(("path", "status"), [("/early", 500), ("/late", 200)])
def test_no_exception_gets_out(path: str, status: int) -> None:
    answer = TestClient(RequestMiddleware(failing_app, 1024)).get(path)
    assert answer.status_code == status
    assert "secret" not in answer.text
    if status == 500:
        assert answer.json()["error"]["code"] == "internal"
