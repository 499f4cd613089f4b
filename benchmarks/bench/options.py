"""How much of a plan is measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.bench.comet import Comet
from benchmarks.bench.machine import available
from benchmarks.systems.base import WHOLE

PARTS = ("quality", "speed", "limit", "profile", "growth")
BATCH_SIZES = (1, 8, 32, 64, WHOLE)
ALL_CORES_BATCH_SIZES = (1, 32, WHOLE)


@dataclass(frozen=True)
class Options:
    """How much is measured. Sentences are those of the samples that are timed."""

    rounds: int = 5
    parts: tuple[str, ...] = PARTS
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    threads: tuple[int, ...] = ()
    beams: tuple[int, ...] = (1, 2, 5)
    quick: bool = False
    alone: int = 100
    batched: int = 128
    whole: int = 400
    cell_seconds: float | None = 60.0
    """About as long as all turns at one batch size may take; three rounds are done in any case."""
    peak_seconds: float = 0.5
    profile_seconds: float = 4.0
    scored: int | None = None
    """At most so many sentences of a test set are scored; None for all."""
    comet: Comet | None = None

    @classmethod
    def quickly(cls, parts: tuple[str, ...] = PARTS) -> Options:
        """Everything once, on few sentences: to see that it works, not to be believed."""
        return cls(
            rounds=2,
            parts=parts,
            batch_sizes=(1, 8, WHOLE),
            beams=(1, 2),
            quick=True,
            alone=8,
            batched=16,
            whole=32,
            peak_seconds=0.02,
            profile_seconds=0.3,
            scored=64,
        )

    def cells(self) -> dict[int, tuple[int, ...]]:
        """Batch sizes by threads: all of them on one thread, fewer on all cores."""
        counts = self.threads or tuple(sorted({1, available()}))
        few = tuple(size for size in self.batch_sizes if size in ALL_CORES_BATCH_SIZES)
        return {count: self.batch_sizes if count == 1 else few for count in counts}
