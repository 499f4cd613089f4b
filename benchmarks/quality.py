"""Scores with their signatures: sacreBLEU's BLEU and chrF, and paired bootstrap between systems."""

from __future__ import annotations

from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, Result

RESAMPLES = 1000


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
class Comparison:
    """Paired bootstrap resampling (Koehn 2004) of a system against a baseline, in BLEU."""

    system: str
    baseline: str
    difference: float
    p_value: float
    signature: str


def compare(
    baseline: tuple[str, list[str]], systems: list[tuple[str, list[str]]], references: list[str]
) -> list[Comparison]:
    """Each system against the baseline on the same sentences; p is two-sided."""
    if not systems:
        return []
    metrics = {"BLEU": BLEU(references=[references])}
    test = PairedTest([baseline, *systems], metrics, None, "bs", RESAMPLES)
    signatures, results = test()
    first, *rows = (row for row in results["BLEU"] if isinstance(row, Result))
    return [
        Comparison(
            system=name,
            baseline=baseline[0],
            difference=round(row.score - first.score, 2),
            # Of equal outputs sacreBLEU's resampling makes p = 1 / (resamples + 1).
            p_value=_p_value(row) if output != baseline[1] else 1.0,
            signature=str(signatures["BLEU"]),
        )
        for (name, output), row in zip(systems, rows, strict=True)
    ]


def _p_value(row: Result) -> float:
    return 1.0 if row.p_value is None else float(row.p_value)
