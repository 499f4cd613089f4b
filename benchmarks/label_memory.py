"""Memory of the label store as the corpus grows: writing it, and an epoch of training batches.

    python -m benchmarks.label_memory --out benchmarks/results/label-memory.json

Synthetic text and a teacher that answers at once; every case runs in a process of its own.
Linux only: anonymous memory (what must be flat) and mapped file pages (which the system takes back
when it needs them) are told apart by /proc/self/status.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import typer

from benchmarks.speed import machine
from quickstudy.atomic import atomic_write
from training.config.recipe import LabelsConfig, TokenizerConfig
from training.data.dataset import ParallelDataset
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, train_tokenizer, write_tokens
from training.data.toy import make_toy
from training.distill.label_store import LabelStore
from training.distill.labelling import label_corpus
from training.distill.teachers.base import About, Distributions
from training.model.transformer import EOS

LINES = [10_000, 100_000, 1_000_000]
SHARD_PAIRS = 20_000
TOKENIZER = "tokenizer.model"
VOCABULARY = 6000
BATCH_TOKENS = 8192
SAMPLE_SECONDS = 0.02
CONFIG = LabelsConfig(beam_size=1, top_k=8, paths=["hypothesis"])
StageName = Literal["write", "read"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class InstantTeacher:
    """Repeats the source; its distributions are the same for all rows of a length."""

    about = About("none", "float32", None)

    def translate(
        self, src: list[list[int]], beam_size: int, n_best: int, length_penalty: float
    ) -> list[list[tuple[list[int], float]]]:
        return [[(row, -1.0)] * n_best for row in src]

    def distributions(
        self, src: list[list[int]], trg: list[list[int]], top_k: int
    ) -> list[Distributions]:
        return [_flat(len(row), top_k) for row in trg]


@cache
def _flat(length: int, top_k: int) -> Distributions:
    ids = np.tile(np.arange(top_k), (length, 1))
    logp = np.full((length, top_k), np.log(0.9 / top_k))
    return Distributions(ids, logp, np.full(length, 0.1))


def write_text(folder: Path, lines: int, tokens: int) -> None:
    """Token shards of random sentences, `tokens` long on average, EOS counted, in `tokens` of a
    folder, with some tokenizer beside them."""
    train_tokenizer(iter(make_toy(300, 1)), TokenizerConfig(vocab_size=320), folder / TOKENIZER)
    (folder / "tokens").mkdir()
    generator = np.random.default_rng(1)
    for number, start in enumerate(range(0, lines, SHARD_PAIRS)):
        count = min(SHARD_PAIRS, lines - start)
        ids = pa.array(np.arange(start, start + count))
        columns = [ids, *(_sentences(generator, count, tokens) for _ in ("src", "trg"))]
        path = folder / "tokens" / f"{number:05}.arrow"
        write_tokens(path, pa.table(columns, schema=TOKEN_SCHEMA))


def _sentences(generator: np.random.Generator, count: int, tokens: int) -> pa.Array:
    lengths = generator.integers(tokens // 2, tokens + tokens // 2, count, endpoint=True)
    ends = np.cumsum(lengths)
    values = generator.integers(EOS + 1, VOCABULARY, ends[-1])
    values[ends - 1] = EOS
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values.astype(np.int32))


# --- one case, in its own process --------------------------------------------------------------


def resident() -> dict[str, int]:
    """Bytes of this process in memory: anonymous, and mapped from files."""
    with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123
        fields = dict(line.split(":", 1) for line in file)
    return {
        name: 1024 * int(fields[field].split()[0])
        for name, field in (("anonymous", "RssAnon"), ("file", "RssFile"))
    }


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The largest of each value of `resident` within the block, filled in as it goes."""
    peak, ended = resident(), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for name, value in resident().items():
                peak[name] = max(peak[name], value)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@app.command(hidden=True)
def case(stage: StageName, folder: Path) -> None:
    """Measure one stage on the text in FOLDER and print it as JSON."""
    shards = sorted((folder / "tokens").glob("*.arrow"))
    before, started = resident(), time.perf_counter()
    with watched() as peak:
        if stage == "write":
            tokenizer = Tokenizer(folder / TOKENIZER)
            label_corpus(shards, folder / "labels", InstantTeacher, CONFIG, tokenizer)
        else:
            _epoch(shards, folder / "labels")
    seconds = round(time.perf_counter() - started, 2)
    print(json.dumps({"before": before, "peak": peak, "seconds": seconds}))


def _epoch(shards: list[Path], labels: Path) -> None:
    data = ParallelDataset(shards, LabelStore(labels))
    batches = data.epoch(0, 1, BATCH_TOKENS, ("hypothesis",), ("hypothesis",), 0, 1)
    rows = sum(len(batch.ids) for batch in batches)
    assert rows == len(data)


# --- all cases ---------------------------------------------------------------------------------


@app.command()
def measure(
    lines: Annotated[list[int] | None, typer.Option(min=100, help="Sizes of the corpus.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Mean tokens a line, EOS counted.")] = 8,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Measure every size and stage, each in a process of its own."""
    sizes = sorted(lines or LINES)
    cases = [found for size in sizes for found in _cases(size, tokens)]
    report = {
        "tokens_a_line": tokens,
        "top_k": CONFIG.top_k,
        "paths": list(CONFIG.paths),
        "shard_pairs": SHARD_PAIRS,
        "cases": cases,
        "anonymous_bytes_a_pair": {stage: _slope(cases, stage) for stage in ("write", "read")},
        "machine": machine(),
    }
    text = json.dumps(report, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        atomic_write(out, text)
        print(render(report))


def _cases(lines: int, tokens: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="quickstudy-memory-") as name:
        folder = Path(name)
        write_text(folder, lines, tokens)
        for stage in ("write", "read"):
            command = [sys.executable, "-m", "benchmarks.label_memory", "case", stage, name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            store = sum(path.stat().st_size for path in (folder / "labels").iterdir())
            yield {"lines": lines, "stage": stage, "store": store, **json.loads(done.stdout)}


def _slope(cases: list[dict[str, Any]], stage: str) -> float | None:
    """Anonymous bytes that each further pair takes, between the two largest sizes."""
    found = [case for case in cases if case["stage"] == stage][-2:]
    if len(found) < 2:
        return None
    smaller, larger = found
    grown = larger["peak"]["anonymous"] - smaller["peak"]["anonymous"]
    return round(grown / (larger["lines"] - smaller["lines"]), 1)


def render(report: dict[str, Any]) -> str:
    """The report as a Markdown table, in MB."""
    lines = [
        "| lines | stage | store | anonymous, before → peak | mapped files at peak |",
        "| --: | --- | --: | --: | --: |",
    ]
    for row in report["cases"]:
        before, peak = row["before"], row["peak"]
        anonymous = f"{before['anonymous'] / 1e6:.0f} → {peak['anonymous'] / 1e6:.0f}"
        lines.append(
            f"| {row['lines']:,} | {row['stage']} | {row['store'] / 1e6:.0f} | {anonymous} "
            f"| {peak['file'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app()
