"""BLEU as papers on Multi30k give it (lower-cased, tokenised by Moses), beside sacreBLEU's own.

    python -m benchmarks.tokenised_bleu DIR/test_2016_flickr.en.gz DIR/test_2016_flickr.de.gz \\
        teacher=runs/multi30k-en-de/teacher/checkpoint student=runs/NAME/student/checkpoint

Such a figure depends on the tokenizer, so it compares with a paper's only roughly; among systems of
our own the cased, detokenised one counts. Needs sacremoses (the extra `hf`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import sacrebleu
import typer
from sacremoses import MosesPunctNormalizer, MosesTokenizer

from export.ctranslate2 import to_ctranslate2
from export.metrics import scores
from quickstudy.atomic import atomic_write
from training.checkpoint import CheckpointError
from training.config.recipe import RecipeError
from training.data.readers import read_lines
from training.data.tokenizer import Tokenizer
from training.distill.teachers import NativeTeacher


class MosesText:
    """Text lower-cased, punctuation normalised, words parted, as Multi30k's `lc.norm.tok`."""

    def __init__(self, language: str) -> None:
        self._normalise = MosesPunctNormalizer(language).normalize
        self._tokenise = MosesTokenizer(language).tokenize

    def __call__(self, text: str) -> str:
        normal = self._normalise(text.lower())
        return str(self._tokenise(normal, escape=False, return_str=True))


def tokenised_bleu(hypotheses: list[str], references: list[str], language: str) -> dict[str, Any]:
    """BLEU of detokenised text after Moses' normaliser and tokenizer, with its signature."""
    moses = MosesText(language)
    metric = sacrebleu.BLEU(tokenize="none", force=True)
    found = metric.corpus_score([*map(moses, hypotheses)], [[*map(moses, references)]])
    return {
        "score": round(found.score, 2),
        "signature": f"case:lc|tok:sacremoses-{version('sacremoses')}|{metric.get_signature()}",
    }


def translate(checkpoint: Path, sources: list[str], beam_size: int) -> list[str]:
    """Translations of lines by a checkpoint, in float32. Raises RecipeError where it is none."""
    if not (checkpoint / "tokenizer.model").is_file():
        raise CheckpointError(f"{checkpoint}: not a checkpoint, tokenizer.model is missing")
    tokenizer = Tokenizer(checkpoint / "tokenizer.model")
    teacher = NativeTeacher(checkpoint, converter=to_ctranslate2)
    found = teacher.translate(tokenizer.encode(sources), beam_size, 1, 1.0)
    return tokenizer.decode([hypotheses[0][0] for hypotheses in found])


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
    """Score checkpoints on a test set."""
    rows = []
    try:
        sources, references = read_test(source, reference)
        for system in systems:
            name, _, folder = system.rpartition("=")
            for beam in beams:
                output = translate(Path(folder), sources, beam)
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
