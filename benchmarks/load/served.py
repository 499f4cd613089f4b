"""The service as a user starts it, in a process group of its own.

Processes that take orders as JSON lines and answer as JSON lines, and what the kernel says
of a process: its processor seconds, its memory, its children.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


class Helper:
    """A Python module run in a process of its own; a context manager."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def begin(self, **order: Any) -> None:
        """Give an order; `answer` waits for what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What came of the order. Raises RuntimeError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def do(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for what comes of it."""
        self.begin(**order)
        return self.answer()


def cpu_seconds(pid: int) -> float:
    """Processor seconds that a process has used, in steps of a hundredth. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM. Raises OSError."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the system does not say how much memory process {pid} has")


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command_line(pid: int) -> str:
    """How a process was called; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_S = 120
STOP_S = 20
POLL_S = 0.02
WORKER = "service.server"


@dataclass(frozen=True)
class Batches:
    """Batches of the engine: how many of at most so many sentences (`counts` by bound, rising),
    and all their sentences."""

    counts: tuple[tuple[float, int], ...]
    sentences: int

    def since(self, earlier: Batches) -> Batches:
        """Those that came later."""
        before = dict(earlier.counts)
        return Batches(
            tuple((bound, count - before.get(bound, 0)) for bound, count in self.counts),
            self.sentences - earlier.sentences,
        )

    def sizes(self) -> list[int]:
        """Sizes with these counts and this sum: each at the same place between its bounds."""
        lows = [0, *(int(bound) for bound, _ in self.counts[:-1])]
        highs = [low * 2 if bound == float("inf") else int(bound) for low, (bound, _) in
                 zip(lows, self.counts, strict=True)]  # fmt: skip
        least = sum(count * (low + 1) for low, (_, count) in zip(lows, self.counts, strict=True))
        room = sum(
            count * (high - low - 1)
            for low, high, (_, count) in zip(lows, highs, self.counts, strict=True)
        )
        share = min(1.0, max(0.0, (self.sentences - least) / room)) if room else 0.0
        found, owed = [], 0.0
        for low, high, (_, count) in zip(lows, highs, self.counts, strict=True):
            for _ in range(count):
                owed += low + 1 + share * (high - low - 1)
                found.append(max(low + 1, min(high, round(owed))))
                owed -= found[-1]
        return found


class Served:
    """A bundle served as by `make serve`; a context manager that is ready when it is entered.

    `settings` are environment variables. Raises RuntimeError with the log if it does not get ready.
    """

    def __init__(self, bundle: Path, settings: dict[str, str]) -> None:
        self.port = _free_port()
        self.ready_seconds = 0.0
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        environment = {
            **os.environ,
            "QUICKSTUDY_MODEL": str(bundle.resolve()),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(Path(self._folder.name, "bentoml")),
            **settings,
        }
        command = [sys.executable, "-m", "service.supervisor"]
        self._begin = time.monotonic()
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [*command, "--host", HOST, "--port", str(self.port)],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Served:
        try:
            self.ready_seconds = self.wait_until_ready() - self._begin
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it as an operator does, with what it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._folder.cleanup()

    @property
    def worker(self) -> int:
        """The process that translates. Raises RuntimeError if there is none."""
        for pid in children(self._process.pid):
            if WORKER in command_line(pid):
                return pid
        raise RuntimeError("the service has no worker process")

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of the worker so far."""
        return cpu_seconds(self.worker)

    @property
    def resident_bytes(self) -> int:
        """Memory of the worker."""
        return resident_bytes(self.worker)

    def wait_until_ready(self) -> float:
        """Wait until it translates; when that was, by the monotonic clock."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200:
                    return time.monotonic()
            except OSError:
                pass
            time.sleep(POLL_S)
        log = self._log.read_text()[-2000:]
        raise RuntimeError(f"the service was not ready within {START_S} s:\n{log}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body. Raises OSError."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def batches(self) -> Batches:
        """The batches of the engine so far."""
        return read_batches(self.get("/metrics")[1])


def read_batches(metrics: str) -> Batches:
    """The batches that metrics in Prometheus' text format tell of."""
    bounds: list[tuple[float, int]] = []
    sentences = 0
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("quickstudy_batch_sentences_bucket"):
            bounds.append((float(name.split('"')[1].replace("+Inf", "inf")), int(float(value))))
        elif name == "quickstudy_batch_sentences_sum":
            sentences = int(float(value))
    below = [0, *(count for _, count in bounds)]
    counts = tuple(
        (bound, count - before) for (bound, count), before in zip(bounds, below, strict=False)
    )
    return Batches(counts, sentences)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
