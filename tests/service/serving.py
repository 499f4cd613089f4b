"""A served process for tests, with bundles, asked over a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S = 120
STOP_S = 60


@dataclass
class Served:
    """A served process, a client of it, and what it logs."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    @property
    def port(self) -> int:
        return int(self.client.base_url.port or 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


OURS = ("service.supervisor",)
BENTOML = ("bentoml", "serve", "service.service:Translation")


@contextmanager
def serving(folder: Path, command: Sequence[str] = OURS, **settings: object) -> Iterator[Served]:
    """Serve with these settings (`QUICKSTUDY_…` in lower case, or any variable in capitals)."""
    port, log = free_port(), folder / "log"
    environment = {
        **os.environ,
        "QUICKSTUDY_INTER_THREADS": "1",
        "BENTOML_HOME": str(folder / "bentoml"),
        **{
            name if name.isupper() else f"QUICKSTUDY_{name.upper()}": str(value)
            for name, value in settings.items()
        },
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until_ready(client, process, log)
            yield Served(process, client, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_S)


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
