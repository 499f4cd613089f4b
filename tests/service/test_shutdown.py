"""The steps of a graceful shutdown: drain, finish, end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.middleware import GracefulShutdown

MakeClient = Callable[..., TestClient]


async def nothing() -> None:
    pass


def test_it_ends_as_soon_as_no_request_is_in_progress() -> None:
    shutdown = GracefulShutdown(drain_s=0.0, grace_s=30)
    ended = []
    asyncio.run(asyncio.wait_for(shutdown.stop(nothing, lambda: ended.append(1)), 5))
    assert ended == [1]


def test_it_waits_for_requests_in_progress_and_gives_up_after_the_grace_period() -> None:
    seen: list[str] = []

    async def give_up() -> None:
        seen.append("given up")

    async def run(leaves: bool) -> None:
        shutdown = GracefulShutdown(drain_s=0.05, grace_s=1.5)
        shutdown.enter()
        task = asyncio.create_task(shutdown.stop(give_up, lambda: seen.append("ended")))
        await asyncio.sleep(0)
        assert shutdown.has_begun
        assert not shutdown.is_refusing
        while not shutdown.is_refusing:
            await asyncio.sleep(0.01)
        assert seen == []
        if leaves:
            shutdown.exit()
        await task

    asyncio.run(run(leaves=True))
    assert seen == ["ended"]
    seen.clear()
    asyncio.run(run(leaves=False))
    assert seen == ["given up", "ended"]


def test_requests_during_a_shutdown(make_client: MakeClient) -> None:
    client = make_client()
    middleware = client.app
    shutdown: GracefulShutdown = middleware._shutdown  # type: ignore[attr-defined]
    body = {"text": "the red dog rides."}
    assert "connection" not in client.post("/v1/translate", json=body).headers

    shutdown.has_begun = True
    answer = client.post("/v1/translate", json=body)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200

    shutdown.is_refusing = True
    answer = client.post("/v1/translate", json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "stopping"
    assert answer.headers["retry-after"] == "1"
    assert client.post("/v2/translate", json=body).json()["message"]
    assert client.get("/livez").status_code == 200
    assert shutdown.active == 0


@pytest.mark.parametrize("status", [200, 404])
def test_no_request_stays_in_progress(make_client: MakeClient, status: int) -> None:
    client = make_client()
    path = "/livez" if status == 200 else "/nothing"
    assert client.get(path).status_code == status
    assert client.app._shutdown.active == 0  # type: ignore[attr-defined]
