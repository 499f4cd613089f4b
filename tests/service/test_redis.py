"""Rate limits in a real Redis: shared by services, with a password, and gone."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import auth
from tests.service.serving import free_port
from tests.service.stub import StubEngine

pytest.importorskip("redis")
if shutil.which("redis-server") is None:
    pytest.skip("redis-server is not installed", allow_module_level=True)

MakeClient = Callable[..., TestClient]
PASSWORD = "hunter2"
BODY = {"text": "a b"}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        [*command, "--requirepass", PASSWORD, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0", process
    process.kill()
    process.wait(10)


def test_services_share_a_limit(
    make_client: MakeClient, redis: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, _ = redis
    first, second = (
        make_client(StubEngine(), rate_limit="3/hour", rate_storage=url) for _ in range(2)
    )
    statuses = [one.post("/v1/translate", json=BODY).status_code for one in (first, second) * 2]
    assert statuses == [200, 200, 200, 429]
    refused = first.post("/v1/translate", json=BODY)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0


def test_without_redis_requests_are_let_in_and_that_is_said_once(
    make_client: MakeClient,
    redis: tuple[str, subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, process = redis
    client = make_client(StubEngine(), rate_limit="1/hour", rate_storage=url)
    assert client.post("/v1/translate", json=BODY).status_code == 200
    assert client.post("/v1/translate", json=BODY).status_code == 429
    process.kill()
    process.wait(10)
    monkeypatch.setattr(auth, "STORAGE_RETRY_S", 0.0)
    for _ in range(5):
        assert client.post("/v1/translate", json=BODY).status_code == 200
    said = [one for one in caplog.records if "storage" in one.getMessage()]
    assert len(said) == 1
    assert PASSWORD not in caplog.text


def test_a_wrong_password_lets_in_too(
    make_client: MakeClient, redis: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url = redis[0].replace(PASSWORD, "wrong")
    client = make_client(StubEngine(), rate_limit="1/hour", rate_storage=url)
    assert [client.post("/v1/translate", json=BODY).status_code for _ in range(3)] == [200] * 3
