"""What HTTP in Python costs by itself: the load of the throughput part, answered by ten lines.

    python -m benchmarks.load.bare [--text test.en.gz]

The same server (uvicorn with uvloop and httptools), requests and client, and an app that reads the
JSON and sends the text back. No service in Python on these cores can do with less.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from starlette.types import Receive, Scope, Send

from benchmarks.load.measures import PATHS, body, read_sentences
from benchmarks.load.served import LoadWorker
from benchmarks.load.workers import HOST
from quickstudy.machine import cpu_seconds

START_S = 20.0
SENTENCES = 4000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with its own text, in the shape of the native API."""
    if scope["type"] != "http":
        return
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    text = {"text": json.loads(content)["text"], "truncated": False, "score": None, "warnings": []}
    answer = json.dumps({"model": "", "source": "", "target": "", "translations": [text]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def measure(sentences: list[str], clients: int, seconds: float, rounds: int) -> dict[str, float]:
    """Requests a second, and processor milliseconds of server and client a request: medians of the
    rounds, after one that does not count. Raises RuntimeError if the server does not start."""
    bodies = [body("native", sentence, "en", "de") for sentence in sentences]
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    # By its port: uvicorn takes a socket that it is handed for a Unix one, and leaves Nagle's
    # algorithm on.
    command = [sys.executable, "-m", "uvicorn", f"{__name__}:app", "--port", str(port)]
    server = subprocess.Popen([*command, "--log-level", "warning", "--no-access-log"])
    try:
        _wait_until_up(port)
        with LoadWorker("clients") as client:
            figures = []
            for _ in range(rounds + 1):
                before, began = cpu_seconds(server.pid), time.monotonic()
                fields = {"loop": "closed", "port": port, "path": PATHS["native"]}
                tally = client.run(**fields, bodies=bodies, clients=clients, seconds=seconds)
                if not tally["ms"]:
                    raise RuntimeError(f"nothing was answered: {tally['statuses']}")
                used, count = cpu_seconds(server.pid) - before, len(tally["ms"])
                spent = time.monotonic() - began
                figures.append((count / spent, used * 1e3, tally["cpu_seconds"] * 1e3, count))
    finally:
        server.terminate()
        server.wait(START_S)
    counted = figures[1:]
    return {
        "requests_per_second": round(median(rate for rate, *_ in counted), 0),
        "server_cpu_ms": round(median(used / count for _, used, _, count in counted), 3),
        "client_cpu_ms": round(median(used / count for _, _, used, count in counted), 3),
    }


def _wait_until_up(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server did not start within {START_S:g} s")


def main(
    text: Annotated[Path | None, typer.Option(help="Sentences, one a line.")] = None,
    clients: Annotated[int, typer.Option(min=1)] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each round.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Measure HTTP alone."""
    print(json.dumps(measure(read_sentences(text, SENTENCES), clients, seconds, rounds)))


if __name__ == "__main__":
    # By its name, which the server imports, not as `__main__`.
    from benchmarks.load import bare

    typer.run(bare.main)
