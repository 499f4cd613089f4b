"""The outermost layer: large bodies and stray exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api import guard
from service.api.guard import Guard

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


def test_a_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.05)
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
    asyncio.run(Guard(failing_app, 1024)(scope, receive, send))
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
    answer = TestClient(Guard(failing_app, 1024)).get(path)
    assert answer.status_code == status
    assert "secret" not in answer.text
    if status == 500:
        assert answer.json()["error"]["code"] == "internal"
