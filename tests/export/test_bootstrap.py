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
    benjamini_hochberg,
    bleu_of,
    chrf_statistics_of,
    hierarchical_bootstrap,
    pack,
    paired_bootstrap,
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
    found = paired_bootstrap(system, baseline)
    differences = np.abs(found.resampled)
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


# --- seeds as well as sentences ----------------------------------------------------------------


def test_sentences_and_seeds_are_drawn_as_by_hand() -> None:
    """Held to the same bootstrap written out, with draws of its own: sentences, then two of three
    seeds, and sacreBLEU's corpus score of what was drawn."""
    pairs = [
        [spoilt(REFERENCES, share, 10 * seed + part) for part, share in enumerate((0.2, 0.3))]
        for seed in (1, 2, 3)
    ]
    chooser, drawn = random.Random(6), []
    for _ in range(100):
        lines = chooser.choices(range(len(REFERENCES)), k=len(REFERENCES))
        differences = []
        for pair in chooser.choices(pairs, k=2):
            one, other = (
                sacrebleu.corpus_bleu([some[n] for n in lines], [[REFERENCES[n] for n in lines]])
                for some in pair
            )
            differences.append(one.score - other.score)
        drawn.append(sum(differences) / 2)
    found = hierarchical_bootstrap(
        *([statistics_of(pair[part], REFERENCES) for pair in pairs] for part in (0, 1))
    )
    assert found.seeds == 3
    assert found.resampled.mean() == pytest.approx(np.mean(drawn), abs=0.6)
    assert found.resampled.std() == pytest.approx(np.std(drawn), rel=0.15)


def test_the_spread_over_seeds_is_that_of_their_mean() -> None:
    """Sentences that are all alike leave the seeds: s / √3, with s the sample deviation."""
    runs = [np.array([[10, 10, *(n - order for order in range(4))]] * 20) for n in (3, 4, 9)]
    base = np.array([[10, 10, 4, 3, 2, 1]] * 20)
    found = hierarchical_bootstrap(runs, [base] * 3)
    differences = [bleu_of(one) - bleu_of(base) for one in runs]
    assert found.difference == pytest.approx(np.mean(differences))
    assert found.resampled.std() == pytest.approx(np.std(differences, ddof=1) / 3**0.5, rel=0.1)
    assert paired_bootstrap(runs, [base] * 3).p_value < 0.002 < found.p_value


def test_seeds_of_both_are_needed() -> None:
    one = statistics_of(GOOD, REFERENCES)
    for system, baseline in (([one], [one]), ([one, one], [one])):
        with pytest.raises(ValueError, match="two or more seeds"):
            hierarchical_bootstrap(system, baseline)


def test_benjamini_and_hochberg_by_hand() -> None:
    """At 0.05 over five, p may be .01 .02 .03 .04 .05 by rank: .039 passes as the fourth and takes
    .032, which its own rank would not pass, with it."""
    assert benjamini_hochberg([0.2, 0.001, 0.039, 0.032, 0.015], 0.05) == 0.039
    assert benjamini_hochberg([0.02, 0.9], 0.05) == 0.02
    assert benjamini_hochberg([0.03, 0.9], 0.05) == 0
    assert benjamini_hochberg([], 0.05) == 0
