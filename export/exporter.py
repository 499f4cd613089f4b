"""From a trained model to a bundle that is proven to translate. Needs torch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import sentencepiece as spm

from export.bundle import Bundle, BundleError, update_metrics, write_bundle
from export.gate import EvalSet, GateResult, check_bundle
from export.manifest import (
    RECIPE_FILE,
    TOKENIZER_FILE,
    BundleInfo,
    Decoding,
    Metric,
)
from export.parity import ScoreParity, check_scores, score_parity
from export.to_ctranslate2 import to_ctranslate2
from export.verify import SAMPLES, check_translates
from export.writers import Lexicon, WriteJob, chosen_writers
from training.export_config import GateLimits
from training.model import Transformer, parameter_count

__all__ = ["export_bundle", "pieces_of", "update_metrics"]


def export_bundle(
    *,
    model: Transformer,
    tokenizer_path: Path,
    recipe_text: str,
    out: Path,
    name: str,
    version: str = "1",
    source_lang: str,
    target_lang: str,
    engines: Sequence[str] = ("ctranslate2-int8",),
    licence: str,
    attribution: str,
    description: str,
    metrics: Iterable[Metric] = (),
    max_input_tokens: int = 128,
    held_out: EvalSet | None = None,
    limits: GateLimits | None = None,
    force: bool = False,
    lexicon: Lexicon | None = None,
) -> Bundle:
    """Write the bundle of a model at `out`; the first of `engines` is its default engine.

    `engines` are names of `export.writers.WRITERS`; `lexicon` is what a shortlist is made from.
    Before the bundle takes its place, the scores of a float32 engine are held against torch, every
    engine has translated, and none is further from torch on `held_out` than `limits` allow (`force`
    publishes it all the same and records it; without `held_out` nothing is compared). Raises
    BundleError, saying what to do; a former bundle then stays as it was.
    """
    writers = chosen_writers(engines)
    info = BundleInfo(
        name=name,
        version=version,
        created=now(),
        quickstudy_version=own_version(),
        description=description,
        source_lang=source_lang,
        target_lang=target_lang,
        engines=tuple(writer.entry for writer in writers),
        default_engine=writers[0].entry.name,
        decoding=_decoding(model, max_input_tokens),
        vocab_size=len(pieces_of(tokenizer_path)),
        parameters=parameter_count(model),
        metrics=tuple(metrics),
        licence=licence,
        attribution=attribution,
    )
    judged = GateResult(held_out, limits or GateLimits(), force) if held_out else None
    return write_engines(model, tokenizer_path, recipe_text, Path(out), info, judged, lexicon)


def write_engines(
    model: Transformer,
    tokenizer_path: Path,
    recipe_text: str,
    out: Path,
    info: BundleInfo,
    judged: GateResult | None,
    lexicon: Lexicon | None = None,
) -> Bundle:
    """Write the engines that `info` names, and all else, as a bundle at `out`.

    Raises as `export_bundle` does.
    """
    model.eval()
    pieces = pieces_of(tokenizer_path)
    check_scores(engine_parity(model, tokenizer_path))

    def fill(draft: Path) -> None:
        shutil.copyfile(tokenizer_path, draft / TOKENIZER_FILE)
        (draft / RECIPE_FILE).write_text(recipe_text, encoding="utf-8")
        job = WriteJob(model, pieces, info, lexicon)
        for writer in chosen_writers([engine.name for engine in info.engines]):
            writer.into(job, draft)

    def judge(draft: Bundle) -> BundleInfo:
        if judged is None:
            return info
        gate = check_bundle(draft, model, judged)
        return info.model_copy(update={"gate": gate})

    return write_bundle(out, info, fill=fill, verify=check_translates, judge=judge)


def pieces_of(tokenizer_path: Path) -> list[str]:
    """The pieces of a SentencePiece model in the order of their ids."""
    if not Path(tokenizer_path).is_file():
        raise BundleError(f"there is no tokenizer at {tokenizer_path}: run the tokenize stage")
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    return [tokenizer.id_to_piece(index) for index in range(tokenizer.get_piece_size())]


def engine_parity(
    model: Transformer, tokenizer_path: Path, samples: Sequence[str] = SAMPLES
) -> ScoreParity:
    """Log-probabilities of a throw-away float32 engine against torch: each sample given itself."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    pieces = pieces_of(tokenizer_path)
    ids = [tokenizer.encode(sample)[: model.max_length - 1] for sample in samples]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "float32"
        to_ctranslate2(model, pieces, folder, "float32")
        return score_parity(model, pieces, folder, ids, ids)


def _decoding(model: Transformer, max_input_tokens: int) -> Decoding:
    room = model.max_length - 1  # EOS follows the source, BOS comes before the target
    if max_input_tokens > room:
        raise BundleError(
            f"export.max_input_tokens is {max_input_tokens}, but the model has {model.max_length} "
            f"positions: set it to {room} or less"
        )
    return Decoding(max_input_tokens=max_input_tokens, max_output_tokens=room)


def now() -> datetime:
    """This moment, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def own_version() -> str:
    """Quickstudy's version."""
    try:
        return metadata.version("quickstudy")
    except metadata.PackageNotFoundError:
        return "unknown"
