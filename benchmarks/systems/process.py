"""Runs a system in a process of its own, so that threads, memory and processor time are its own.

Run as a module, this is that process: it reads JSON lines from standard input, first the system,
then commands, and answers each command with one JSON line. Whatever a library prints goes to
standard error. A system's line has the name of its class and its settings; the process makes
objects of classes in `CLASSES` only.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import Field, asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from benchmarks.systems.base import CLASSES, System, SystemInfo, Unavailable
from quickstudy.machine import process_tree, tree_cpu_seconds, tree_memory_bytes


def _unchanged(value: Any) -> Any:
    return value


DECODERS: dict[str, Callable[[Any], Any]] = {
    "SystemInfo": lambda value: SystemInfo(**value),
    "Path": Path,
    "tuple[str, ...]": tuple,
    "str": _unchanged,
    "int": _unchanged,
    "bool": _unchanged,
    "float": _unchanged,
    "dict[str, str]": _unchanged,
    "dict[str, Any]": _unchanged,
}
"""Types that a setting may have, by annotation, and how each is made from JSON."""


def to_json(system: System) -> str:
    """A system that is not loaded, as one line. Raises ValueError for a class that is not in
    `CLASSES`, TypeError for a setting that is no plain data."""
    kind = type(system)
    if CLASSES.get(kind.__name__) != kind.__module__:
        raise ValueError(
            f"{kind.__module__}.{kind.__name__} may not be sent to another process: add it to "
            "CLASSES of benchmarks/systems/base.py"
        )
    values = {one.name: getattr(system, one.name) for one in settings_of(kind)}
    return json.dumps({"class": kind.__name__, "settings": values}, default=_to_plain)


def from_json(line: str | bytes) -> System:
    """The system of a line. Raises ValueError for a class that is not in `CLASSES`, TypeError for
    settings that are not those of the class."""
    message = json.loads(line)
    name = message["class"]
    if name not in CLASSES:
        raise ValueError(f"{name!r} is none of the systems: {', '.join(CLASSES)}")
    kind = getattr(import_module(CLASSES[name]), name)
    types = {one.name: str(one.type) for one in settings_of(kind)}
    if types.keys() != message["settings"].keys():
        given = sorted(message["settings"])
        raise TypeError(f"{name} has the settings {sorted(types)}, not {given}")
    values = {key: DECODERS[types[key]](value) for key, value in message["settings"].items()}
    return cast(System, kind(**values))


def settings_of(kind: type) -> list[Field[Any]]:
    """The fields of a system's class that say what it is; those with an underscore are filled by
    `load`."""
    return [one for one in fields(kind) if not one.name.startswith("_")]


def _to_plain(value: Any) -> Any:
    if isinstance(value, SystemInfo):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is no plain data")


WORKER = "benchmarks.systems.process"
"""Module that a system's process runs."""
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


class SystemProcess:
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
            answer = self._ask({"do": "load", "threads": threads})
        except BaseException:
            self.close()
            raise
        self.loaded = Loaded(answer["seconds"], answer["bytes_before"], answer["bytes"])

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
        answer = self._translate(sentences, batch_size, repeat, False)
        return Timing(answer["seconds"], answer["cpu_seconds"])

    def time_each(self, sentences: Sequence[str]) -> tuple[Timing, list[float]]:
        """What all cost, and the seconds of each sentence translated alone."""
        answer = self._ask({"do": "each", "sentences": list(sentences)})
        return Timing(answer["seconds"], answer["cpu_seconds"]), answer["calls"]

    def peak_bytes(self) -> int:
        """The most memory in RAM so far, children included."""
        peak: int = self._ask({"do": "memory"})["peak_bytes"]
        return peak

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

    def __enter__(self) -> SystemProcess:
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
        command = {"do": "translate", "sentences": list(sentences), "batch": batch}
        return self._ask({**command, "repeat": repeat, "texts": texts})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self._send(json.dumps(command).encode())
        line = self._read_line()
        if not line:
            raise SystemFailed(f"{self.info.name} ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("error") == "unavailable":
            raise Unavailable(answer["message"])
        if "error" in answer:
            raise SystemFailed(f"{self.info.name}: {answer['error']}: {answer['message']}")
        return answer

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
def start_systems(
    systems: Iterable[System], threads: int, failed: dict[str, str]
) -> Iterator[list[SystemProcess]]:
    """The systems that load, each in its own process; why others do not is added to `failed`."""
    with ExitStack() as stack:
        running = []
        for system in systems:
            if system.info.name in failed:
                continue
            try:
                running.append(stack.enter_context(SystemProcess(system, threads)))
            except (Unavailable, SystemFailed) as error:
                failed[system.info.name] = str(error)
        yield running


# --- the process of a system ----------------------------------------------------------------------


def pin(threads: int) -> None:
    """Keep this process and its children on the last `threads` of its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def load(system: System, threads: int) -> dict[str, Any]:
    """Load, and translate a first sentence: what a service waits for before it is ready."""
    before, start = tree_memory_bytes(os.getpid()), time.perf_counter()
    system.load(threads)
    system.translate(["A first sentence."], 1)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes_before": before, "bytes": tree_memory_bytes(os.getpid())}


def translate(system: System, sentences: Sequence[str], batch: int, repeat: int) -> dict[str, Any]:
    """Seconds, processor seconds and texts of translating `sentences` `repeat` times."""
    cpu, start, texts = _cpu(), time.perf_counter(), []
    for _ in range(repeat):
        texts = system.translate(sentences, batch)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_seconds": _cpu() - cpu, "texts": texts}


def each(system: System, sentences: Sequence[str]) -> dict[str, Any]:
    """Seconds of every sentence, translated alone."""
    cpu, calls, last = _cpu(), [], time.perf_counter()
    for sentence in sentences:
        system.translate([sentence], 1)
        now = time.perf_counter()
        calls.append(now - last)
        last = now
    return {"calls": calls, "seconds": sum(calls), "cpu_seconds": _cpu() - cpu}


def _cpu() -> float:
    """Processor seconds so far: finely for this process, in ticks where it has children."""
    if len(process_tree(os.getpid())) > 1:
        return tree_cpu_seconds(os.getpid())
    return time.process_time()


def answer(system: System, command: dict[str, Any]) -> dict[str, Any]:
    """The result of one command."""
    match command["do"]:
        case "load":
            return load(system, command["threads"])
        case "translate":
            translated = translate(
                system, command["sentences"], command["batch"], command["repeat"]
            )
            return translated if command["texts"] else {**translated, "texts": None}
        case "each":
            return each(system, command["sentences"])
        case "memory":
            return {"peak_bytes": tree_memory_bytes(os.getpid(), "VmHWM")}
    raise AssertionError(f"no such command: {command['do']}")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    pin(int(sys.argv[1]))
    system = from_json(sys.stdin.readline())
    try:
        for line in sys.stdin:
            try:
                result = answer(system, json.loads(line))
            except Exception as error:  # the other side decides what it means
                kind = "unavailable" if isinstance(error, Unavailable) else type(error).__name__
                result = {"error": kind, "message": str(error)}
            answers.write(json.dumps(result, ensure_ascii=True) + "\n")
            answers.flush()
    finally:
        system.close()


if __name__ == "__main__":
    main()
