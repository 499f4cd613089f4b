"""Compile the engine with the system's C compiler: `python -m export.runtime.native.build`.

`pip install` does the same by setup.py; this is for images and tests, and shows what went wrong.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quickstudy.errors import QuickstudyError

SOURCES = Path(__file__).parent / "src"
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden")
"""As in setup.py: without contraction, sums are the same on every kernel (src/kernel.h)."""
LIBRARY = Path(__file__).parent / "_engine.so"


class CompileError(QuickstudyError):
    """The compiler is missing or refuses the sources."""


def compile_engine(out: Path, flags: Sequence[str] = FLAGS) -> Path:
    """Write the shared library to `out`, which appears whole. Raises CompileError."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    draft = out.with_name(out.name + ".tmp")
    sources = sorted(map(str, SOURCES.glob("*.c")))
    command = [*compiler, *flags, "-shared", "-fPIC", *sources, "-lm", "-o", str(draft)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CompileError(
            f"{compiler[0]} does not run ({error}): install a C compiler (Debian: apt install gcc)"
        ) from error
    if done.returncode:
        raise CompileError(f"{shlex.join(command)} failed:\n{done.stderr}")
    draft.replace(out)
    return out


def main() -> int:
    try:
        print(compile_engine(LIBRARY))
    except CompileError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
