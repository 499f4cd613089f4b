"""What training shows: a bar on a terminal, plain lines elsewhere, JSONL and TensorBoard."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quickstudy.progress import clock


def _hook(failed: threading.ExceptHookArgs) -> None:
    """Ignore errors of TensorBoard's thread here: it raises them in the next call that writes."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)


class Monitor:
    """Logs of one training run. Only the first process has one that writes."""

    def __init__(self, folder: Path, name: str, resumed_step: int, active: bool = True) -> None:
        self.active = active
        self.name = name
        if not active:
            return
        self._path = folder / "log.jsonl"
        self._drop_after(resumed_step)
        self._file = self._path.open("a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _hook
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(name, total=1.0, status="")
            self._bar.start()

    def _drop_after(self, step: int) -> None:
        """Forget lines of steps that a resumed run will do again."""
        if not self._path.exists():
            return
        lines = [
            json.loads(line) for line in self._path.read_text().splitlines() if line[-1:] == "}"
        ]
        kept = [line for line in lines if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def log(self, step: int, progress: float, seconds: float, values: dict[str, Any]) -> None:
        """Record values at a step; `progress` is the done share of the nearest limit, 0 to 1."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(key, value, step)
        eta = seconds / progress - seconds if progress > 0 else 0.0
        shown = " ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in values.items()
            if key != "sample"
        )
        status = f"step {step} {shown} eta {clock(eta)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=min(progress, 1.0), status=status)
        else:
            print(f"{self.name}: {progress:4.0%} {status}", file=sys.stderr, flush=True)

    def say(self, message: str) -> None:
        """One line that is not a measurement."""
        if not self.active:
            return
        if self._bar is not None:
            self._bar.console.print(f"{self.name}: {message}", highlight=False)
        else:
            print(f"{self.name}: {message}", file=sys.stderr, flush=True)

    def stop_bar(self) -> None:
        """Give the terminal back as it was."""
        if self.active and self._bar is not None:
            self._bar.stop()

    def close(self) -> None:
        self.stop_bar()
        if self.active:
            self._board.close()
            self._file.close()
