"""Scores with their signatures: sacreBLEU's BLEU, chrF and TER, and paired bootstrap resampling.

A results file keeps the sufficient statistics of each sentence instead of its text: a few bytes,
from which any corpus score of any subset follows exactly. Systems are compared over several seeds
of each. Shapes: S sentences, R resamples.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

ORDER = 4
RESAMPLES = 1000
SEED = 12345
"""sacreBLEU's default, so that the resamples of one seed of each system are sacreBLEU's."""


def statistics_of(hypotheses: list[str], references: list[str]) -> np.ndarray:
    """BLEU's statistics of each sentence, int64 [S, 6]: lengths of hypothesis and reference in
    tokens, then matched n-grams of order 1 to 4. sacreBLEU's default tokenisation (13a)."""
    found = BLEU()._extract_corpus_statistics(hypotheses, [references])
    return np.array(found, dtype=np.int64).reshape(-1, 2 + 2 * ORDER)[:, : 2 + ORDER]


def bleu_of(statistics: np.ndarray) -> float:
    """Corpus BLEU of sentences given by their statistics [S, 6]."""
    return _score(_with_totals(statistics).sum(0))


def _with_totals(statistics: np.ndarray) -> np.ndarray:
    """[S, 6] → [S, 10]: the n-grams of a hypothesis follow from its length."""
    orders = np.arange(ORDER)
    totals = np.maximum(statistics[:, :1] - orders, 0)
    return np.concatenate([statistics, totals], axis=1)


def _score(sums: np.ndarray) -> float:
    values = [int(value) for value in sums]
    return BLEU.compute_bleu(
        correct=values[2 : 2 + ORDER],
        total=values[2 + ORDER :],
        sys_len=values[0],
        ref_len=values[1],
        smooth_method="exp",
    ).score


def pack(statistics: np.ndarray) -> str:
    """Small integers [S, columns] → text for a JSON file. Raises ValueError beyond 16 bits."""
    if statistics.size and (statistics.min() < 0 or statistics.max() >= 2**16):
        raise ValueError("a sentence of 65,536 tokens or more cannot be packed")
    columns = statistics.T.astype("<u2").tobytes()
    return f"{statistics.shape[1]}:" + base64.b64encode(zlib.compress(columns, 9)).decode()


def unpack(text: str) -> np.ndarray:
    """What `pack` packed: int64 [S, columns]. Raises ValueError where it is not that."""
    width, _, packed = text.partition(":")
    try:
        content = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype="<u2")
        return content.reshape(int(width), -1).T.astype(np.int64)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"not packed sentence statistics: {error}") from None


@dataclass(frozen=True)
class Paired:
    """A system against a baseline: means over the seeds, and a two-sided p."""

    difference: float
    p_value: float
    seeds: int
    resampled: np.ndarray = field(repr=False, compare=False)
    """The difference in each resample, [R]."""


@dataclass(frozen=True)
class Resampled:
    """The score of one run of a system, and in each resample of the sentences, [R]."""

    score: float
    resampled: np.ndarray = field(repr=False, compare=False)


def signature() -> str:
    """The settings of a `Paired`."""
    metric = BLEU(references=[[""]])
    return f"bs:{RESAMPLES}|seed:{SEED}|p:two-sided|{metric.get_signature()}"


@dataclass(frozen=True)
class Summed:
    """A corpus score that follows from sentence statistics: `summable` makes those of each sentence
    [S, n] ones that may be added up, `score` takes the sums [n]."""

    summable: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray], float]


BLEU_SCORE = Summed(_with_totals, _score)
CHRF_SCORE = Summed(
    lambda statistics: statistics,
    lambda sums: CHRF()._compute_score_from_stats([round(value) for value in sums]).score,
)


def chrf_statistics_of(hypotheses: list[str], references: list[str]) -> np.ndarray:
    """chrF2's statistics of each sentence, int64 [S, 18]: of each order of character n-grams those
    of the hypothesis, of the reference, and the matches."""
    found = CHRF()._extract_corpus_statistics(hypotheses, [references])
    return np.array(found, dtype=np.int64)


TER_SCORE = Summed(
    lambda statistics: statistics,
    lambda sums: 100.0 * float(sums[0]) / max(float(sums[1]), 1e-9),
)


def ter_statistics_of(hypotheses: list[str], references: list[str]) -> np.ndarray:
    """TER's statistics of each sentence, [S, 2]: edits, and words of the reference."""
    found = TER()._extract_corpus_statistics(hypotheses, [references])
    return np.array(found, dtype=np.float64)


