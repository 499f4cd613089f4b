"""The machine that a benchmark ran on, and what disturbed it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench.results import Figure, Machine
from benchmarks.speed import machine
from benchmarks.systems.base import versions_of

CPU = Path("/sys/devices/system/cpu")
STAT = Path("/proc/stat")
ENVIRONMENT = (
    "CT2_FORCE_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "CT2_USE_MKL",
)
PACKAGES = ("ctranslate2", "onnxruntime", "torch", "transformers", "sentencepiece", "sacrebleu")
QUIET_LOAD = 0.5
QUIET_STEAL = 0.01
STEADY = 0.2
"""Rounds whose range is at most this share of their median are steady."""


@dataclass
class Watch:
    """Watches the machine from when it is made until `finish`."""

    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    _ticks: tuple[int, int] | None = field(default_factory=lambda: _steal_and_all())
    _started: float = field(default_factory=time.monotonic)

    def finish(self, figures: Iterable[Figure]) -> Machine:
        """The machine, with what the speeds that were measured say of its noise."""
        about = machine()
        steal = _share(self._ticks, _steal_and_all())
        return Machine(
            processor=str(about["processor"]),
            cores=available(),
            instructions=str(about["instructions"]),
            threads_per_core=threads_per_core(),
            governor=_read(CPU / "cpu0/cpufreq/scaling_governor"),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            system=str(about["system"]),
            python=str(about["python"]),
            versions=versions_of(*PACKAGES),
            environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            load_before=round(self.load_before, 2),
            load_after=round(os.getloadavg()[0], 2),
            steal_share=steal,
            noise=tuple(noise_of(self.load_before, steal, list(figures))),
        )


def noise_of(load: float, steal: float | None, figures: list[Figure]) -> list[str]:
    """What disturbed a run, in words."""
    found = []
    if load > QUIET_LOAD:
        found.append(f"something else was running: the load was {load:.1f} before the run began")
    if steal is not None and steal > QUIET_STEAL:
        found.append(f"another machine on the same host took {steal:.0%} of the processor time")
    unsteady = [one for one in figures if range_of(one) > STEADY]
    if unsteady:
        worst = max(map(range_of, unsteady))
        found.append(
            f"rounds of {len(unsteady)} of {len(figures)} speeds differ by more than {STEADY:.0%} "
            f"of their median, the worst by {worst:.0%}"
        )
    return found


def range_of(figure: Figure) -> float:
    """Most less least of the rounds, as a share of their median."""
    if not figure.median:
        return 0.0
    return (max(figure.rounds) - min(figure.rounds)) / figure.median


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    line = _read(STAT)
    if line is None:
        return None
    ticks = [int(value) for value in line.splitlines()[0].split()[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def _share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 4)
