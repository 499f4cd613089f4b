"""How fast systems are: throughput by batch and threads, latency, loading, memory, ratios.

Systems take turns: A B C, A B C, …, so that a disturbance meets all of them alike. The machine is
watched meanwhile: what disturbs it is part of the results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.plan import BUCKETS, TextSample
from benchmarks.results import Cost, Figure, Latency, Machine, Ratio, Speed
from benchmarks.systems.base import WHOLE, System
from benchmarks.systems.process import SystemFailed, SystemProcess, Timing, start_systems
from quickstudy.machine import PROC, describe_machine, usable_cores, versions_of

# --- turns ----------------------------------------------------------------------------------------

RESAMPLES = 2000
SEED = 12345
LEAST_SECONDS = 0.25
"""A turn lasts at least so long: fast systems translate the text several times."""
MOST_REPEATS = 50
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Turns:
    """Sentences a second and processor seconds a sentence of each round of one system, and of
    sentences translated alone each one's seconds, a list a round."""

    sentences_per_second: list[float]
    cpu_seconds_per_sentence: list[float]
    cores_used: list[float]
    calls: list[list[float]]


Say = Callable[[str], None]


def take_turns(
    running: Sequence[SystemProcess],
    sentences: Sequence[str],
    batch_size: int,
    rounds: int,
    failed: dict[str, str],
    seconds: float | None = None,
) -> dict[str, Turns]:
    """Time every system on the same sentences, in rounds; the turn before them warms up.

    Where `rounds` would take more than `seconds`, there are fewer of them, but not fewer than
    LEAST_ROUNDS. A system that breaks is left out, and why is added to `failed`.
    """
    repeats: dict[str, int] = {}
    going = [one for one in running if one.info.name not in failed]
    measured = {one.info.name: Turns([], [], [], []) for one in going}
    once = 0.0
    number = 0
    while number <= rounds:
        for one in going:
            name = one.info.name
            if name in failed:
                continue
            try:
                repeat = repeats.get(name, 1)
                timing, calls = _turn(one, sentences, batch_size, repeat)
            except SystemFailed as error:
                failed[name] = str(error)
                measured.pop(name)
                continue
            if number == 0:
                wanted = int(np.ceil(LEAST_SECONDS / max(timing.seconds, 1e-6)))
                repeats[name] = max(1, min(wanted, MOST_REPEATS))
                once += timing.seconds * repeats[name]
                continue
            count = len(sentences) * repeat
            turns = measured[name]
            turns.sentences_per_second.append(count / timing.seconds)
            turns.cpu_seconds_per_sentence.append(timing.cpu_seconds / count)
            turns.cores_used.append(timing.cpu_seconds / timing.seconds)
            turns.calls.append(calls)
        number += 1
        if seconds is not None and once:
            rounds = min(rounds, max(LEAST_ROUNDS, int(seconds / once)))
    return measured


def _turn(
    running: SystemProcess, sentences: Sequence[str], batch_size: int, repeat: int
) -> tuple[Timing, list[float]]:
    if batch_size == 1:
        return running.time_each(list(sentences) * repeat)
    return running.time(sentences, batch_size, repeat), []


# --- the figures of systems -----------------------------------------------------------------------

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
    speeds = Speeds()
    for threads, batch_sizes in cells.items():
        with start_systems(systems, threads, failed) as running:
            for one in running:
                if one.info.name not in speeds.outputs:
                    _keep_outputs(speeds, one, samples, failed)
            for batch_size in batch_sizes:
                sample = samples.of(batch_size)
                turns = take_turns(running, sample.sentences, batch_size, rounds, failed, seconds)
                _add(speeds, turns, samples, threads, batch_size, main)
                say(_line(turns, threads, batch_size))
            speeds.cost += [_cost(one) for one in running if one.info.name not in failed]
    return speeds


def _keep_outputs(
    speeds: Speeds, running: SystemProcess, samples: Samples, failed: dict[str, str]
) -> None:
    try:
        outputs = running.translate(samples.batched.sentences, 32)
    except SystemFailed as error:
        failed[running.info.name] = str(error)
    else:
        speeds.outputs[running.info.name] = outputs


def _line(turns: dict[str, Turns], threads: int, batch_size: int) -> str:
    speeds = ", ".join(
        f"{name} {np.median(one.sentences_per_second):.0f}" for name, one in turns.items()
    )
    what = f"batch {batch_size}" if batch_size else "whole file"
    return f"{threads} thread(s), {what}, sentences/s: {speeds}"


