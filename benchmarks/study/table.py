"""Rows of a study: grouped, scored, and two methods compared.

A group is the rows that differ in method and seed alone: one text, one student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.study.config import OWN
from export.metrics import (
    Paired,
    Resampled,
    bleu_of,
    paired_by_seeds,
    paired_by_sentences,
    resample,
    unpack,
)

Row = dict[str, Any]
TEACHER = "teacher"


@dataclass(frozen=True)
class Setting:
    """How a number was measured: test set and beam size (1 is greedy, 0 teacher forcing)."""

    test: str
    beam: int

    @property
    def decoding(self) -> str:
        return {0: "teacher forcing", 1: "greedy"}.get(self.beam, f"beam {self.beam}")

    @property
    def label(self) -> str:
        return f"{self.test}, {self.decoding}"


@dataclass(frozen=True)
class Mean:
    """Of some seeds: mean, sample standard deviation (0 for one seed), and how many."""

    value: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.seeds == 1 else f"{self.value:.2f} ± {self.spread:.2f}"


def mean_of(values: list[float]) -> Mean:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to take a mean of")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Mean(float(np.mean(values)), spread, len(values))


def share_seeds(one: list[Row], other: list[Row]) -> bool:
    """Whether two methods have rows of the same seed, so that they can be compared."""
    return bool({row["seed"] for row in one} & {row["seed"] for row in other})


def budget(row: Row) -> str:
    """What limits a student's training."""
    training = row["training"]
    minutes = "CPU minutes" if training.get("clock") == "cpu" else "minutes"
    units = {"max_steps": "steps", "max_epochs": "epochs", "max_minutes": minutes}
    limits = [f"{training[key]:,g} {unit}" for key, unit in units.items() if training.get(key)]
    return " or ".join(limits)


def group_label(text: str, student: str) -> str:
    """What a group is called."""
    shown = "the recipe's student" if student == OWN else f"student `{student}`"
    return shown if text == OWN else f"{shown} on text `{text}`"


class StudyTable:
    """Rows of one study. Cached statistics and resamples: comparisons read them again and again."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = [row for row in rows if row["method"] != TEACHER]
        self.teachers = [row for row in rows if row["method"] == TEACHER]
        self._statistics: dict[tuple[int, Setting], np.ndarray] = {}
        self._resampled: dict[tuple[int, Setting], Resampled] = {}

    def values(self, field: str) -> list[str]:
        """The distinct values of a field, in the order of the rows."""
        return list(dict.fromkeys(row[field] for row in self.rows))

    def settings(self) -> list[Setting]:
        """Every test set with every beam size, teacher forcing last."""
        tests = self.rows[0]["tests"] if self.rows else {}
        found = [
            Setting(name, int(key.removeprefix("beam")))
            for name, test in tests.items()
            for key in test
            if key.startswith("beam")
        ]
        return sorted(found, key=lambda setting: setting.beam == 0)

    def groups(self) -> list[tuple[str, str]]:
        """(text, student) of every group."""
        return list(dict.fromkeys((row["text"], row["student"]) for row in self.rows))

    def of(self, text: str, student: str, method: str) -> list[Row]:
        """Rows of a method in a group, one a seed."""
        wanted = (text, student, method)
        return [row for row in self.rows if (row["text"], row["student"], row["method"]) == wanted]

    def methods(self, text: str, student: str) -> list[str]:
        """Methods of a group, in the order of the rows."""
        inside = [r["method"] for r in self.rows if (r["text"], r["student"]) == (text, student)]
        return list(dict.fromkeys(inside))

    def sizes(self, text: str) -> dict[str, int]:
        """Parameters of students on a text, fewest first: of those that learnt equally long, by the
        budget that has the most sizes. Of students of one size the first counts."""
        students: dict[str, dict[int, str]] = {}
        for row in self.rows:
            if row["text"] == text:
                students.setdefault(budget(row), {}).setdefault(row["parameters"], row["student"])
        most = max(students.values(), key=len, default={})
        return {student: parameters for parameters, student in sorted(most.items())}

    def statistics(self, row: Row, setting: Setting) -> np.ndarray:
        """BLEU statistics of each sentence, [S, 6]."""
        key = (id(row), setting)
        if key not in self._statistics:
            packed = row["tests"][setting.test][f"beam{setting.beam}"]["statistics"]
            self._statistics[key] = unpack(packed)
        return self._statistics[key]

    def _resample(self, row: Row, setting: Setting, inside: np.ndarray | None) -> Resampled:
        if inside is not None:
            return resample(self.statistics(row, setting)[inside])
        key = (id(row), setting)
        if key not in self._resampled:
            self._resampled[key] = resample(self.statistics(row, setting))
        return self._resampled[key]

    def bleu(self, rows: list[Row], setting: Setting, inside: np.ndarray | None = None) -> Mean:
        """Mean BLEU over seeds, of all sentences or of those `inside` (bool, [S])."""
        statistics = [self.statistics(row, setting) for row in rows]
        return mean_of([bleu_of(one if inside is None else one[inside]) for one in statistics])

    def metric(self, rows: list[Row], setting: Setting, name: str) -> Mean:
        """Mean of a stored score (BLEU, chrF2, accuracy) over seeds."""
        return mean_of([row["tests"][setting.test][f"beam{setting.beam}"][name] for row in rows])

    def compare(
        self,
        rows: list[Row],
        baseline: list[Row],
        setting: Setting,
        inside: np.ndarray | None = None,
    ) -> Paired:
        """Bootstrap of two methods on the seeds that both have: of sentences and seeds, or of
        sentences alone where there is one seed."""
        by_seed = [{row["seed"]: row for row in some} for some in (rows, baseline)]
        common = sorted(by_seed[0].keys() & by_seed[1].keys())
        one, other = (
            [self._resample(some[seed], setting, inside) for seed in common] for some in by_seed
        )
        compare = paired_by_seeds if len(common) > 1 else paired_by_sentences
        return compare(one, other)

    def bucket(self, setting: Setting, column: int, third: int) -> np.ndarray:
        """Which sentences of a test set are in a third: by length (column 0), rarity (1)."""
        buckets = unpack(self.rows[0]["tests"][setting.test]["buckets"])
        inside: np.ndarray = buckets[:, column] == third
        return inside
