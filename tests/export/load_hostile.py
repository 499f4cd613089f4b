"""Load and run the default engine of many bundles, in a process that may crash.

Prints a line for each: its path, then `ok` or the kind of exception.
"""

from __future__ import annotations

import sys
from pathlib import Path

from export.bundle import load_bundle
from export.engines import TranslateOptions, load_engine

SENTENCES = ["the man rides a bike.", "old cat", "x"]


def main() -> None:
    for path in sys.argv[1:]:
        print(path, end=" ", flush=True)
        print(outcome(Path(path)), flush=True)


def outcome(path: Path) -> str:
    try:
        engine = load_engine(load_bundle(path))
    except Exception as error:
        return f"{type(error).__name__} {error}".replace("\n", " ")
    try:
        engine.translate_batch(SENTENCES, TranslateOptions())
        engine.translate_batch(SENTENCES, TranslateOptions(beam_size=2, return_scores=True))
    except RuntimeError:
        return "ok, but it cannot translate"
    return "ok"


if __name__ == "__main__":
    main()