def _cost(running: SystemProcess) -> Cost:
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
    speeds: Speeds,
    turns: dict[str, Turns],
    samples: Samples,
    threads: int,
    batch_size: int,
    main: str,
) -> None:
    sample = samples.of(batch_size)
    for name, one in turns.items():
        speeds.speed.append(_speed(name, one, samples.text, sample, threads, batch_size))
        if batch_size == 1:
            speeds.latency += latencies(name, one.calls, sample, threads)
    if main not in turns:
        return
    fast = turns[main].sentences_per_second
    speeds.ratios += [
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
    rows = []
    for third in (None, *range(BUCKETS)):
        inside = np.ones(count, dtype=bool) if third is None else sample.thirds == third
        if not inside.any():
            continue
        rounds = [np.asarray(one).reshape(-1, count)[:, inside].ravel() for one in calls]
        rows.append(
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
    return rows


def _percentile(rounds: Sequence[np.ndarray], percent: float) -> Figure:
    return figure([float(np.percentile(one, percent)) * 1000 for one in rounds])


# --- rounds as figures ----------------------------------------------------------------------------


def figure(values: Sequence[float]) -> Figure:
    """Median of rounds with its bootstrap interval of 95 %. Raises ValueError for no values."""
    if not values:
        raise ValueError("no rounds to take a median of")
    low, high = np.quantile(resampled_medians(values), [0.025, 0.975])
    return Figure(
        median=tidy(median(values)),
        low=tidy(float(low)),
        high=tidy(float(high)),
        rounds=tuple(tidy(value) for value in values),
    )


def ratio(fast: Sequence[float], slow: Sequence[float]) -> Figure:
    """How many times `slow` each round of `fast` is. Raises ValueError for unlike lengths."""
    return figure([a / b for a, b in zip(fast, slow, strict=True)])


def resampled_medians(values: Sequence[float]) -> np.ndarray:
    """The median in each of RESAMPLES resamples of the rounds: [RESAMPLES]."""
    rounds = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(SEED).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    medians: np.ndarray = np.median(rounds[drawn], axis=1)
    return medians


def tidy(value: float) -> float:
    """A figure to five significant digits, which is more than any clock here tells."""
    return float(f"{value:.5g}")


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, least and most of the rounds."""
    figures = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in figures.items()}


def ratios(fast: Sequence[float], slow: Sequence[float]) -> dict[str, float]:
    """How many times `slow` each round of `fast` is: median, least and most."""
    return spread([a / b for a, b in zip(fast, slow, strict=True)])


# --- what disturbs a run --------------------------------------------------------------------------

CPU = Path("/sys/devices/system/cpu")
ENVIRONMENT = (
    "CT2_FORCE_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "CT2_USE_MKL",
)
ENGINE_PACKAGES = (
    "ctranslate2",
    "onnxruntime",
    "torch",
    "transformers",
    "sentencepiece",
    "sacrebleu",
)
QUIET_LOAD = 0.5
QUIET_STEAL = 0.01
STEADY = 0.2
"""Rounds whose range is at most this share of their median are steady."""


@dataclass
class MachineWatch:
    """Watches the machine from when it is made until `finish`."""

    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    _ticks: tuple[int, int] | None = field(default_factory=lambda: _steal_and_all())
    _started: float = field(default_factory=time.monotonic)

    def finish(self, figures: Iterable[Figure]) -> Machine:
        """The machine, with what the speeds that were measured say of its noise."""
        about = describe_machine()
        steal = _busy_share(self._ticks, _steal_and_all())
        return Machine(
            processor=str(about["processor"]),
            cores=usable_cores(),
            instructions=str(about["instructions"]),
            threads_per_core=threads_per_core(),
            governor=_read(CPU / "cpu0/cpufreq/scaling_governor"),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=str(about["system"]),
            python=str(about["python"]),
            versions=versions_of(*ENGINE_PACKAGES),
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            load_before=round(self.load_before, 2),
            load_after=round(os.getloadavg()[0], 2),
            steal_share=steal,
            noise=tuple(noise_of(self.load_before, steal, list(figures))),
        )


def noise_of(load: float, steal: float | None, figures: list[Figure]) -> list[str]:
    """What disturbed a run, in words."""
    reasons = []
    if load > QUIET_LOAD:
        reasons.append(f"something else was running: the load was {load:.1f} before the run began")
    if steal is not None and steal > QUIET_STEAL:
        reasons.append(f"another machine on the same host took {steal:.0%} of the processor time")
    unsteady = [one for one in figures if range_of(one) > STEADY]
    if unsteady:
        worst = max(map(range_of, unsteady))
        reasons.append(
            f"rounds of {len(unsteady)} of {len(figures)} speeds differ by more than {STEADY:.0%} "
            f"of their median, the worst by {worst:.0%}"
        )
    return reasons


def range_of(figure: Figure) -> float:
    """Most less least of the rounds, as a share of their median."""
    if not figure.median:
        return 0.0
    return (max(figure.rounds) - min(figure.rounds)) / figure.median


def threads_per_core() -> int | None:
    """Hardware threads that share a core: with two, two `cores` here are less than two."""
    siblings = _read(CPU / "cpu0/topology/thread_siblings_list")
    if siblings is None:
        return None
    count = 0
    for part in siblings.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _steal_and_all() -> tuple[int, int] | None:
    """Ticks of all cores that the host gave to others, and all ticks."""
    line = _read(PROC / "stat")
    if line is None:
        return None
    ticks = [int(value) for value in line.splitlines()[0].split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _busy_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 4)
