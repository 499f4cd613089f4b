"""Load and run every engine of many bundles, in a process that may crash.

`python -m tests.export.load_hostile OUT PATH…` writes a line for each engine to OUT: path, engine,
and `ok` or the exception.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from export.runtime.bundle import Bundle, load_bundle
from export.runtime.engines import TranslateOptions, load_engine

SENTENCES = ["the man rides a bike.", "old cat", "x"]


def main() -> None:
    with Path(sys.argv[1]).open("w", encoding="utf-8") as out:
        for path in sys.argv[2:]:
            bundle = load_bundle(Path(path))
            for engine in bundle.manifest.engines:
                try_engine(bundle, engine.name, out)


def try_engine(bundle: Bundle, name: str, out: TextIO) -> None:
    print(bundle.path, name, end=" ", file=out, flush=True)
    try:
        engine = load_engine(bundle, name)
    except Exception as error:
        print(type(error).__name__, str(error).replace("\n", " "), file=out, flush=True)
        return
    try:
        engine.translate_batch(SENTENCES, TranslateOptions())
    except Exception as error:
        print("ok, but", type(error).__name__, file=out, flush=True)
        return
    print("ok", file=out, flush=True)


if __name__ == "__main__":
    main()
