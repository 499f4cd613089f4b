"""What labelling costs: how fast a teacher labels, and the memory of the label store.

    python -m benchmarks.labels speed runs/NAME --out benchmarks/results/label-speed.json
    python -m benchmarks.labels one-pass models/firefox-en-pt text.en.gz
    python -m benchmarks.labels memory --out benchmarks/results/label-memory.json

Run it with nothing else running; `one-pass` counts processor time, so it may share. Memory is
measured on synthetic text with a teacher that answers at once; every case runs in a process of its
own. It needs Linux, whose /proc tells anonymous memory (what must not grow) from mapped file pages
(which the system takes back when it needs them).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
import typer

from export.ctranslate2 import to_ctranslate2
from export.metrics import bleu_of, signature, statistics_of
from export.native import open_engine
from quickstudy.atomic import atomic_write
from quickstudy.machine import describe_machine, memory_bytes
from training.config.model import MarianFolder
from training.config.recipe import LabelsConfig, RecipeError, TokenizerConfig
from training.data.batching import RaggedColumn, clipped, map_table
from training.data.dataset import ParallelDataset
from training.data.files import read_lines
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, train_tokenizer, write_tokens
from training.data.toy import make_toy
from training.distill.label_store import LabelStore
from training.distill.labelling import label_corpus
from training.distill.teachers import NativeTeacher
from training.distill.teachers.base import About, Distributions, GreedyLabel
from training.distill.teachers.marian import MarianTeacher
from training.distributed import thread_count
from training.model.transformer import EOS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _write(report: dict[str, Any], out: Path | None) -> None:
    """Write a report as JSON, to standard output without a file."""
    text = json.dumps(report, indent=2) + "\n"
    if out is None:
        print(text, end="")
    else:
        atomic_write(out, text)


# --- speed --------------------------------------------------------------------------------------

Precision = Literal["int8", "float32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "float32")


@app.command("speed")
def speed_command(
    run: Annotated[Path, typer.Argument(help="Run's folder, or the teacher's checkpoint.")],
    tokens: Annotated[
        Path | None, typer.Option(help="Folder of token shards; default: the run's.")
    ] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Size of the sample.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds; their median is reported.")] = 3,
    beam_size: Annotated[int, typer.Option(min=1)] = 5,
    top_k: Annotated[int, typer.Option(min=0, help="0 keeps the whole vocabulary.")] = 8,
    batch_tokens: Annotated[int, typer.Option(min=64)] = 1024,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Source tokens a second that a teacher labels: translations and distributions apart.

    Takes a run's folder (its teacher's checkpoint and token shards) or both by name.
    """
    inside = run / "teacher" / "checkpoint"
    checkpoint = inside if inside.exists() else run
    shards = sorted((tokens or run / "tokens" / "train").glob("*.arrow"))
    report = measure_speed(checkpoint, shards, sentences, rounds, beam_size, top_k, batch_tokens)
    _write(report, out)


def sample(shards: list[Path], sentences: int) -> tuple[list[list[int]], list[list[int]]]:
    """Evenly spaced pairs of the token shards as ids; a missing reference is an empty list."""
    tables = [map_table(path) for path in shards]
    src, trg = (RaggedColumn([table[side] for table in tables]) for side in ("src", "trg"))
    rows = np.linspace(0, len(src) - 1, min(sentences, len(src))).astype(int)
    return [src[row].tolist() for row in rows], [trg[row].tolist() for row in rows]


def timed(work: Callable[[], Any], rounds: int) -> tuple[list[float], Any]:
    """Seconds of each round after a warm-up, and the result of the last."""
    result = work()  # warms up
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return seconds, result


def _speed_row(src: list[list[int]], seconds: list[float], **about: Any) -> dict[str, Any]:
    tokens = sum(map(len, src))
    rates = [tokens / one for one in seconds]
    return {
        **about,
        "source_tokens_per_second": round(median(rates), 1),
        "sentences_per_second": round(len(src) / median(seconds), 2),
        "rounds": [round(rate, 1) for rate in rates],
    }


