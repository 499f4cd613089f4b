"""Faults of a teacher's translations: cut off, repeating, copied, of an odd length or score.

A student copies what it is taught. Where the best translation has a fault, the best of the n-best
without one takes its place; where all have, the row is marked and no student is taught by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.config.labels import LabelFilterConfig
from training.model.decoding import output_limit

FAULTS = ("cut", "repeats", "copy", "length", "score")
LONGEST_UNIT = 4
"""Words of a phrase whose repetition is looked for."""
SHORT = 10
"""Tokens added to both sides before their ratio is taken: short sentences differ more."""


class Labelled(NamedTuple):
    """A translation with what is known of it; ids end with EOS."""

    source: str
    text: str
    src: Sequence[int]
    ids: Sequence[int]
    score: float
    """Its log-probability, nats, EOS counted."""


def repeats(text: str, times: int) -> bool:
    """Whether a phrase of up to four words stands so many times in a row."""
    words = text.split()
    for size in range(1, LONGEST_UNIT + 1):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            if run >= size * (times - 1):
                return True
    return False


def fault_of(one: Labelled, config: LabelFilterConfig, max_length: int | None) -> str | None:
    """The first of `FAULTS` that a translation has, None where it has none. `max_length` is the
    teacher's, None where it is unknown."""
    words = len(one.ids) - 1
    limit = output_limit(len(one.src), 10**6 if max_length is None else max_length - 1)
    ratio = (words + SHORT) / (len(one.src) - 1 + SHORT)
    has = {
        "cut": words >= limit,
        "repeats": repeats(one.text, config.repeats) and not repeats(one.source, config.repeats),
        "copy": one.text == one.source and len(one.source.split()) >= config.copied_words,
        "length": not 1 / config.length_ratio <= ratio <= config.length_ratio,
        "score": config.least_score is not None
        and one.score / max(len(one.ids), 1) < config.least_score,
    }
    return next((fault for fault in FAULTS if has[fault]), None)


def choose(faults: Sequence[str | None]) -> tuple[list[int], int]:
    """The faults of an n-best list, best first → which of it are kept, and the row's mark: 0, the
    number of the fault that the whole row is dropped for, or less than 0 that of the best one where
    another took its place. Numbers are places in `FAULTS`, from 1."""
    sound = [place for place, fault in enumerate(faults) if fault is None]
    if faults[0] is None:
        return sound, 0
    mark = FAULTS.index(faults[0]) + 1
    return (sound, -mark) if sound else ([*range(len(faults))], mark)


def report(marks: np.ndarray) -> dict[str, dict[str, int]]:
    """The marks of all rows → how many were dropped and mended for each fault."""
    return {
        fault: {
            "dropped": int((marks == number).sum()),
            "mended": int((marks == -number).sum()),
        }
        for number, fault in enumerate(FAULTS, start=1)
    }


def render(found: dict[str, dict[str, int]], rows: int) -> str:
    """The report as a table."""
    lines = [f"{'fault':10}{'dropped':>10}{'mended':>10}"]
    lines += [
        f"{fault:10}{counts['dropped']:>10,}{counts['mended']:>10,}"
        for fault, counts in found.items()
    ]
    kept = rows - sum(counts["dropped"] for counts in found.values())
    return "\n".join([*lines, f"{kept:,} of {rows:,} pairs are taught"])
