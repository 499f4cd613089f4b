"""Scores with their signatures: sacreBLEU's BLEU and chrF, and paired bootstrap between systems."""

from __future__ import annotations

from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from export.bootstrap import paired_bootstrap, signature, statistics_of


@dataclass(frozen=True)
class Score:
    """One metric of one system; `signature` holds every setting that it depends on."""

    metric: str
    score: float
    signature: str


def scores(hypotheses: list[str], references: list[str]) -> list[Score]:
    """BLEU and chrF2 of detokenised, cased text against one reference a sentence."""
    found = []
    for name, metric in (("BLEU", BLEU()), ("chrF2", CHRF())):
        result = metric.corpus_score(hypotheses, [references])
        found.append(Score(name, round(result.score, 2), str(metric.get_signature())))
    return found


@dataclass(frozen=True)
class QualityComparison:
    """Paired bootstrap resampling (Koehn 2004) of a system against a baseline, in BLEU."""

    system: str
    baseline: str
    difference: float
    p_value: float
    signature: str


def compare(
    baseline: tuple[str, list[str]], systems: list[tuple[str, list[str]]], references: list[str]
) -> list[QualityComparison]:
    """Each system against the baseline on the same sentences; p is two-sided."""
    name, hypotheses = baseline
    base = statistics_of(hypotheses, references)
    found = []
    for system, output in systems:
        paired = paired_bootstrap([statistics_of(output, references)], [base])
        difference = round(paired.difference, 2)
        found.append(QualityComparison(system, name, difference, paired.p_value, signature()))
    return found
