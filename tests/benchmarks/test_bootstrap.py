"""Sentence statistics and paired bootstrap: sacreBLEU's, from a few integers a sentence."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu

from benchmarks.bootstrap import (
    bleu_of,
    pack,
    paired_bootstrap,
    statistics_of,
    unpack,
)
from benchmarks.quality import compare

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


def test_one_seed_gives_sacrebleu_s_own_p() -> None:
    expected = compare(("bad", BAD), [("good", GOOD)], REFERENCES)[0]
    found = paired_bootstrap([statistics_of(GOOD, REFERENCES)], [statistics_of(BAD, REFERENCES)])
    assert found.difference == pytest.approx(expected.difference, abs=0.01)
    assert found.p_value == pytest.approx(expected.p_value, abs=1e-9)


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
