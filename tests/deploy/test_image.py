"""The image, run as deploy/ runs it: `make image`, then `QUICKSTUDY_IMAGE=quickstudy:latest pytest
tests/deploy/test_image.py`. `QUICKSTUDY_RUN` holds further options of `podman run` or `docker run`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

IMAGE = os.environ.get("QUICKSTUDY_IMAGE", "")
TOOL = shutil.which("podman") or shutil.which("docker") or ""
AS_DEPLOYED = "--read-only --tmpfs /tmp:size=256m --cap-drop ALL --security-opt no-new-privileges"
MAX_BYTES = 450_000_000
START_S, RECOVERY_S, STOP_S = 60, 10, 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (IMAGE and TOOL), reason="no image is named by QUICKSTUDY_IMAGE"),
]


def tool(*arguments: str) -> str:
    command = [TOOL, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def image() -> Any:
    return json.loads(tool("image", "inspect", IMAGE))[0]


@pytest.fixture
def container() -> Iterator[tuple[str, httpx.Client]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = shlex.split(f"{AS_DEPLOYED} --network host --env PORT={port}")
    options += shlex.split(os.environ.get("QUICKSTUDY_RUN", ""))
    name = tool("run", "--detach", *options, IMAGE).split()[-1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_S) as client:
            until_ready(client, START_S)
            yield name, client
    finally:
        tool("rm", "--force", name)


def until_ready(client: httpx.Client, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the container is not ready"
        time.sleep(0.1)


def test_it_is_small_and_nobodys(image: Any) -> None:
    assert image["Size"] <= MAX_BYTES
    user, _, group = image["Config"]["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert "/readyz" in str(image.get("Healthcheck") or image["Config"].get("Healthcheck"))


def test_it_translates_on_a_read_only_root(container: tuple[str, httpx.Client]) -> None:
    name, client = container
    answer = client.post("/v1/translate", json={"text": "A man rides a bicycle.", "source": "auto"})
    assert answer.json()["translations"][0]["text"]
    refused = subprocess.run([TOOL, "exec", name, "touch", "/opt/x"], capture_output=True)
    assert b"Read-only" in refused.stderr


def test_a_killed_worker_is_replaced_and_it_stops(container: tuple[str, httpx.Client]) -> None:
    name, client = container
    kill = "import os; w = open('/proc/1/task/1/children').read(); os.kill(int(w.split()[0]), 9)"
    tool("exec", name, "python", "-c", kill)
    until_ready(client, RECOVERY_S)
    assert client.post("/v1/translate", json={"text": "A man."}).status_code == 200
    tool("stop", "--time", str(STOP_S), name)
    assert tool("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
