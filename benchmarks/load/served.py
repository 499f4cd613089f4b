"""The processes of a load benchmark: the service as a user starts it, and workers that load it."""

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

from benchmarks.load.workers import HOST
from quickstudy.machine import children, command_line, cpu_seconds, memory_bytes


class LoadWorker:
    """A process of `benchmarks.load.workers`; a context manager."""

    def __init__(self, *arguments: str) -> None:
        self._name = arguments[0]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load.workers", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> LoadWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def begin(self, **command: Any) -> None:
        """Send a command; `answer` waits for its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self._name} process ended with {self._process.wait()}")
        result: dict[str, Any] = json.loads(line)
        return result

    def run(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self.begin(**command)
        return self.answer()


ROOT = Path(__file__).resolve().parents[2]
START_S = 120
STOP_S = 20
POLL_S = 0.02
SERVER_MODULE = "service.server"


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
        sizes, owed = [], 0.0
        for low, high, (_, count) in zip(lows, highs, self.counts, strict=True):
            for _ in range(count):
                owed += low + 1 + share * (high - low - 1)
                sizes.append(max(low + 1, min(high, round(owed))))
                owed -= sizes[-1]
        return sizes


class ServiceProcess:
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

    def __enter__(self) -> ServiceProcess:
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
            if SERVER_MODULE in command_line(pid):
                return pid
        raise RuntimeError("the service has no worker process")

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of the worker so far."""
        return cpu_seconds(self.worker)

    @property
    def resident_bytes(self) -> int:
        """Memory of the worker."""
        return memory_bytes(self.worker)

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
