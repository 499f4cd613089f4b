"""Sentence statistics and paired bootstrap: sacreBLEU's, from a few integers a sentence."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, Result

from export.metrics import (
    CHRF_SCORE,
    bleu_of,
    chrf_statistics_of,
    pack,
    paired_bootstrap,
    resampled_differences,
    statistics_of,
    unpack,
)

WORDS = [
    "der",
    "die",
    "das",
    "Hund",
    "Katze",
    "läuft",
    "schläft",
    "über",
    "unter",
    "Wiese",
    "Haus",
    ",",
    "schnell",
]


def text(lines: int, seed: int) -> list[str]:
    chooser = random.Random(seed)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(3, 12))) + "." for _ in range(lines)]


def spoilt(lines: list[str], share: float, seed: int) -> list[str]:
    chooser = random.Random(seed)
    return [
        " ".join(w if chooser.random() > share else chooser.choice(WORDS) for w in line.split())
        for line in lines
    ]


REFERENCES = text(80, 1)
GOOD, BAD = spoilt(REFERENCES, 0.25, 2), spoilt(REFERENCES, 0.3, 3)


def test_chrf_s_statistics_give_sacrebleu_s_differences() -> None:
    good, bad = (sacrebleu.corpus_chrf(lines, [REFERENCES]).score for lines in (GOOD, BAD))
    statistics = [chrf_statistics_of(lines, REFERENCES) for lines in (GOOD, BAD)]
    paired = paired_bootstrap(statistics[:1], statistics[1:], CHRF_SCORE)
    assert paired.difference == pytest.approx(good - bad, abs=1e-9)
    assert paired.resampled.mean() == pytest.approx(good - bad, abs=0.5)


def test_statistics_give_sacrebleu_s_score() -> None:
    expected = sacrebleu.corpus_bleu(GOOD, [REFERENCES]).score
    assert bleu_of(statistics_of(GOOD, REFERENCES)) == pytest.approx(expected, abs=1e-9)


def test_statistics_of_one_sentence_by_hand() -> None:
    found = statistics_of(["der Hund läuft ."], ["der Hund schläft ."])
    assert found.tolist() == [[4, 4, 3, 1, 0, 0]]


def test_packing_keeps_every_number() -> None:
    statistics = statistics_of(GOOD, REFERENCES)
    assert np.array_equal(unpack(pack(statistics)), statistics)
    with pytest.raises(ValueError, match="65,536"):
        pack(np.array([[70_000]]))
    with pytest.raises(ValueError, match="not packed"):
        unpack("6:nonsense!")


def test_resamples_are_sacrebleu_s() -> None:
    """Its p follows from ours: one side of absolute differences instead of two of signed ones."""
    metrics = {"BLEU": BLEU(references=[REFERENCES])}
    named = [("bad", BAD), ("good", GOOD)]
    _, results = PairedTest(named, metrics, None, "bs", 1000)()
    *_, expected = (row for row in results["BLEU"] if isinstance(row, Result))
    system, baseline = ([statistics_of(some, REFERENCES)] for some in (GOOD, BAD))
    differences = np.abs(resampled_differences(system, baseline))
    found = paired_bootstrap(system, baseline)
    beyond = (differences - differences.mean() > abs(found.difference)).sum()
    assert (beyond + 1) / 1001 == pytest.approx(expected.p_value, abs=1e-9)
    assert found.p_value > expected.p_value


def test_p_is_uniform_where_nothing_differs() -> None:
    """Systems that are equally bad: p < 0.5 about half of the time, as it should be."""
    found = [
        paired_bootstrap(
            [statistics_of(spoilt(REFERENCES, 0.3, 2 * seed), REFERENCES)],
            [statistics_of(spoilt(REFERENCES, 0.3, 2 * seed + 1), REFERENCES)],
        ).p_value
        for seed in range(30)
    ]
    assert 7 <= sum(p < 0.5 for p in found) <= 23
    assert sum(p < 0.05 for p in found) <= 5


def test_equal_systems_do_not_differ() -> None:
    one = statistics_of(GOOD, REFERENCES)
    assert paired_bootstrap([one], [one]).p_value == 1.0


def test_seeds_are_averaged() -> None:
    seeds = [statistics_of(spoilt(REFERENCES, 0.1, seed), REFERENCES) for seed in (5, 6, 7)]
    other = [statistics_of(spoilt(REFERENCES, 0.4, seed), REFERENCES) for seed in (8, 9, 10)]
    found = paired_bootstrap(seeds, other)
    means = [sum(map(bleu_of, some)) / 3 for some in (seeds, other)]
    assert found.difference == pytest.approx(means[0] - means[1])
    assert found.p_value < 0.01
    assert found.seeds == 3
