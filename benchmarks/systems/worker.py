"""A system in a process of its own that does as it is told; `process.py` is the other side.

Standard input is JSON lines: first the system, as `message.py` writes it, then orders; every order
is answered by one JSON line. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.systems.base import System, Unavailable
from benchmarks.systems.process import from_json
from quickstudy.machine import process_tree, tree_cpu_seconds, tree_memory_bytes


def pin(threads: int) -> None:
    """Keep this process and its children on the last `threads` of its cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def load(system: System, threads: int) -> dict[str, Any]:
    """Load, and translate a first sentence: what a service waits for before it is ready."""
    before, start = tree_memory_bytes(os.getpid()), time.perf_counter()
    system.load(threads)
    system.translate(["A first sentence."], 1)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "bytes_before": before, "bytes": tree_memory_bytes(os.getpid())}


def translate(system: System, sentences: Sequence[str], batch: int, repeat: int) -> dict[str, Any]:
    """Seconds, processor seconds and texts of translating `sentences` `repeat` times."""
    cpu, start, texts = _cpu(), time.perf_counter(), []
    for _ in range(repeat):
        texts = system.translate(sentences, batch)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu_seconds": _cpu() - cpu, "texts": texts}


def each(system: System, sentences: Sequence[str]) -> dict[str, Any]:
    """Seconds of every sentence, translated alone."""
    cpu, calls, last = _cpu(), [], time.perf_counter()
    for sentence in sentences:
        system.translate([sentence], 1)
        now = time.perf_counter()
        calls.append(now - last)
        last = now
    return {"calls": calls, "seconds": sum(calls), "cpu_seconds": _cpu() - cpu}


def _cpu() -> float:
    """Processor seconds so far: finely for this process, in ticks where it has children."""
    if len(process_tree(os.getpid())) > 1:
        return tree_cpu_seconds(os.getpid())
    return time.process_time()


def answer(system: System, order: dict[str, Any]) -> dict[str, Any]:
    """Do what one line asks."""
    match order["do"]:
        case "load":
            return load(system, order["threads"])
        case "translate":
            found = translate(system, order["sentences"], order["batch"], order["repeat"])
            return found if order["texts"] else {**found, "texts": None}
        case "each":
            return each(system, order["sentences"])
        case "memory":
            return {"peak_bytes": tree_memory_bytes(os.getpid(), "VmHWM")}
    raise AssertionError(f"no such order: {order['do']}")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    pin(int(sys.argv[1]))
    system = from_json(sys.stdin.readline())
    try:
        for line in sys.stdin:
            try:
                found = answer(system, json.loads(line))
            except Exception as error:  # the other side decides what it means
                kind = "unavailable" if isinstance(error, Unavailable) else type(error).__name__
                found = {"error": kind, "message": str(error)}
            answers.write(json.dumps(found, ensure_ascii=True) + "\n")
            answers.flush()
    finally:
        system.close()


if __name__ == "__main__":
    main()
