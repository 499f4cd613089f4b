"""Speed as ratios: systems take turns on the same sentences in one process."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")

TranslateOne = Callable[[str], str]


@dataclass(frozen=True)
class Speed:
    """Sentences a second at batch 1, text in, text out: the median of the rounds, and all."""

    system: str
    sentences_per_second: float
    rounds: list[float]


def batch_one(
    systems: dict[str, TranslateOne], sentences: Sequence[str], rounds: int = 5, warm_up: int = 10
) -> list[Speed]:
    """Time every system on every sentence, one at a time, in interleaved rounds (A B A B …)."""
    for translate in systems.values():
        for sentence in sentences[:warm_up]:
            translate(sentence)
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, translate in systems.items():
            start = time.perf_counter()
            for sentence in sentences:
                translate(sentence)
            times[name].append(len(sentences) / (time.perf_counter() - start))
    return [
        Speed(name, round(median(found), 2), [round(value, 2) for value in found])
        for name, found in times.items()
    ]


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, least and most of the rounds."""
    found = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def ratios(fast: Sequence[float], slow: Sequence[float]) -> dict[str, float]:
    """How many times `slow` each round of `fast` is: median, least and most."""
    return spread([a / b for a, b in zip(fast, slow, strict=True)])


def ratio(fast: Speed, slow: Speed) -> dict[str, float]:
    """How many times as fast, round by round: median, least and most."""
    return ratios(fast.rounds, slow.rounds)


def machine(packages: Sequence[str] = ()) -> dict[str, str | int | float]:
    """What a speed depends on: processor, cores, instructions, load, versions.

    `packages` are further ones whose versions count; one that is not installed is left out.
    """
    names = ("ctranslate2", "torch", "sentencepiece", "quickstudy")
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "instructions": " ".join(_instructions()),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in (*names, *packages) if _installed(name)},
    }


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _cpuinfo(key: str) -> str:
    """First value of a key in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _instructions() -> list[str]:
    """The vector instructions that decide speed, of those the processor has."""
    found = set(_cpuinfo("flags").split())
    return [name for name in VECTOR_INSTRUCTIONS if name in found]
