"""Minimum-Bayes-risk choice: of many translations, the one most like all the others.

Finkelstein & Freitag 2023, "MBR and QE Finetuning: Training-time Distillation of the Best and Most
Expensive Decoding Methods", teach a student by such a choice among samples; Kumar & Byrne 2004,
"Minimum Bayes-Risk Decoding for Statistical Machine Translation", choose among an n-best list.

Shapes: C candidates of a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

import numpy as np
from sacrebleu.metrics import BLEU

CHARACTERS, BETA = 6, 2
"""chrF2's order of character n-grams, and how much recall counts (Popović 2015, 2016)."""
Utility = Callable[[list[str]], np.ndarray]
"""Candidates → the score [C, C] of each (row) against each (column) as its reference, 0 to 100."""
_BLEU = BLEU(effective_order=True)


def chrf(texts: list[str]) -> np.ndarray:
    """sacreBLEU's sentence chrF2 of each text against each: [C, C], 0 to 100."""
    pieces = ["".join(text.split()) for text in texts]
    precisions, recalls, orders = (np.zeros((len(texts), len(texts))) for _ in range(3))
    for order in range(1, CHARACTERS + 1):
        counts = _counts(pieces, order)
        matched = np.stack([np.minimum(counts, row).sum(1) for row in counts])
        totals = counts.sum(1)
        both = (totals[:, None] > 0) & (totals[None] > 0)
        precisions += np.where(both, matched / np.maximum(totals[:, None], 1), 0.0)
        recalls += np.where(both, matched / np.maximum(totals[None], 1), 0.0)
        orders += both
    precisions, recalls = (part / np.maximum(orders, 1) for part in (precisions, recalls))
    weighed = BETA**2 * precisions + recalls
    score = (1 + BETA**2) * precisions * recalls / np.where(weighed > 0, weighed, 1.0)
    result: np.ndarray = 100 * score
    return result


def _counts(texts: list[str], order: int) -> np.ndarray:
    """How often each text has each n-gram of any of them, [C, n-grams]."""
    counted = [
        Counter(text[start : start + order] for start in range(len(text) - order + 1))
        for text in texts
    ]
    places = {
        gram: place for place, gram in enumerate(dict.fromkeys(g for c in counted for g in c))
    }
    counts = np.zeros((len(texts), len(places)), dtype=np.int64)
    for row, grams in enumerate(counted):
        for gram, count in grams.items():
            counts[row, places[gram]] = count
    return counts


def bleu(texts: list[str]) -> np.ndarray:
    """sacreBLEU's sentence BLEU (effective order) of each text against each: [C, C], 0 to 100."""
    return np.array(
        [[_BLEU.sentence_score(one, [other]).score for other in texts] for one in texts]
    )


UTILITIES: dict[Literal["chrf", "bleu"], Utility] = {"chrf": chrf, "bleu": bleu}


def expected_utility(texts: list[str], weights: np.ndarray, utility: Utility) -> np.ndarray:
    """Mean score of each text against all of them, which weigh so much [C]: → [C], 0 to 100.

    Equal texts are compared once.
    """
    distinct = list(dict.fromkeys(texts))
    places = np.array([distinct.index(text) for text in texts], dtype=np.int64)
    share = np.bincount(places, weights, minlength=len(distinct)) / weights.sum()
    expected: np.ndarray = (utility(distinct) @ share)[places]
    return expected


def ranked(texts: list[str], weights: np.ndarray, utility: Utility) -> list[int]:
    """The distinct texts by falling expected utility: the place of the first of each. Of equal ones
    the first comes first."""
    expected = expected_utility(texts, weights, utility)
    order = np.argsort(-expected, kind="stable")
    firsts = {text: place for place, text in reversed(list(enumerate(texts)))}
    return [int(place) for place in order if firsts[texts[place]] == place]