def paired_bootstrap(
    system: list[np.ndarray], baseline: list[np.ndarray], metric: Summed = BLEU_SCORE
) -> Paired:
    """Paired bootstrap resampling (Koehn 2004) of the mean score over seeds.

    `system` and `baseline` hold the statistics of one seed each ([S, 6] for BLEU), of the same
    sentences; the seeds of the two need not be as many. Every resample draws the same sentences
    for all of them, so p speaks of other sentences, not of other seeds. p: how often a resampled
    difference lies at least as far from their mean, on either side, as the difference itself lies
    from zero. (sacreBLEU's p resamples alike but counts one side of absolute differences: it is
    about half of this.)
    """
    one, other = ([resample(run, metric) for run in runs] for runs in (system, baseline))
    return paired_by_sentences(one, other)


def paired_by_sentences(system: Sequence[Resampled], baseline: Sequence[Resampled]) -> Paired:
    """`paired_bootstrap` of systems that were resampled before."""
    real = float(np.mean([run.score for run in system]) - np.mean([run.score for run in baseline]))
    one, other = (np.mean([run.resampled for run in runs], axis=0) for runs in (system, baseline))
    seeds = min(len(system), len(baseline))
    return Paired(real, two_sided(one - other, real), seeds, one - other)


def hierarchical_bootstrap(
    system: list[np.ndarray], baseline: list[np.ndarray], metric: Summed = BLEU_SCORE
) -> Paired:
    """`paired_bootstrap` that draws seeds as well as sentences: p speaks of other seeds too.

    The i-th of both have the same seed, and a resample draws the same seeds for both. Of n seeds it
    draws n − 1, which makes the variance over few of them come out right (Rao & Wu 1988). Raises
    ValueError for fewer than two seeds or for unlike numbers of them.
    """
    one, other = ([resample(run, metric) for run in runs] for runs in (system, baseline))
    return paired_by_seeds(one, other)


def paired_by_seeds(system: Sequence[Resampled], baseline: Sequence[Resampled]) -> Paired:
    """`hierarchical_bootstrap` of systems that were resampled before."""
    seeds = len(system)
    if seeds < 2 or len(baseline) != seeds:
        raise ValueError(
            f"two or more seeds of both are needed, not {seeds} and {len(baseline)}: train more, "
            "or use paired_bootstrap, whose p speaks of sentences alone"
        )
    pairs = list(zip(system, baseline, strict=True))
    real = float(np.mean([one.score - other.score for one, other in pairs]))
    differences = np.array([one.resampled - other.resampled for one, other in pairs])
    drawn = np.random.default_rng(SEED + 1).integers(seeds, size=(seeds - 1, RESAMPLES))
    resampled = np.take_along_axis(differences, drawn, axis=0).mean(0)
    return Paired(real, two_sided(resampled, real), seeds, resampled)


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> float:
    """The largest p that counts where, of all comparisons called significant, a share of at most
    `rate` is to be false (Benjamini & Hochberg 1995); 0 where none counts."""
    ordered = sorted(p_values)
    passing = [p for rank, p in enumerate(ordered, start=1) if p <= rate * rank / len(ordered)]
    return passing[-1] if passing else 0.0


def two_sided(resampled: np.ndarray, real: float) -> float:
    """How often resampled values [R] lie as far from their mean as the real one from zero."""
    beyond = int((np.abs(resampled - resampled.mean()) >= abs(real)).sum())
    return (beyond + 1) / (len(resampled) + 1)


def resample(statistics: np.ndarray, metric: Summed = BLEU_SCORE) -> Resampled:
    """Score sentences, given by their statistics, as they are and in each resample."""
    real = metric.score(metric.summable(statistics).sum(0))
    return Resampled(float(real), resampled_scores(statistics, metric))


def resampled_scores(statistics: np.ndarray, metric: Summed = BLEU_SCORE) -> np.ndarray:
    """The score of one system in each resample of the sentences, [R]; the resamples are the same
    for every system of as many sentences."""
    sums = _draws(len(statistics)) @ metric.summable(statistics).astype(np.float64)
    return np.array([metric.score(row) for row in sums])


@lru_cache(maxsize=2)
def _draws(size: int) -> np.ndarray:
    """How often each resample drew each sentence, [R, S]."""
    drawn = np.random.default_rng(SEED).choice(size, size=(RESAMPLES, size), replace=True)
    return np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)


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
