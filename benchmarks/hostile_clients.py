"""Clients that would keep the service from others, and what others notice of them.

    python -m benchmarks.hostile_clients --bundle models/en-de

starts the service as a user does, on loopback, and takes about a minute and a half. Each case sends
a bounded amount, while another process asks `/livez` fifty times a second. Printed are the latency
of these probes, the service's memory, and what was refused.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Annotated

import typer

from benchmarks.load.served import HOST, Helper, Served
from service.api_keys import KeyStore

MAX_CONNECTIONS = 500
IDLE = 500
HALF_SENT = 200
CASE_S = 8.0
BIG_HEADER_BYTES = 50_000_000
HEADER_LINES_BYTES = 8_000_000
REQUESTS = 200
RATE = 50
SETTINGS = {
    "QUICKSTUDY_MAX_CONNECTIONS": str(MAX_CONNECTIONS),
    "QUICKSTUDY_RATE_LIMIT": f"{RATE}/minute",
    "QUICKSTUDY_LOG_LEVEL": "warning",
}


@dataclass
class Result:
    """What a case did: `seconds` of each probe (None: no answer), the service's memory in bytes at
    its highest, what was answered, why connections were refused."""

    name: str
    seconds: list[float | None]
    peak_bytes: int
    answers: Counter[str]
    refused: dict[str, int]

    def row(self) -> str:
        """It as a row of a Markdown table, in milliseconds and megabytes."""
        answered = sorted(one for one in self.seconds if one is not None)
        p50, p99 = statistics.median(answered), answered[int(len(answered) * 0.99)]
        lost = len(self.seconds) - len(answered)
        told = ", ".join(f"{count} × {name}" for name, count in self.answers.most_common())
        why = ", ".join(f"{count} {name}" for name, count in self.refused.items())
        return (
            f"| {self.name} | {p50 * 1e3:.1f} | {p99 * 1e3:.1f} | {answered[-1] * 1e3:.1f} | "
            f"{lost} of {len(self.seconds)} | {self.peak_bytes / 1e6:.0f} | {told} | {why} |"
        )


Case = Callable[[int, Counter[str]], None]


def nothing(port: int, answers: Counter[str]) -> None:
    """The probes alone."""
    time.sleep(CASE_S)


def large_header(port: int, answers: Counter[str]) -> None:
    """One header field of 50 MB."""
    head = b"GET /livez HTTP/1.1\r\nHost: a\r\nX: "
    answers[_send(port, head, b"a" * 1_000_000, BIG_HEADER_BYTES // 1_000_000)] += 1


def header_lines(port: int, answers: Counter[str]) -> None:
    """Five connections, each with 8 MB of header lines."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 90) for number in range(1000))
    for _ in range(5):
        head = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
        answers[_send(port, head, lines, HEADER_LINES_BYTES // len(lines))] += 1


def trailers(port: int, answers: Counter[str]) -> None:
    """8 MB of trailers."""
    head = b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
    answers[_send(port, head, b"a" * 1_000_000, HEADER_LINES_BYTES // 1_000_000)] += 1


def without_request(port: int, answers: Counter[str]) -> None:
    """500 connections without a request and 200 with half a head, all kept open."""
    with ExitStack() as opened:
        for number in range(IDLE + HALF_SENT):
            connection = opened.enter_context(_connect(port))
            if number >= IDLE:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost")
        time.sleep(CASE_S)
        answers["opened"] = IDLE + HALF_SENT


def slow_bodies(port: int, answers: Counter[str]) -> None:
    """600 connections with a whole head and half a body, all kept open."""
    head = b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\n{"
    with ExitStack() as opened:
        for _ in range(600):
            opened.enter_context(_connect(port)).sendall(head)
        time.sleep(CASE_S)
        answers["opened"] = 600


def pipelined(port: int, answers: Counter[str]) -> None:
    """20 connections, each with 2,000 requests before it reads an answer."""
    for _ in range(20):
        request = b"GET /v1/languages HTTP/1.1\r\nHost: a\r\n\r\n"
        answers[_send(port, request * 2000, b"", 0)] += 1


def forwarded_for(port: int, answers: Counter[str]) -> None:
    """200 requests, each said to be from another address: the rate is 50 a minute."""
    for number in range(REQUESTS):
        forwarded = f"X-Forwarded-For: 192.0.2.{number}\r\n".encode()
        answers[_translate(port, forwarded)] += 1


def wrong_keys(port: int, answers: Counter[str]) -> None:
    """200 requests with a wrong key."""
    for number in range(REQUESTS):
        answers[_translate(port, f"X-API-Key: wrong{number}\r\n".encode())] += 1


CASES: dict[str, Case] = {
    "none": nothing,
    "header of 50 MB": large_header,
    "5 × 8 MB of header lines": header_lines,
    "8 MB of trailers": trailers,
    "500 idle, 200 half-sent heads": without_request,
    "600 half-sent bodies": slow_bodies,
    "20 × 2,000 pipelined requests": pipelined,
    "200 forged `X-Forwarded-For`": forwarded_for,
    "200 wrong keys": wrong_keys,
}


def run(served: Served, name: str, case: Case) -> Result:
    """Do a case while the service is probed."""
    before = _refused(served)
    answers: Counter[str] = Counter()
    peaks: list[int] = []
    end = time.monotonic() + CASE_S

    def watch() -> None:
        while time.monotonic() < end:
            peaks.append(served.resident_bytes)
            time.sleep(0.05)

    watching = Thread(target=watch)
    with Helper("benchmarks.load.probe") as prober:
        prober.begin(port=served.port, seconds=CASE_S)
        watching.start()
        case(served.port, answers)
        watching.join()
        seconds = prober.answer()["seconds"]
    refused = dict(_refused(served) - before)
    return Result(name, seconds, max(peaks), answers, refused)


def main(
    bundle: Annotated[Path, typer.Option(help="Bundle to serve.")] = Path("models/en-de"),
) -> None:
    """Do every case and print a table."""
    with TemporaryDirectory() as folder:
        keys = Path(folder, "keys.sqlite")
        store = KeyStore(keys)
        store.add("unused")
        store.close()
        settings = {**SETTINGS, "QUICKSTUDY_KEYS_FILE": str(keys)}
        print("| client | p50 ms | p99 ms | most ms | no answer | MB | answers | refused |")
        print("| --- | --: | --: | --: | --: | --: | --- | --- |")
        with Served(bundle, settings) as served:
            for name, case in CASES.items():
                print(run(served, name, case).row(), flush=True)


def _connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=10)


def _send(port: int, head: bytes, part: bytes, times: int) -> str:
    """The status line that comes of these bytes, or `closed`."""
    with _connect(port) as connection:
        with suppress(OSError):
            connection.sendall(head)
            for _ in range(times):
                connection.sendall(part)
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    return answer.split(b"\r\n")[0].decode("latin-1") or "closed"


def _translate(port: int, header: bytes) -> str:
    body = b'{"text": "Good morning."}'
    head = (
        b"POST /v1/translate HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    )
    return _send(port, head + header + b"\r\n" + body, b"", 0)


def _refused(served: Served) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in served.get("/metrics")[1].splitlines():
        if line.startswith("quickstudy_connections_refused_total{"):
            found[line.split('"')[1]] = int(float(line.split()[-1]))
    return found


if __name__ == "__main__":
    typer.run(main)
