"""Runs a system in a process of its own, so that threads, memory and processor time are its own.

A system as a line of JSON: the name of its class and its settings.

Nothing in such a line is code: the other side makes an object of a class that `CLASSES` allows.

What a process and its children cost, from Linux's /proc: processor time and memory.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import Field, asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from benchmarks.systems import CLASSES
from benchmarks.systems.base import System, SystemInfo, Unavailable


def _as_it_is(value: Any) -> Any:
    return value


READ: dict[str, Callable[[Any], Any]] = {
    "SystemInfo": lambda value: SystemInfo(**value),
    "Path": Path,
    "tuple[str, ...]": tuple,
    "str": _as_it_is,
    "int": _as_it_is,
    "float": _as_it_is,
    "dict[str, str]": _as_it_is,
    "dict[str, Any]": _as_it_is,
}
"""What a setting may be, by its annotation, and how it is made of JSON."""


def to_json(system: System) -> str:
    """A system that is not loaded, as one line. Raises ValueError for a class that is not in
    `CLASSES`, TypeError for a setting that is no plain data."""
    kind = type(system)
    if CLASSES.get(kind.__name__) != kind.__module__:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__} may not be sent to another process: add it to "
            "CLASSES of benchmarks/systems/__init__.py"
        )
    values = {one.name: getattr(system, one.name) for one in settings_of(kind)}
    return json.dumps({"class": kind.__name__, "settings": values}, default=_plain)


def from_json(line: str | bytes) -> System:
    """The system of a line. Raises ValueError for a class that is not in `CLASSES`, TypeError for
    settings that are not those of the class."""
    told = json.loads(line)
    name = told["class"]
    if name not in CLASSES:
        raise ValueError(f"{name!r} is none of the systems: {', '.join(CLASSES)}")
    kind = getattr(import_module(CLASSES[name]), name)
    types = {one.name: str(one.type) for one in settings_of(kind)}
    if types.keys() != told["settings"].keys():
        raise TypeError(f"{name} has the settings {sorted(types)}, not {sorted(told['settings'])}")
    values = {key: READ[types[key]](value) for key, value in told["settings"].items()}
    return cast(System, kind(**values))


def settings_of(kind: type) -> list[Field[Any]]:
    """The fields of a system's class that say what it is; those with an underscore are filled by
    `load`."""
    return [one for one in fields(kind) if not one.name.startswith("_")]


def _plain(value: Any) -> Any:
    if isinstance(value, SystemInfo):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no plain data")


WORKER = "benchmarks.systems.worker"
"""Module that such a process runs."""
PATIENCE = 900.0
"""Seconds that an answer may take."""
GRACE = 5.0
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


class SystemFailed(RuntimeError):
    """A system that raised, ended or did not answer."""


@dataclass(frozen=True)
class Loaded:
    """What getting ready cost: seconds up to the first translation, memory before and after."""

    seconds: float
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of some translations."""

    seconds: float
    cpu_seconds: float


class Running:
    """A system in its own process, loaded, on `threads` threads and as many cores. An answer may
    take `patience` seconds.

    Raises Unavailable where the system cannot run here, SystemFailed where it breaks.
    """

    def __init__(self, system: System, threads: int, patience: float = PATIENCE) -> None:
        self.info: SystemInfo = system.info
        self.threads = threads
        self.patience = patience
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads))},
        )
        try:
            self._send(to_json(system).encode())
            found = self._ask({"do": "load", "threads": threads})
        except BaseException:
            self.close()
            raise
        self.loaded = Loaded(found["seconds"], found["bytes_before"], found["bytes"])

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Texts of sentences in order."""
        texts: list[str] = self._translate(sentences, batch_size, 1, True)["texts"]
        if len(texts) != len(sentences):
            raise SystemFailed(
                f"{self.info.name} gave {len(texts)} texts for {len(sentences)} sentences"
            )
        return texts

    def time(self, sentences: Sequence[str], batch_size: int, repeat: int = 1) -> Timing:
        """What translating all sentences `repeat` times costs."""
        found = self._translate(sentences, batch_size, repeat, False)
        return Timing(found["seconds"], found["cpu_seconds"])

    def time_each(self, sentences: Sequence[str]) -> tuple[Timing, list[float]]:
        """What all cost, and the seconds of each sentence translated alone."""
        found = self._ask({"do": "each", "sentences": list(sentences)})
        return Timing(found["seconds"], found["cpu_seconds"]), found["calls"]

    def peak_bytes(self) -> int:
        """The most memory in RAM so far, children included."""
        found: int = self._ask({"do": "memory"})["peak_bytes"]
        return found

    def close(self) -> None:
        """End the process; it closes the system first if it still answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _translate(
        self, sentences: Sequence[str], batch: int, repeat: int, texts: bool
    ) -> dict[str, Any]:
        order = {"do": "translate", "sentences": list(sentences), "batch": batch}
        return self._ask({**order, "repeat": repeat, "texts": texts})

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._send(json.dumps(order).encode())
        line = self._read_line()
        if not line:
            raise SystemFailed(f"{self.info.name} ended: {self._last_words()}")
        found: dict[str, Any] = json.loads(line)
        if found.get("error") == "unavailable":
            raise Unavailable(found["message"])
        if "error" in found:
            raise SystemFailed(f"{self.info.name}: {found['error']}: {found['message']}")
        return found

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SystemFailed(f"{self.info.name} ended: {self._last_words()}") from None

    def _read_line(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self.patience)
        if not ready:
            self._process.kill()
            raise SystemFailed(f"{self.info.name} gave no answer in {self.patience:.0f} s")
        return self._process.stdout.readline()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        return " ".join(lines[-3:]) or f"exit code {self._process.wait()}"


@contextmanager
def all_running(
    systems: Iterable[System], threads: int, failed: dict[str, str]
) -> Iterator[list[Running]]:
    """The systems that load, each in its own process; why others do not is added to `failed`."""
    with ExitStack() as stack:
        found = []
        for system in systems:
            if system.info.name in failed:
                continue
            try:
                found.append(stack.enter_context(Running(system, threads)))
            except (Unavailable, SystemFailed) as error:
                failed[system.info.name] = str(error)
        yield found
