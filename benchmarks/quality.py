"""How well systems translate: sacreBLEU's scores with bootstrap intervals, by bucket, paired.

COMET (Rei et al. 2020, 2022) is for users who have a checkpoint of it; nothing is downloaded. A
checkpoint is a pickle, which runs code when it is loaded. So it is loaded only where the user names
it, in a process of its own.

BLEU as papers on Multi30k give it is of text that is lower-cased and tokenised by Moses. It depends
on the tokenizer, so it compares only roughly with a paper's; among systems of our own the cased,
detokenised BLEU counts. Both are printed for checkpoints by

    python -m benchmarks.quality DIR/test_2016_flickr.en.gz DIR/test_2016_flickr.de.gz \\
        teacher=runs/multi30k-en-de/teacher/checkpoint student=runs/NAME/student/checkpoint

which needs sacremoses (the extra `hf`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sacrebleu.metrics import BLEU, CHRF, TER

from benchmarks.plan import BUCKETS, TestText
from benchmarks.results import BucketScore, PairedDifference, Quality, ScoreRecord
from benchmarks.speed import tidy
from benchmarks.systems.base import System, Unavailable
from benchmarks.systems.process import SystemFailed, SystemProcess
from export.ctranslate2 import to_ctranslate2
from export.metrics import (
    BLEU_SCORE,
    CHRF_SCORE,
    SEED,
    TER_SCORE,
    bleu_of,
    chrf_statistics_of,
    pack,
    paired_bootstrap,
    resampled_scores,
    scores,
    statistics_of,
    ter_statistics_of,
    two_sided,
)
from export.runtime.bundle import sha256_of
from quickstudy.atomic import atomic_write
from training.checkpoint import CheckpointError
from training.config.recipe import RecipeError
from training.data.readers import read_lines
from training.data.tokenizer import Tokenizer
from training.distill.teachers import NativeTeacher

INTERVAL = (0.025, 0.975)


# --- scores of systems ----------------------------------------------------------------------------

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
    scored = []
    for system in systems:
        name = system.info.name
        if name in failed:
            continue
        try:
            with SystemProcess(system, threads) as running:
                for text in texts:
                    outputs = running.translate(text.sources, BATCH)
                    scored.append(score(name, text, outputs))
                    say(f"{name}: {text.name}: {scored[-1].scores[0].score:.2f} BLEU")
        except (Unavailable, SystemFailed) as error:
            failed[name] = str(error)
            say(f"{name}: left out: {error}")
    return scored


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


def quality_rows(scored: Sequence[Scored], reference: str | None, shipped: str) -> list[Quality]:
    """Rows of the results; `reference` is the teacher that all others are compared with, `shipped`
    the system that ships."""
    of_teacher, of_shipped = (
        {one.text.name: one for one in scored if one.system == name}
        for name in (reference, shipped)
    )
    return [
        _row(one, of_teacher.get(one.text.name), of_shipped.get(one.text.name)) for one in scored
    ]


def _row(scored: Scored, reference: Scored | None, shipped: Scored | None) -> Quality:
    text = scored.text
    row = Quality(
        system=scored.system,
        text=text.name,
        scores=scored.scores,
        buckets=tuple(_buckets(scored)),
        statistics=pack(scored.statistics),
        length_ratio=length_ratio(scored.statistics),
        less_shipped=(
            None
            if shipped is None or shipped is scored
            else paired_difference(scored.statistics, shipped.statistics)
        ),
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


def length_ratio(statistics: np.ndarray) -> float | None:
    """Tokens of hypotheses over those of references, by BLEU's statistics [S, 6]; None where the
    references have none."""
    hypotheses, references = statistics[:, :2].sum(0)
    return round(float(hypotheses / references), 3) if references else None


def paired_difference(statistics: np.ndarray, others: np.ndarray) -> PairedDifference:
    """BLEU of a system less another's, by their statistics [S, 6] of the same sentences."""
    paired = paired_bootstrap([statistics], [others])
    low, high = np.quantile(paired.resampled, INTERVAL)
    return PairedDifference(
        difference=round(paired.difference, 2),
        low=round(float(low), 2),
        high=round(float(high), 2),
        p_value=round(paired.p_value, 4),
    )


def _buckets(scored: Scored) -> list[BucketScore]:
    buckets = []
    for column, by in enumerate(("length", "rarity")):
        for third in range(BUCKETS):
            inside = scored.text.buckets[:, column] == third
            if inside.any():
                bleu = round(bleu_of(scored.statistics[inside]), 2)
                count = int(inside.sum())
                buckets.append(BucketScore(by=by, third=third, sentences=count, bleu=bleu))
    return buckets


# --- COMET ----------------------------------------------------------------------------------------

