"""A system that gives back what it gets, and goes wrong where it is told to.

Run as a module it is the process that systems run in, which then knows this one too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.systems.base import CLASSES, SystemInfo, Unavailable
from benchmarks.systems.process import main

MODULE = "tests.benchmarks.echo_system"


@dataclass
class Echo:
    """`fails` says how: unavailable on loading; raise, exit or hang at the sentence `bad`."""

    name: str
    fails: str = ""
    log: str = ""
    slow: float = 0.0

    @property
    def info(self) -> SystemInfo:
        return SystemInfo(self.name, "peer", "echo", "text", 1, "en", "de", None, 0)

    def load(self, threads: int) -> None:
        print("a library prints")
        if self.fails == "unavailable":
            raise Unavailable("not here: pip install it")

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(self.name)
        time.sleep(self.slow)
        if "bad" in sentences:
            if self.fails == "raise":
                raise ValueError("too long")
            if self.fails == "exit":
                print("last words", file=sys.stderr)
                sys.stderr.flush()
                os._exit(3)
            if self.fails == "hang":
                time.sleep(60)
        return [f"{sentence} {batch_size}" for sentence in sentences]

    def close(self) -> None:
        return


if __name__ == "__main__":
    CLASSES["Echo"] = MODULE
    main()
