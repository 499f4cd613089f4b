"""What a process and its children cost, from Linux's /proc: processor time and memory."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def process_tree(pid: int) -> list[int]:
    """A process and all that descend from it and still run."""
    children: dict[int, list[int]] = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            parent = int(_after_name(folder / "stat")[1])
        except (OSError, IndexError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children, user and system, ended children included."""
    ticks = 0
    for one in process_tree(pid):
        try:
            ticks += sum(int(value) for value in _after_name(PROC / str(one) / "stat")[11:15])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int, peak: bool = False) -> int:
    """Memory in RAM of a process and its children, or the most that each has had."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    return sum(_status_kib(one, wanted) * 1024 for one in process_tree(pid))


def _after_name(stat: Path) -> list[str]:
    """Fields of /proc/PID/stat from the third on; the second, a name, may hold spaces."""
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _status_kib(pid: int, key: str) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
