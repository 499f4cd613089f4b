"""Comparisons that a report shows together, and which of them are significant.

Only what several seeds show is called a difference: p then counts seeds as well as sentences, and
of the many comparisons at most a twentieth of those called significant is to be false.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.study.table import Setting, StudyTable, share_seeds
from export.metrics import Paired, benjamini_hochberg

TO_BEAT = ("sentence", "token", "token-hypothesis", "nll")
"""What any other method is to beat, all of them."""
FALSE_SHARE = 0.05
"""Share of the differences called significant that may be false, 0 to 1."""


@dataclass(frozen=True)
class Place:
    """Where methods are compared: on a text, as a student, by a test set and a decoding."""

    text: str
    student: str
    setting: Setting
    study: str = ""


Comparison = tuple[Place, str, str]
"""Where, the method, and the one that it is compared with."""


class Verdict(NamedTuple):
    """How a method did against those of `TO_BEAT` that it is compared with."""

    beaten: list[str]
    level: list[str]
    lost: list[str]
    single: list[str]
    """Compared by one seed, which shows nothing."""

    @property
    def decided(self) -> bool:
        return bool(self.beaten or self.level or self.lost)

    @property
    def beats_all(self) -> bool:
        return bool(self.beaten) and not (self.level or self.lost or self.single)


def comparisons_at(
    table: StudyTable, place: Place, others: Iterable[str]
) -> dict[Comparison, Paired]:
    """Every method of a place against each of `others` that has a seed in common."""
    found = {}
    for method in table.methods(place.text, place.student):
        for other in others:
            rows, baseline = (table.of(place.text, place.student, name) for name in (method, other))
            if method != other and share_seeds(rows, baseline):
                found[place, method, other] = table.compare(rows, baseline, place.setting)
    return found


class Comparisons:
    """Comparisons that are corrected for together: significant are those of several seeds that pass
    Benjamini and Hochberg's procedure at `FALSE_SHARE`."""

    def __init__(self, shown: dict[Comparison, Paired]) -> None:
        self.shown = shown
        # Two methods that are each compared with the other are one comparison.
        pairs = {
            (place, frozenset((method, other))): paired
            for (place, method, other), paired in shown.items()
        }
        several = [paired.p_value for paired in pairs.values() if paired.seeds > 1]
        self.count, self.several = len(pairs), len(several)
        self.threshold = benjamini_hochberg(several, FALSE_SHARE)
        """The largest p that counts."""

    def significant(self, paired: Paired) -> bool:
        """Whether several seeds show a difference, the number of comparisons counted."""
        return paired.seeds > 1 and paired.p_value <= self.threshold

    def others(self, place: Place) -> list[str]:
        """Which of `TO_BEAT` anything is compared with there."""
        there = {other for at, _, other in self.shown if at == place}
        return [other for other in TO_BEAT if other in there]

    def methods(self, place: Place) -> list[str]:
        """What is to beat them: the other methods that are compared with one of them."""
        there = [
            method
            for at, method, other in self.shown
            if at == place and other in TO_BEAT and method not in TO_BEAT
        ]
        return list(dict.fromkeys(there))

    def verdict(self, place: Place, method: str) -> Verdict:
        """How a method did against each of `TO_BEAT`."""
        verdict = Verdict([], [], [], [])
        for other in TO_BEAT:
            paired = self.shown.get((place, method, other))
            if paired is None:
                continue
            if paired.seeds == 1:
                verdict.single.append(other)
            elif not self.significant(paired):
                verdict.level.append(other)
            else:
                (verdict.beaten if paired.difference > 0 else verdict.lost).append(other)
        return verdict

    def cell(self, place: Place, method: str, other: str) -> str:
        """The difference with its p: bold where it is significant, in italics of one seed."""
        paired = self.shown.get((place, method, other))
        if paired is None:
            return "–"
        shown = f"{paired.difference:+.2f} ({paired.p_value:.3f})"
        if paired.seeds == 1:
            return f"*{shown}*"
        return f"**{shown}**" if self.significant(paired) else shown

    def note(self) -> str:
        """What p means here, in a sentence or two."""
        return (
            f"p of several seeds is by a bootstrap of sentences and seeds; {self.several} of "
            f"the {self.count} comparisons have several, and those with "
            f"p ≤ {self.threshold:.3f} count as significant (Benjamini and Hochberg, false "
            f"discovery rate {FALSE_SHARE}). p of one seed, in italics, speaks of the sentences of "
            "that one run alone, so nothing is claimed from it."
        )
