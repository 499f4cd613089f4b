"""Beam search by the compiled engine and by a bundle's library: processor time, BLEU, equal lines.

    python -m benchmarks.beams models/everyday/en-de --src text.en.gz --ref text.de.gz

One thread; the two take turns at each block of sentences, and processor time is counted, so other
work on the machine may go on beside. A library without a beam search is measured greedily alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from export.metrics import bleu_of, signature, statistics_of
from export.runtime.bundle import load_bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine, unsupported_option
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine
from training.data.files import read_lines

BATCHES = (1, 32)
BLOCK = 32
"""Sentences of a turn."""
PACKAGES = ("ctranslate2", "onnxruntime")


def measure(
    engines: dict[str, Engine], src: list[str], ref: list[str], beams: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """A row for each engine, beam and batch size: words of the source a second of processor time
    (median of the rounds), BLEU, and the share of lines that are the first engine's."""
    words = sum(len(text.split()) for text in src)
    rows = []
    for beam, batch in ((beam, batch) for beam in beams for batch in BATCHES):
        options = TranslateOptions(beam_size=beam)
        able = {
            name: engine
            for name, engine in engines.items()
            if unsupported_option(options, engine.supported_options) is None
        }
        seconds: dict[str, list[float]] = {name: [0.0] * rounds for name in able}
        texts: dict[str, list[str]] = {}
        for engine in able.values():
            engine.translate_batch(src[:batch], options)  # warms up
        for turn in range(rounds):
            texts = {name: [] for name in able}
            for block in blocks(src, BLOCK):
                for name, engine in able.items():
                    started = time.process_time()
                    texts[name] += translate(engine, block, batch, options)
                    seconds[name][turn] += time.process_time() - started
        first = next(iter(texts.values()))
        rows += [
            {
                "engine": name,
                "beam_size": beam,
                "batch_size": batch,
                "words_per_cpu_second": round(words / median(seconds[name])),
                "cpu_seconds": [round(one, 2) for one in seconds[name]],
                "bleu": round(bleu_of(statistics_of(lines, ref)), 2),
                "equal_lines": round(
                    sum(a == b for a, b in zip(lines, first, strict=True)) / len(first), 3
                ),
            }
            for name, lines in texts.items()
        ]
    return rows


def translate(
    engine: Engine, texts: list[str], batch: int, options: TranslateOptions
) -> Iterator[str]:
    """The translations of texts, so many in a call."""
    for call in blocks(texts, batch):
        yield from (one.text for one in engine.translate_batch(call, options))


def blocks(texts: list[str], size: int) -> Iterator[list[str]]:
    """Texts in lists of `size`, the last one of what is left."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    src: Annotated[Path, typer.Option(help="Text, a sentence a line; maybe .gz.")],
    ref: Annotated[Path, typer.Option(help="Its translation.")],
    engine: Annotated[str | None, typer.Option(help="Default: the bundle's own.")] = None,
    sentences: Annotated[int, typer.Option(min=1, help="The first lines that are taken.")] = 300,
    beams: Annotated[str, typer.Option(help="Beam sizes, such as 1,2,5.")] = "1,2,5",
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Processor time, BLEU and equal lines of beams, by the compiled engine and by the library."""
    os.environ["OMP_NUM_THREADS"] = "1"
    opened = load_bundle(bundle)
    engines = {
        one.runtime: one
        for one in (load_engine(opened, engine, prefer_native=native) for native in (False, True))
    }
    texts, references = (
        [line or "" for line in islice(read_lines(path), sentences)] for path in (src, ref)
    )
    report = {
        "bundle": str(bundle),
        "engine": opened.engine(engine).name,
        "text": src.name,
        "sentences": len(texts),
        "threads": 1,
        "load": round(os.getloadavg()[0], 1),
        "bleu_signature": signature(),
        "rows": measure(
            engines, texts, references, [int(beam) for beam in beams.split(",")], rounds
        ),
        "machine": describe_machine(PACKAGES),
    }
    text = json.dumps(report, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        atomic_write(out, text)


if __name__ == "__main__":
    typer.run(main)
