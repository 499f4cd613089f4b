"""What a speed depends on, and rounds in words: median, least and most."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, least and most of the rounds."""
    found = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def ratios(fast: Sequence[float], slow: Sequence[float]) -> dict[str, float]:
    """How many times `slow` each round of `fast` is: median, least and most."""
    return spread([a / b for a, b in zip(fast, slow, strict=True)])


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
