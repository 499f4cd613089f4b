"""Results made by hand, for tests of what is done with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.results import (
    BenchSettings,
    Cost,
    Figure,
    Latency,
    Machine,
    Quality,
    Ratio,
    Results,
    ScoreRecord,
    Speed,
    TextRecord,
)
from benchmarks.speed import figure
from benchmarks.systems.base import SystemInfo
from export.metrics import bleu_of, pack, statistics_of

REFERENCES = [f"Der Mann fährt am Tag {n} mit dem Rad durch die Stadt." for n in range(40)]
GOOD = [line.replace("Rad", "Auto") if n % 8 == 0 else line for n, line in enumerate(REFERENCES)]
BAD = [line.replace("Mann fährt", "Hund geht") for line in REFERENCES]
STUDENT, TEACHER, PEER = "student ctranslate2-int8", "teacher torch beam 5", "bergamot"


def machine(**changed: Any) -> Machine:
    fields: dict[str, Any] = {
        "processor": "Some CPU",
        "cores": 2,
        "instructions": "avx2",
        "memory_bytes": 2**34,
        "system": "Linux x86_64",
        "python": "3.11.2",
        "versions": {"torch": "2.13.0"},
        "load_before": 0.1,
        "load_after": 1.0,
    }
    return Machine(**{**fields, **changed})


def system(name: str, role: Any, engine: str, beam: int, target: str = "de") -> SystemInfo:
    return SystemInfo(
        name=name,
        role=role,
        engine=engine,
        precision="float32",
        beam_size=beam,
        source="en",
        target=target,
        parameters=5_800_000,
        bytes=6_300_000,
    )


def quality(name: str, outputs: list[str], against: str | None = None) -> Quality:
    statistics = statistics_of(outputs, REFERENCES)
    bleu = round(bleu_of(statistics), 2)
    score = ScoreRecord(metric="BLEU", score=bleu, low=bleu - 1, high=bleu + 1, signature="nrefs:1")
    compared = {"bleu_difference": -0.1, "p_value": 0.4, "bleu_share": 0.98}
    return Quality(
        system=name,
        text="toy",
        scores=(score,),
        statistics=pack(np.asarray(statistics)),
        against=against,
        **(compared | {"bleu_share_low": 0.96, "bleu_share_high": 1.0} if against else {}),
    )


def speed(name: str, rounds: list[float], batch_size: int = 1) -> Speed:
    rate = figure(rounds)
    return Speed(
        system=name,
        text="toy",
        threads=1,
        batch_size=batch_size,
        sentences_per_second=rate,
        source_tokens_per_second=rate.median * 10,
        source_words_per_second=rate.median * 8,
        cpu_seconds_per_million_source_tokens=100.0,
        cores_used=1.0,
    )


def latency(name: str, rounds: list[float]) -> Latency:
    one = figure(rounds)
    return Latency(
        system=name,
        threads=1,
        third=None,
        sentences=40,
        mean_source_tokens=10,
        p50_ms=one,
        p95_ms=one,
        p99_ms=one,
    )


def cost(name: str, peak: int) -> Cost:
    return Cost(
        system=name,
        threads=1,
        load_seconds=0.2,
        bytes_before=3 * 10**7,
        bytes_loaded=peak,
        bytes_peak=peak,
    )


def results(**changed: Any) -> Results:
    """A student that is 40 times its teacher, and a peer of another pair."""
    fields: dict[str, Any] = {
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "quickstudy_version": "0.1.0",
        "name": "toy",
        "source": "en",
        "target": "de",
        "main_system": STUDENT,
        "settings": BenchSettings(
            rounds=3, batch_sizes=(1,), threads=(1,), beams=(1,), quick=False
        ),
        "machine": machine(),
        "texts": (
            TextRecord(
                name="toy", sentences=40, source_tokens=400, source_words=320, sha256="ab" * 32
            ),
        ),
        "timed_text": "toy",
        "systems": (
            system(STUDENT, "student", "CTranslate2", 1),
            system(TEACHER, "teacher", "torch", 5),
            system(PEER, "peer", "Bergamot", 1, target="pt"),
        ),
        "quality": (quality(STUDENT, GOOD, TEACHER), quality(TEACHER, REFERENCES)),
        "speed": (
            speed(STUDENT, [400.0, 404.0, 396.0]),
            speed(TEACHER, [10.0, 10.1, 9.9]),
            speed(PEER, [100.0, 101.0, 99.0]),
        ),
        "ratios": (ratio(TEACHER, 40.0), ratio(PEER, 4.0)),
        "latency": (latency(STUDENT, [2.5, 2.5, 2.6]),),
        "cost": (cost(STUDENT, 80_000_000),),
    }
    return Results(**{**fields, **changed})


def ratio(against: str, times: float, batch_size: int = 1) -> Ratio:
    around = Figure(median=times, low=times, high=times, rounds=(times,))
    return Ratio(system=STUDENT, against=against, threads=1, batch_size=batch_size, times=around)
