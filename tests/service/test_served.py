"""A served process: `bentoml serve` with a bundle, asked over a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from export.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
START_S = 60

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    port = free_port()
    log = tmp_path_factory.mktemp("served-log") / "log"
    environment = {
        **os.environ,
        "QUICKSTUDY_MODEL": str(tiny_bundle.path),
        "QUICKSTUDY_INTER_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(log.parent / "bentoml"),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "service.service:Translation"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            wait_until_ready(client, process, log)
            yield client
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the service was not ready within {START_S} s:\n{log.read_text()}")


def test_it_translates(served: httpx.Client) -> None:
    answer = served.post("/v1/translate", json={"text": "the old blue street cat.\n\n42"})
    assert answer.status_code == 200
    assert answer.json()["translations"][0]["text"].endswith("\n\n42")
    assert served.get("/v1/models").json()["models"][0]["name"] == "tiny"


def test_its_own_pages_and_errors_are_ours(served: httpx.Client) -> None:
    assert "<textarea" in served.get("/").text
    assert served.get("/docs").status_code == 200
    assert served.get("/nothing").json()["error"]["code"] == "not_found"
    assert served.get("/v1/translate").status_code == 405
    assert served.get("/healthz").status_code == 200
    assert "quickstudy_requests_total" in served.get("/metrics").text


def test_large_bodies_are_refused(served: httpx.Client) -> None:
    body = iter([b" " * 100_000] * 5)
    answer = served.post("/v1/translate", content=body)
    assert answer.status_code == 413
