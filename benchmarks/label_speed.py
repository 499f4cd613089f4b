"""How fast a teacher labels, in source tokens a second: translations and distributions apart.

    python -m benchmarks.label_speed runs/NAME --out benchmarks/results/label-speed.json

Takes a run's folder (its teacher's checkpoint and token shards) or both by name. Run it with
nothing else running.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer

from benchmarks.speed import machine
from export.ctranslate2 import to_ctranslate2
from quickstudy.atomic import atomic_write
from training.config.recipe import RecipeError
from training.data.batching import RaggedColumn, map_table
from training.distill.teachers import NativeTeacher
from training.distributed import thread_count

Precision = Literal["int8", "float32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "float32")


def sample(shards: list[Path], sentences: int) -> tuple[list[list[int]], list[list[int]]]:
    """Evenly spaced pairs of the token shards as ids; a missing reference is an empty list."""
    tables = [map_table(path) for path in shards]
    src, trg = (RaggedColumn([table[side] for table in tables]) for side in ("src", "trg"))
    rows = np.linspace(0, len(src) - 1, min(sentences, len(src))).astype(int)
    return [src[row].tolist() for row in rows], [trg[row].tolist() for row in rows]


def timed(work: Callable[[], Any], rounds: int) -> tuple[list[float], Any]:
    """Seconds of each round after one that is not counted, and what the last one gave."""
    found = work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return seconds, found


def _speed(src: list[list[int]], seconds: list[float], **about: Any) -> dict[str, Any]:
    tokens = sum(map(len, src))
    rates = [tokens / one for one in seconds]
    return {
        **about,
        "source_tokens_per_second": round(median(rates), 1),
        "sentences_per_second": round(len(src) / median(seconds), 2),
        "rounds": [round(rate, 1) for rate in rates],
    }


def measure(
    checkpoint: Path,
    shards: list[Path],
    sentences: int = 500,
    rounds: int = 3,
    beam_size: int = 5,
    top_k: int = 8,
    batch_tokens: int = 1024,
) -> dict[str, Any]:
    """Time the teacher on a sample. Raises RecipeError where there is no text."""
    if not shards:
        raise RecipeError("no token shards: run the `tokenize` stage, or give --tokens")
    src, trg = sample(shards, sentences)
    rows, hypotheses = [], []
    for precision in PRECISIONS:
        teacher = NativeTeacher(checkpoint, batch_tokens, precision, to_ctranslate2)
        seconds, found = timed(lambda: teacher.translate(src, beam_size, 1, 1.0), rounds)  # noqa: B023
        hypotheses = [translations[0][0] for translations in found]
        about: dict[str, Any] = {"task": "translations", "engine": "CTranslate2"}
        rows.append(_speed(src, seconds, **about, precision=precision, beam_size=beam_size))
    about = {"task": "distributions", "engine": "torch", "precision": "float32", "top_k": top_k}
    for path, along in (("hypothesis", hypotheses), ("reference", trg)):
        known = [row for row, target in enumerate(along) if target]
        pairs = [src[row] for row in known], [along[row] for row in known]
        if known:
            seconds, _ = timed(lambda: teacher.distributions(*pairs, top_k), rounds)  # noqa: B023
            rows.append(_speed(pairs[0], seconds, **about, path=path))
    return {
        "sentences": len(src),
        "source_tokens": sum(map(len, src)),
        "batch_tokens": batch_tokens,
        "threads": {"CTranslate2": thread_count(1), "torch": torch.get_num_threads()},
        "speeds": rows,
        "machine": machine(),
    }


def main(
    run: Annotated[Path, typer.Argument(help="Run's folder, or the teacher's checkpoint.")],
    tokens: Annotated[
        Path | None, typer.Option(help="Folder of token shards; default: the run's.")
    ] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Size of the sample.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds counted; the median is told.")] = 3,
    beam_size: Annotated[int, typer.Option(min=1)] = 5,
    top_k: Annotated[int, typer.Option(min=0, help="0 keeps the whole vocabulary.")] = 8,
    batch_tokens: Annotated[int, typer.Option(min=64)] = 1024,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Measure how fast a teacher labels."""
    inside = run / "teacher" / "checkpoint"
    checkpoint = inside if inside.exists() else run
    shards = sorted((tokens or run / "tokens" / "train").glob("*.arrow"))
    report = measure(checkpoint, shards, sentences, rounds, beam_size, top_k, batch_tokens)
    text = json.dumps(report, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        atomic_write(out, text)


if __name__ == "__main__":
    typer.run(main)
