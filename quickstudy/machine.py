"""The machine and its processes: usable cores, what a speed depends on, processor time, memory.

Standard library only. What is read of processes comes from Linux's /proc.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROC = Path("/proc")
VECTOR_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
PACKAGES = ("ctranslate2", "torch", "sentencepiece", "quickstudy")


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(packages: Sequence[str] = ()) -> dict[str, str | int | float]:
    """What a speed depends on: processor, cores, vector instructions, load, versions.

    `packages` names further distributions whose versions matter.
    """
    flags = set(_cpuinfo("flags").split())
    return {
        "processor": _cpuinfo("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count() or 1,
        "instructions": " ".join(name for name in VECTOR_INSTRUCTIONS if name in flags),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions_of(*PACKAGES, *packages),
    }


def versions_of(*distributions: str) -> dict[str, str]:
    """Installed versions by distribution name; those not installed are left out."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _cpuinfo(key: str) -> str:
    """First value of a key in /proc/cpuinfo; empty where there is none."""
    try:
        lines = (PROC / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def children(pid: int) -> list[int]:
    """Running processes that a process has started. Raises OSError if it has ended."""
    pids = []
    for task in (PROC / str(pid) / "task").iterdir():
        pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def process_tree(pid: int) -> list[int]:
    """A process and its running descendants."""
    tree, pending = [], [pid]
    while pending:
        tree.append(pending.pop())
        try:
            pending += children(tree[-1])
        except OSError:
            continue  # it has ended meanwhile
    return tree


def command_line(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, user and system, in clock ticks. Raises OSError."""
    return sum(_cpu_ticks(pid)[:2]) / os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants, including those that have ended."""
    ticks = 0
    for process in process_tree(pid):
        try:
            ticks += sum(_cpu_ticks(process))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(pid: int) -> list[int]:
    """User and system ticks of a process, then those of its children that it has waited for."""
    stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    # The second field, the program's name, may contain spaces and parentheses.
    return [int(ticks) for ticks in stat.rpartition(")")[2].split()[11:15]]


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Memory of a process by a field of /proc/PID/status: resident by default, VmHWM its peak,
    RssAnon and RssFile its parts. Raises OSError."""
    for line in (PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/{pid}/status has no {field}")


def tree_memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Memory of a process and its running descendants together."""
    total = 0
    for process in process_tree(pid):
        try:
            total += memory_bytes(process, field)
        except OSError:
            continue
    return total