def measure_speed(
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
        seconds, n_best = timed(lambda: teacher.translate(src, beam_size, 1, 1.0), rounds)  # noqa: B023
        hypotheses = [translations[0][0] for translations in n_best]
        about: dict[str, Any] = {"task": "translations", "engine": "CTranslate2"}
        rows.append(_speed_row(src, seconds, **about, precision=precision, beam_size=beam_size))
    about = {"task": "distributions", "engine": "torch", "precision": "float32", "top_k": top_k}
    for path, along in (("hypothesis", hypotheses), ("reference", trg)):
        given = [row for row, target in enumerate(along) if target]
        pairs = [src[row] for row in given], [along[row] for row in given]
        if given:
            seconds, _ = timed(lambda: teacher.distributions(*pairs, top_k), rounds)  # noqa: B023
            rows.append(_speed_row(pairs[0], seconds, **about, path=path))
    return {
        "sentences": len(src),
        "source_tokens": sum(map(len, src)),
        "batch_tokens": batch_tokens,
        "threads": {"CTranslate2": thread_count(1), "torch": torch.get_num_threads()},
        "speeds": rows,
        "machine": describe_machine(),
    }


# --- one pass -----------------------------------------------------------------------------------

MAX_LENGTH = 256
"""Of a student: most tokens of either side."""


@app.command("one-pass")
def one_pass_command(
    model: Annotated[Path, typer.Argument(help="Folder of a teacher of kind marian.")],
    source: Annotated[Path, typer.Argument(help="Text to label, a sentence a line; maybe .gz.")],
    reference: Annotated[Path | None, typer.Option(help="Its translation, for BLEU.")] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Size of the sample.")] = 600,
    every: Annotated[int, typer.Option(min=1, help="Take each so-manieth line.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds; their median is reported.")] = 3,
    top_k: Annotated[int, typer.Option(min=1)] = 8,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Greedy labels with distributions: words a CPU second on one thread, and what int8 changes.

    Float32 in torch and int8 in the compiled engine take turns.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    texts = [_lines(path, sentences, every) for path in (source, reference) if path is not None]
    _write(measure_one_pass(model, texts[0], texts[1] if reference else None, rounds, top_k), out)


def _lines(path: Path, count: int, every: int) -> list[str]:
    return [line or "" for line in islice(read_lines(path), 0, count * every, every)]


def measure_one_pass(
    model: Path, texts: list[str], references: list[str] | None, rounds: int, top_k: int
) -> dict[str, Any]:
    """Label the texts by each precision, by turns."""
    config = MarianFolder(path=str(model))
    teachers = {
        precision: MarianTeacher(config, MAX_LENGTH, 1024, True, opener)
        for precision, opener in (("float32", None), ("int8", open_engine))
    }
    reader, writer = _tokenizers(teachers["int8"])
    src = clipped(reader.encode(texts), MAX_LENGTH - 1)
    seconds: dict[str, list[float]] = {precision: [] for precision in teachers}
    labels: dict[str, list[GreedyLabel]] = {}
    for turn in range(rounds + 1):
        for precision, teacher in teachers.items():
            started = time.process_time()
            labels[precision] = teacher.greedy_labels(src, top_k)
            if turn:  # the first warms up
                seconds[precision].append(time.process_time() - started)
    words = sum(len(text.split()) for text in texts)
    rows = [
        {
            "engine": teacher.about.engine,
            "precision": teacher.about.precision,
            "words_per_cpu_second": round(words / median(seconds[precision])),
            "rounds": [round(words / one) for one in seconds[precision]],
            "bleu": references and _bleu(labels[precision], references, writer),
        }
        for precision, teacher in teachers.items()
    ]
    return {
        "sentences": len(texts),
        "words": words,
        "top_k": top_k,
        "threads": 1,
        "load": round(os.getloadavg()[0], 1),
        "speeds": rows,
        "agreement": _agreement(labels["int8"], labels["float32"]),
        "bleu_signature": signature() if references else None,
        "machine": describe_machine(),
    }


def _tokenizers(teacher: MarianTeacher) -> tuple[Tokenizer, Tokenizer]:
    """Of the source and of the target."""
    pretrained = teacher.pretrained
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "source.model", Path(scratch) / "target.model"
        source.write_bytes(pretrained.source_tokenizer or pretrained.tokenizer)
        target.write_bytes(pretrained.tokenizer)
        return Tokenizer(source), Tokenizer(target)


def _bleu(labels: list[GreedyLabel], references: list[str], tokenizer: Tokenizer) -> float:
    texts = tokenizer.decode([ids for [(ids, _)], _ in labels])
    return round(bleu_of(statistics_of(texts, references)), 2)


def _agreement(labels: list[GreedyLabel], exact: list[GreedyLabel]) -> dict[str, float]:
    """Shares of sentences that are the same, and of positions with the same best word up to where
    translations part; how far the best word's log-probability is off there (nats)."""
    same, positions, apart = 0, [], []
    for ([(ids, _)], top), ([(other, _)], exactly) in zip(labels, exact, strict=True):
        alike = np.array([a == b for a, b in zip(ids, other, strict=False)])
        shared = len(alike) if alike.all() else int(alike.argmin())
        same += ids == other
        positions += alike[: shared + 1].tolist()
        apart += np.abs(top.logp[:shared, 0] - exactly.logp[:shared, 0]).tolist()
    return {
        "identical": round(same / len(labels), 4),
        "same_best_word": round(float(np.mean(positions)), 4),
        "logp_off_median": round(float(np.median(apart)), 4),
        "logp_off_99_percent": round(float(np.quantile(apart, 0.99)), 4),
    }


# --- memory -------------------------------------------------------------------------------------

LINES = [10_000, 100_000, 1_000_000]
SHARD_PAIRS = 20_000
TOKENIZER = "tokenizer.model"
VOCABULARY = 6000
BATCH_TOKENS = 8192
SAMPLE_SECONDS = 0.02
CONFIG = LabelsConfig(beam_size=1, top_k=8, paths=["hypothesis"])
StageName = Literal["write", "read"]


@app.command("memory")
def memory_command(
    lines: Annotated[list[int] | None, typer.Option(min=100, help="Sizes of the corpus.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Mean tokens a line, EOS counted.")] = 8,
    out: Annotated[Path | None, typer.Option(help="JSON file; default: standard output.")] = None,
) -> None:
    """Memory of the label store as the corpus grows: writing it, and an epoch of batches."""
    sizes = sorted(lines or LINES)
    cases = [case for size in sizes for case in _memory_cases(size, tokens)]
    report = {
        "tokens_a_line": tokens,
        "top_k": CONFIG.top_k,
        "paths": list(CONFIG.paths),
        "shard_pairs": SHARD_PAIRS,
        "cases": cases,
        "anonymous_bytes_a_pair": {stage: _slope(cases, stage) for stage in ("write", "read")},
        "machine": describe_machine(),
    }
    _write(report, out)
    if out is not None:
        print(memory_table(report))


def _memory_cases(lines: int, tokens: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="quickstudy-memory-") as name:
        folder = Path(name)
        write_random_text(folder, lines, tokens)
        for stage in ("write", "read"):
            command = [sys.executable, "-m", "benchmarks.labels", "memory-case", stage, name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            store = sum(path.stat().st_size for path in (folder / "labels").iterdir())
            yield {"lines": lines, "stage": stage, "store": store, **json.loads(done.stdout)}


def _slope(cases: list[dict[str, Any]], stage: str) -> float | None:
    """Anonymous bytes that each further pair takes, between the two largest sizes."""
    largest = [case for case in cases if case["stage"] == stage][-2:]
    if len(largest) < 2:
        return None
    smaller, larger = largest
    grown = larger["peak"]["anonymous"] - smaller["peak"]["anonymous"]
    return round(grown / (larger["lines"] - smaller["lines"]), 1)


def memory_table(report: dict[str, Any]) -> str:
    """A memory report as a Markdown table, in MB."""
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


def memory() -> dict[str, int]:
    """Bytes of this process in memory: anonymous, and mapped from files."""
    fields = (("anonymous", "RssAnon"), ("file", "RssFile"))
    return {name: memory_bytes(os.getpid(), field) for name, field in fields}


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The peak of each value of `memory` within the block, updated as it runs."""
    peak, ended = memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            for name, value in memory().items():
                peak[name] = max(peak[name], value)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@app.command("memory-case", hidden=True)
def memory_case(stage: StageName, folder: Path) -> None:
    """Measure one stage on the text in FOLDER, in this process, and print it as JSON."""
    shards = sorted((folder / "tokens").glob("*.arrow"))
    before, started = memory(), time.perf_counter()
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


def write_random_text(folder: Path, lines: int, tokens: int) -> None:
    """Write token shards of random sentences, `tokens` long on average (EOS counted), into
    `folder`/tokens, and a tokenizer beside them."""
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


if __name__ == "__main__":
    app()
