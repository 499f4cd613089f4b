"""How well systems translate: sacreBLEU's scores with bootstrap intervals, by bucket, paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from benchmarks.bench.comet import Comet
from benchmarks.bench.results import BucketScore, Quality, ScoreRecord
from benchmarks.bench.rounds import tidy
from benchmarks.bench.texts import TestText
from benchmarks.buckets import BUCKETS
from benchmarks.systems.base import System
from benchmarks.systems.process import Running, SystemFailed, Unavailable
from export.bootstrap import (
    BLEU_SCORE,
    CHRF_SCORE,
    TER_SCORE,
    bleu_of,
    chrf_statistics_of,
    pack,
    resampled_scores,
    statistics_of,
    ter_statistics_of,
    two_sided,
)

INTERVAL = (0.025, 0.975)
BATCH = 0
"""Whole texts at once: how a system batches by itself is a part of it."""


@dataclass(frozen=True)
class Scored:
    """Outputs of one system on one text, scored."""

    system: str
    text: TestText
    outputs: list[str]
    statistics: np.ndarray
    scores: tuple[ScoreRecord, ...]


def translate_texts(
    systems: Sequence[System],
    texts: Sequence[TestText],
    threads: int,
    failed: dict[str, str],
    say: Callable[[str], None],
) -> list[Scored]:
    """Every system on every text, one after another, each in its own process."""
    found = []
    for system in systems:
        name = system.info.name
        if name in failed:
            continue
        try:
            with Running(system, threads) as running:
                for text in texts:
                    outputs = running.translate(text.sources, BATCH)
                    found.append(score(name, text, outputs))
                    say(f"{name}: {text.name}: {found[-1].scores[0].score:.2f} BLEU")
        except (Unavailable, SystemFailed) as error:
            failed[name] = str(error)
            say(f"{name}: left out: {error}")
    return found


def with_comet(scored: Sequence[Scored], comet: Comet) -> list[Scored]:
    """COMET beside the other scores. Raises Unavailable or CometFailed."""
    texts = [(one.text.sources, one.outputs, one.text.references) for one in scored]
    return [
        replace(one, scores=(*one.scores, score))
        for one, score in zip(scored, comet.scores(texts), strict=True)
    ]


def score(system: str, text: TestText, outputs: list[str]) -> Scored:
    """BLEU, chrF2 and TER with their intervals."""
    bleu = statistics_of(outputs, text.references)
    measured = (
        ("BLEU", BLEU(), BLEU_SCORE, bleu),
        ("chrF2", CHRF(), CHRF_SCORE, chrf_statistics_of(outputs, text.references)),
        ("TER", TER(), TER_SCORE, ter_statistics_of(outputs, text.references)),
    )
    scores = []
    for name, metric, summed, statistics in measured:
        # A signature knows the number of references only once something was scored.
        metric.corpus_score(outputs[:1], [text.references[:1]])
        value = summed.score(summed.summable(statistics).sum(0))
        low, high = np.quantile(resampled_scores(statistics, summed), INTERVAL)
        scores.append(
            ScoreRecord(
                metric=name,
                score=round(float(value), 2),
                low=round(float(low), 2),
                high=round(float(high), 2),
                signature=str(metric.get_signature()),
            )
        )
    return Scored(system, text, outputs, bleu, tuple(scores))


def quality_rows(scored: Sequence[Scored], reference: str | None) -> list[Quality]:
    """Rows of the results; `reference` is the system that all others are compared with."""
    by_text = {one.text.name: one for one in scored if one.system == reference}
    return [_row(one, by_text.get(one.text.name)) for one in scored]


def _row(scored: Scored, reference: Scored | None) -> Quality:
    text = scored.text
    row = Quality(
        system=scored.system,
        text=text.name,
        scores=scored.scores,
        buckets=tuple(_buckets(scored)),
        statistics=pack(scored.statistics),
    )
    if reference is None or reference is scored:
        return row
    own, other = bleu_of(scored.statistics), bleu_of(reference.statistics)
    both = [resampled_scores(one.statistics, BLEU_SCORE) for one in (scored, reference)]
    low, high = np.quantile(both[0] / np.maximum(both[1], 1e-9), INTERVAL)
    return row.model_copy(
        update={
            "against": reference.system,
            "bleu_difference": round(own - other, 2),
            "bleu_share": tidy(own / other) if other else None,
            "bleu_share_low": tidy(float(low)) if other else None,
            "bleu_share_high": tidy(float(high)) if other else None,
            "p_value": round(two_sided(both[0] - both[1], own - other), 4),
        }
    )


def _buckets(scored: Scored) -> list[BucketScore]:
    found = []
    for column, by in enumerate(("length", "rarity")):
        for third in range(BUCKETS):
            inside = scored.text.buckets[:, column] == third
            if inside.any():
                bleu = round(bleu_of(scored.statistics[inside]), 2)
                count = int(inside.sum())
                found.append(BucketScore(by=by, third=third, sentences=count, bleu=bleu))
    return found
