"""The outermost layer: large bodies and stray exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

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
