"""Speed as ratios: systems take turns on the same sentences in one process."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median

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


def ratio(fast: Speed, slow: Speed) -> dict[str, float]:
    """How many times as fast, round by round: median, least and most."""
    found = [a / b for a, b in zip(fast.rounds, slow.rounds, strict=True)]
    return {
        "median": round(median(found), 2),
        "least": round(min(found), 2),
        "most": round(max(found), 2),
    }


def machine() -> dict[str, str | int | float]:
    """What a speed depends on: processor, cores, load, versions."""
    names = ("ctranslate2", "torch", "sentencepiece", "quickstudy")
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version(name) for name in names},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
