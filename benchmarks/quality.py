"""How well systems translate: sacreBLEU's scores with bootstrap intervals, by bucket, paired.

COMET of translations (Rei et al. 2020, 2022), for users who have a checkpoint of it.

Nothing is downloaded. A COMET checkpoint is a pickle, which runs code when it is loaded: it is
loaded only where the user names it, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from benchmarks.plan import BUCKETS, TestText
from benchmarks.results import BucketScore, Quality, ScoreRecord
from benchmarks.speed import tidy
from benchmarks.systems.base import System, Unavailable
from benchmarks.systems.process import Running, SystemFailed
from export.metrics import (
    BLEU_SCORE,
    CHRF_SCORE,
    SEED,
    TER_SCORE,
    bleu_of,
    chrf_statistics_of,
    pack,
    resampled_scores,
    statistics_of,
    ter_statistics_of,
    two_sided,
)

WORKER = Path(__file__).with_name("comet_worker.py")
INSTALL = (
    "python -m venv comet && comet/bin/pip install 'unbabel-comet~=2.2', then add "
    "--comet-python comet/bin/python"
)
"""An environment of its own, since it needs an older Transformers than the peers do."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
INTERVAL = (0.025, 0.975)
RESAMPLES = 1000
PERCENT = 100
"""COMET's scores are around 0 to 1; as papers do, we give them times a hundred."""


class CometFailed(RuntimeError):
    """COMET ended without scores; the message has its last words."""


@dataclass(frozen=True)
class Comet:
    """A checkpoint, and the Python that has `unbabel-comet`."""

    checkpoint: Path
    python: str = sys.executable

    @property
    def name(self) -> str:
        """Of the model: its files are NAME/hparams.yaml and NAME/checkpoints/model.ckpt."""
        return self.checkpoint.resolve().parents[1].name

    def scores(
        self, texts: Iterable[tuple[Sequence[str], Sequence[str], Sequence[str]]]
    ) -> CometScores:
        """Scores of each sentence of some (sources, translations, references).

        Raises Unavailable where the package is missing, CometFailed where it breaks.
        """
        orders = [json.dumps({"src": [*src], "mt": [*mt], "ref": [*ref]}) for src, mt, ref in texts]
        done = subprocess.run(
            [self.python, str(WORKER), str(self.checkpoint)],
            input="".join(f"{order}\n" for order in orders),
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **OFFLINE},
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if answers and "missing" in answers[0]:
            raise Unavailable(f"{self.python} has no COMET ({answers[0]['missing']}): {INSTALL}")
        if done.returncode or len(answers) != 1 + len(orders):
            words = " ".join(done.stderr.strip().splitlines()[-3:])
            raise CometFailed(f"COMET ended with {done.returncode}: {words}")
        found = tuple(tuple(one["scores"]) for one in answers[1:])
        return CometScores(self._signature(answers[0]["version"]), found)

    def _signature(self, version: str) -> str:
        with self.checkpoint.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        return f"unbabel-comet:{version}|model:{self.name}|sha256:{digest[:16]}|x100"


@dataclass(frozen=True)
class CometScores:
    """Scores of the sentences of each text, and what they depend on."""

    signature: str
    texts: tuple[tuple[float, ...], ...]

    def __iter__(self) -> Iterator[ScoreRecord]:
        """The mean of each text, with its bootstrap interval of 95 % over sentences."""
        for scores in self.texts:
            values = PERCENT * np.array(scores)
            drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
            low, high = np.quantile(values[drawn].mean(1), INTERVAL)
            yield ScoreRecord(
                metric="COMET",
                score=round(float(values.mean()), 2),
                low=round(float(low), 2),
                high=round(float(high), 2),
                signature=self.signature,
            )


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
