"""Systems take turns: A B C, A B C, …, so that a disturbance meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.bench.results import Figure
from benchmarks.systems.process import Running, SystemFailed, Timing

RESAMPLES = 2000
SEED = 12345
LEAST_SECONDS = 0.25
"""A turn lasts at least so long: fast systems translate the text several times."""
MOST_REPEATS = 50
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Turns:
    """Sentences a second and processor seconds a sentence of each round of one system, and of
    sentences translated alone each one's seconds, a list a round."""

    sentences_per_second: list[float]
    cpu_seconds_per_sentence: list[float]
    cores_used: list[float]
    calls: list[list[float]]


Say = Callable[[str], None]


def take_turns(
    running: Sequence[Running],
    sentences: Sequence[str],
    batch_size: int,
    rounds: int,
    failed: dict[str, str],
    seconds: float | None = None,
) -> dict[str, Turns]:
    """Time every system on the same sentences, in rounds; the turn before them warms up.

    Where `rounds` would take more than `seconds`, there are fewer of them, but not fewer than
    LEAST_ROUNDS. A system that breaks is left out, and why is added to `failed`.
    """
    repeats: dict[str, int] = {}
    going = [one for one in running if one.info.name not in failed]
    found = {one.info.name: Turns([], [], [], []) for one in going}
    once = 0.0
    number = 0
    while number <= rounds:
        for one in going:
            name = one.info.name
            if name in failed:
                continue
            try:
                repeat = repeats.get(name, 1)
                timing, calls = _turn(one, sentences, batch_size, repeat)
            except SystemFailed as error:
                failed[name] = str(error)
                found.pop(name)
                continue
            if number == 0:
                wanted = int(np.ceil(LEAST_SECONDS / max(timing.seconds, 1e-6)))
                repeats[name] = max(1, min(wanted, MOST_REPEATS))
                once += timing.seconds * repeats[name]
                continue
            count = len(sentences) * repeat
            turns = found[name]
            turns.sentences_per_second.append(count / timing.seconds)
            turns.cpu_seconds_per_sentence.append(timing.cpu_seconds / count)
            turns.cores_used.append(timing.cpu_seconds / timing.seconds)
            turns.calls.append(calls)
        number += 1
        if seconds is not None and once:
            rounds = min(rounds, max(LEAST_ROUNDS, int(seconds / once)))
    return found


def _turn(
    running: Running, sentences: Sequence[str], batch_size: int, repeat: int
) -> tuple[Timing, list[float]]:
    if batch_size == 1:
        return running.time_each(list(sentences) * repeat)
    return running.time(sentences, batch_size, repeat), []


def figure(values: Sequence[float]) -> Figure:
    """Median of rounds with its bootstrap interval of 95 %. Raises ValueError for no values."""
    if not values:
        raise ValueError("no rounds to take a median of")
    low, high = np.quantile(resampled_medians(values), [0.025, 0.975])
    return Figure(
        median=tidy(median(values)),
        low=tidy(float(low)),
        high=tidy(float(high)),
        rounds=tuple(tidy(value) for value in values),
    )


def ratio(fast: Sequence[float], slow: Sequence[float]) -> Figure:
    """How many times `slow` each round of `fast` is. Raises ValueError for unlike lengths."""
    return figure([a / b for a, b in zip(fast, slow, strict=True)])


def resampled_medians(values: Sequence[float]) -> np.ndarray:
    """The median in each of RESAMPLES resamples of the rounds: [RESAMPLES]."""
    rounds = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(SEED).integers(0, len(rounds), (RESAMPLES, len(rounds)))
    medians: np.ndarray = np.median(rounds[drawn], axis=1)
    return medians


def tidy(value: float) -> float:
    """A figure to five significant digits, which is more than any clock here tells."""
    return float(f"{value:.5g}")
