"""Progress of long work: a bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def clock(seconds: float) -> str:
    """Seconds → h:mm:ss."""
    whole = max(int(seconds), 0)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class Ticker:
    """Progress of a count towards a total: a bar with an ETA on a terminal, else a line now and
    then. Use it as a context manager and call it with the count so far."""

    EVERY = 10.0
    """Seconds between plain lines."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._started = self._spoke = time.monotonic()
        self._first: int | None = None
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=total, status="")

    def __enter__(self) -> Ticker:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int) -> None:
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, status=self._status(done, now))
        elif now - self._spoke >= self.EVERY or done == self._total:
            self._spoke = now
            print(f"{self._name}: {self._status(done, now)}", file=sys.stderr, flush=True)

    def _status(self, done: int, now: float) -> str:
        rate = (done - (self._first or 0)) / max(now - self._started, 1e-9)
        if self._total is None:
            return f"{done:,} {self._unit}, {rate:,.0f} a second"
        left = clock((self._total - done) / rate) if rate else "?"
        return f"{done:,} of {self._total:,} {self._unit}, {rate:,.0f} a second, eta {left}"
