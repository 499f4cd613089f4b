"""How fast systems are: throughput by batch and threads, latency, loading, memory, ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.bench.results import Cost, Figure, Latency, Ratio, Speed
from benchmarks.bench.rounds import Turns, figure, ratio, take_turns, tidy
from benchmarks.bench.texts import TextSample
from benchmarks.buckets import BUCKETS
from benchmarks.systems.base import WHOLE, System
from benchmarks.systems.process import Running, SystemFailed, all_running

Measured = dict[tuple[int, int], dict[str, Turns]]
"""Turns of every system by (threads, batch size)."""


@dataclass(frozen=True)
class Samples:
    """What is timed: `alone` one sentence at a time, `batched` in batches, `whole` as one file."""

    text: str
    alone: TextSample
    batched: TextSample
    whole: TextSample

    def of(self, batch_size: int) -> TextSample:
        if batch_size == WHOLE:
            return self.whole
        return self.alone if batch_size == 1 else self.batched


@dataclass
class Speeds:
    """Rows of the results, and each system's translations of the batched sample, which say how
    much it had to compute."""

    speed: list[Speed] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    outputs: dict[str, list[str]] = field(default_factory=dict)


def measure_speed(
    systems: Sequence[System],
    samples: Samples,
    cells: Mapping[int, Sequence[int]],
    rounds: int,
    seconds: float | None,
    main: str,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> Speeds:
    """Time all systems, in turns, for every number of threads and batch size of `cells`, each of
    which takes about `seconds` at most if three rounds fit in there."""
    found = Speeds()
    for threads, batch_sizes in cells.items():
        with all_running(systems, threads, failed) as running:
            for one in running:
                if one.info.name not in found.outputs:
                    _keep_outputs(found, one, samples, failed)
            for batch_size in batch_sizes:
                sample = samples.of(batch_size)
                turns = take_turns(running, sample.sentences, batch_size, rounds, failed, seconds)
                _add(found, turns, samples, threads, batch_size, main)
                say(_line(turns, threads, batch_size))
            found.cost += [_cost(one) for one in running if one.info.name not in failed]
    return found


def _keep_outputs(
    found: Speeds, running: Running, samples: Samples, failed: dict[str, str]
) -> None:
    try:
        outputs = running.translate(samples.batched.sentences, 32)
    except SystemFailed as error:
        failed[running.info.name] = str(error)
    else:
        found.outputs[running.info.name] = outputs


def _line(turns: dict[str, Turns], threads: int, batch_size: int) -> str:
    speeds = ", ".join(
        f"{name} {np.median(one.sentences_per_second):.0f}" for name, one in turns.items()
    )
    what = f"batch {batch_size}" if batch_size else "whole file"
    return f"{threads} thread(s), {what}, sentences/s: {speeds}"


def _cost(running: Running) -> Cost:
    loaded = running.loaded
    return Cost(
        system=running.info.name,
        threads=running.threads,
        load_seconds=tidy(loaded.seconds),
        bytes_before=loaded.bytes_before,
        bytes_loaded=loaded.bytes_after,
        bytes_peak=running.peak_bytes(),
    )


def _add(
    found: Speeds,
    turns: dict[str, Turns],
    samples: Samples,
    threads: int,
    batch_size: int,
    main: str,
) -> None:
    sample = samples.of(batch_size)
    for name, one in turns.items():
        found.speed.append(_speed(name, one, samples.text, sample, threads, batch_size))
        if batch_size == 1:
            found.latency += latencies(name, one.calls, sample, threads)
    if main not in turns:
        return
    fast = turns[main].sentences_per_second
    found.ratios += [
        Ratio(
            system=main,
            against=name,
            threads=threads,
            batch_size=batch_size,
            times=ratio(fast, one.sentences_per_second),
        )
        for name, one in turns.items()
        if name != main
    ]


def _speed(
    name: str, turns: Turns, text: str, sample: TextSample, threads: int, batch_size: int
) -> Speed:
    rate = figure(turns.sentences_per_second)
    cpu = float(np.median(turns.cpu_seconds_per_sentence))
    return Speed(
        system=name,
        text=text,
        threads=threads,
        batch_size=batch_size,
        sentences_per_second=rate,
        source_tokens_per_second=tidy(rate.median * sample.tokens_per_sentence),
        source_words_per_second=tidy(rate.median * sample.words_per_sentence),
        cpu_seconds_per_million_source_tokens=tidy(cpu / sample.tokens_per_sentence * 1e6),
        cores_used=round(float(np.median(turns.cores_used)), 2),
    )


def latencies(
    name: str, calls: Sequence[Sequence[float]], sample: TextSample, threads: int
) -> list[Latency]:
    """Percentiles of every round's seconds, of all sentences and of each third by length."""
    count = len(sample.sentences)
    found = []
    for third in (None, *range(BUCKETS)):
        inside = np.ones(count, dtype=bool) if third is None else sample.thirds == third
        if not inside.any():
            continue
        rounds = [np.asarray(one).reshape(-1, count)[:, inside].ravel() for one in calls]
        found.append(
            Latency(
                system=name,
                threads=threads,
                third=third,
                sentences=int(inside.sum()),
                mean_source_tokens=tidy(float(sample.lengths[inside].mean())),
                p50_ms=_percentile(rounds, 50),
                p95_ms=_percentile(rounds, 95),
                p99_ms=_percentile(rounds, 99),
            )
        )
    return found


def _percentile(rounds: Sequence[np.ndarray], percent: float) -> Figure:
    return figure([float(np.percentile(one, percent)) * 1000 for one in rounds])