WORKER = Path(__file__).with_name("comet_worker.py")
INSTALL = (
    "python -m venv comet && comet/bin/pip install 'unbabel-comet~=2.2', then add "
    "--comet-python comet/bin/python"
)
"""An environment of its own, since it needs an older Transformers than the peers do."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
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
        lines = [json.dumps({"src": [*src], "mt": [*mt], "ref": [*ref]}) for src, mt, ref in texts]
        done = subprocess.run(
            [self.python, str(WORKER), str(self.checkpoint)],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **OFFLINE},
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if answers and "missing" in answers[0]:
            raise Unavailable(f"{self.python} has no COMET ({answers[0]['missing']}): {INSTALL}")
        if done.returncode or len(answers) != 1 + len(lines):
            words = " ".join(done.stderr.strip().splitlines()[-3:])
            raise CometFailed(f"COMET ended with {done.returncode}: {words}")
        texts_scores = tuple(tuple(answer["scores"]) for answer in answers[1:])
        return CometScores(self._signature(answers[0]["version"]), texts_scores)

    def _signature(self, version: str) -> str:
        digest = sha256_of(self.checkpoint)[:16]
        return f"unbabel-comet:{version}|model:{self.name}|sha256:{digest}|x100"


@dataclass(frozen=True)
class CometScores:
    """Scores of the sentences of each text, and what they depend on."""

    signature: str
    texts: tuple[tuple[float, ...], ...]

    def __iter__(self) -> Iterator[ScoreRecord]:
        """The mean of each text, with its bootstrap interval of 95 % over sentences."""
        for sentence_scores in self.texts:
            values = PERCENT * np.array(sentence_scores)
            drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
            low, high = np.quantile(values[drawn].mean(1), INTERVAL)
            yield ScoreRecord(
                metric="COMET",
                score=round(float(values.mean()), 2),
                low=round(float(low), 2),
                high=round(float(high), 2),
                signature=self.signature,
            )


# --- BLEU as papers give it -----------------------------------------------------------------------


class MosesText:
    """Text lower-cased, punctuation normalised, words parted, as Multi30k's `lc.norm.tok`."""

    def __init__(self, language: str) -> None:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer

        self._normalise = MosesPunctNormalizer(language).normalize
        self._tokenise = MosesTokenizer(language).tokenize

    def __call__(self, text: str) -> str:
        normal = self._normalise(text.lower())
        return str(self._tokenise(normal, escape=False, return_str=True))


def tokenised_bleu(hypotheses: list[str], references: list[str], language: str) -> dict[str, Any]:
    """BLEU of detokenised text after Moses' normaliser and tokenizer, with its signature."""
    moses = MosesText(language)
    metric = BLEU(tokenize="none", force=True)
    bleu = metric.corpus_score([*map(moses, hypotheses)], [[*map(moses, references)]])
    return {
        "score": round(bleu.score, 2),
        "signature": f"case:lc|tok:sacremoses-{version('sacremoses')}|{metric.get_signature()}",
    }


def translate_lines(checkpoint: Path, sources: list[str], beam_size: int) -> list[str]:
    """Translations of lines by a checkpoint, in float32. Raises RecipeError where it is none."""
    if not (checkpoint / "tokenizer.model").is_file():
        raise CheckpointError(f"{checkpoint}: not a checkpoint, tokenizer.model is missing")
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    teacher = NativeTeacher(checkpoint, converter=to_ctranslate2)
    n_best = teacher.translate(tokenizer.encode(sources), beam_size, 1, 1.0)
    return tokenizer.decode([hypotheses[0][0] for hypotheses in n_best])


def read_test(source: Path, reference: Path) -> tuple[list[str], list[str]]:
    """Both sides of a test set. Raises RecipeError where they do not match."""
    sides = []
    for path in (source, reference):
        lines = list(read_lines(path))
        if None in lines:
            raise RecipeError(f"{path}: line {lines.index(None) + 1} is not UTF-8")
        sides.append([line for line in lines if line is not None])
    if len(sides[0]) != len(sides[1]):
        raise RecipeError(f"{source} has {len(sides[0])} lines, {reference} {len(sides[1])}")
    return sides[0], sides[1]


def main(
    source: Annotated[Path, typer.Argument(help="Source lines, plain or .gz.")],
    reference: Annotated[Path, typer.Argument(help="Their translations.")],
    systems: Annotated[list[str], typer.Argument(help="NAME=CHECKPOINT, one or more.")],
    beams: Annotated[list[int], typer.Option("--beam", min=1, help="Beam sizes.")] = [1, 5],  # noqa: B006
    language: Annotated[str, typer.Option(help="Target language, for the tokenizer.")] = "de",
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Score checkpoints on a test set: sacreBLEU's BLEU, and BLEU as papers on Multi30k give it."""
    rows = []
    try:
        sources, references = read_test(source, reference)
        for system in systems:
            name, _, folder = system.rpartition("=")
            for beam in beams:
                output = translate_lines(Path(folder), sources, beam)
                (cased, *_), papers = (
                    scores(output, references),
                    tokenised_bleu(output, references, language),
                )
                about = {"system": name or Path(folder).name, "test": source.name, "beam": beam}
                rows.append({**about, "bleu": asdict(cased), "lower_cased_tokenised": papers})
                print(f"{about}: {cased.score} cased, {papers['score']} lower-cased, tokenised")
    except (RecipeError, OSError) as error:
        raise SystemExit(str(error)) from None
    if out is not None:
        atomic_write(out, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    typer.run(main)
