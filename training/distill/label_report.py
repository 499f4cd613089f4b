"""What a label store holds: the store, the token shards and the tokenizer beside it are read, a
shard at a time, and nothing is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU

from training.data.batching import RaggedColumn
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.label_store import MANIFEST, LabelError, LabelStore
from training.distill.teachers.base import LIMIT_STEP
from training.model.decoding import output_limit

BLEU_PAIRS = 2000
SAMPLES = 3


@dataclass(frozen=True)
class PathSummary:
    """The distributions along one path."""

    positions: int
    mean_tail: float
    """Mean probability outside the top k, 0 to 1."""


@dataclass(frozen=True)
class TeacherBleu:
    """sacreBLEU of the hypotheses against the references, detokenised and cased."""

    score: float
    pairs: int
    """Pairs measured: evenly spaced ones of those with a reference."""
    signature: str


@dataclass(frozen=True)
class LabelSample:
    """One row as text; `reference` is None where there is none."""

    id: int
    source: str
    reference: str | None
    hypothesis: str


@dataclass(frozen=True)
class Inspection:
    """What `quickstudy labels inspect` shows. Lengths are in tokens, EOS not counted."""

    folder: str
    pairs: int
    without_reference: int
    shards: int
    bytes: int
    """On disk, checksums and manifest counted."""
    top_k: int
    """0: the whole vocabulary."""
    paths: dict[str, PathSummary]
    mean_hypothesis_length: float
    mean_reference_length: float | None
    length_ratio: float | None
    """Hypothesis by reference, over the pairs that have one; None where none has."""
    cut_share: float | None
    """Share of hypotheses as long as the teacher was allowed; None where its limit is unknown."""
    bleu: TeacherBleu | None
    samples: list[LabelSample]


def store_folder(where: Path) -> Path:
    """The label store in a run's folder, or the folder itself. Raises LabelError without one."""
    for folder in (where, where / "labels"):
        if (folder / MANIFEST).exists():
            return folder
    raise LabelError(f"{where}: no complete label store; run the `label` stage")


def inspect_labels(where: Path, bleu_pairs: int = BLEU_PAIRS, samples: int = SAMPLES) -> Inspection:
    """Look into the store in `where` (a run's folder or the store's own).

    The run's tokens must lie beside the store, as the stages leave them. Raises LabelError where
    they, or the store, are missing or do not fit.
    """
    folder = store_folder(where)
    run = folder.resolve().parent
    shards = sorted((run / "tokens" / "train").glob("*.arrow"))
    if not shards:
        raise LabelError(f"{folder}: no token shards in {run / 'tokens' / 'train'} beside it")
    store = LabelStore(folder)
    data = ParallelDataset(shards, store)
    tokenizer = Tokenizer(run / "tokens" / "tokenizer.model")
    referenced = np.flatnonzero(data.trg.lengths)
    hypotheses, references = store.hypotheses.lengths - 1, data.trg.lengths[referenced] - 1
    reference_length = float(references.mean()) if len(referenced) else None
    return Inspection(
        folder=str(folder),
        pairs=len(store),
        without_reference=len(store) - len(referenced),
        shards=len(shards),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        top_k=store.top_k,
        paths={path: _path_summary(store.tails(path)) for path in store.paths},
        mean_hypothesis_length=float(hypotheses.mean()),
        mean_reference_length=reference_length,
        length_ratio=hypotheses[referenced].mean() / reference_length if reference_length else None,
        cut_share=_cut_share(data.src.lengths, hypotheses, _teacher_max_length(run)),
        bleu=_bleu(data, _spread(referenced, bleu_pairs), tokenizer),
        samples=_samples(data, _spread(np.arange(len(store)), samples), tokenizer),
    )


def _path_summary(tails: RaggedColumn) -> PathSummary:
    return PathSummary(positions=tails.total, mean_tail=tails.mean)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]


def _teacher_max_length(run: Path) -> int | None:
    """`max_length` of the teacher that the run trained; None where it is not there any more."""
    about = run / "teacher" / "checkpoint" / "checkpoint.json"
    if not about.exists():
        return None
    return int(json.loads(about.read_text())["model"]["max_length"])


def _cut_share(src: np.ndarray, hypotheses: np.ndarray, max_length: int | None) -> float | None:
    """Share of hypotheses that have as many tokens as the teacher may write for their source."""
    if max_length is None:
        return None
    lengths, place = np.unique(src, return_inverse=True)
    limits = np.array([output_limit(int(length), max_length) for length in lengths])
    rounded = -(-limits // LIMIT_STEP) * LIMIT_STEP
    return float((hypotheses >= np.minimum(rounded, max_length - 2)[place]).mean())


def _bleu(data: ParallelDataset, rows: np.ndarray, tokenizer: Tokenizer) -> TeacherBleu | None:
    if not len(rows):
        return None
    metric = BLEU()
    hypotheses = _texts(data.hypotheses, rows, tokenizer)
    references = _texts(data.trg, rows, tokenizer)
    score = metric.corpus_score(hypotheses, [references]).score
    return TeacherBleu(round(score, 2), len(rows), str(metric.get_signature()))


def _texts(column: RaggedColumn, rows: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    return tokenizer.decode([column[row].tolist() for row in rows])


def _samples(data: ParallelDataset, rows: np.ndarray, tokenizer: Tokenizer) -> list[LabelSample]:
    texts = (_texts(column, rows, tokenizer) for column in (data.src, data.trg, data.hypotheses))
    return [
        LabelSample(int(number), source, reference if len(data.trg[row]) else None, hypothesis)
        for row, number, source, reference, hypothesis in zip(
            rows, data.ids[rows], *texts, strict=True
        )
    ]


# --- as text -----------------------------------------------------------------------------------


def as_json(inspection: Inspection) -> str:
    """The inspection as JSON, its fields those of `Inspection`."""
    return json.dumps(asdict(inspection), indent=2, ensure_ascii=False)


def render(inspection: Inspection) -> str:
    """The inspection as plain text."""
    lines = _summary(inspection)
    width = max(len(name) for name, _ in lines)
    shown = [f"{name.ljust(width)}  {value}" for name, value in lines]
    for sample in inspection.samples:
        shown += ["", f"pair {sample.id:,}", f"  source      {sample.source}"]
        shown.append(f"  reference   {sample.reference or '(none)'}")
        shown.append(f"  hypothesis  {sample.hypothesis}")
    return "\n".join(shown)


def _summary(inspection: Inspection) -> list[tuple[str, str]]:
    alone = (
        f", {inspection.without_reference:,} without a reference"
        if inspection.without_reference
        else ""
    )
    per_pair = inspection.bytes / max(inspection.pairs, 1)
    size = f"{inspection.bytes / 1e6:,.1f} MB, {per_pair:,.0f} bytes a pair"
    lines: list[tuple[str, Any]] = [
        ("store", inspection.folder),
        ("pairs", f"{inspection.pairs:,}{alone}"),
        ("shards", f"{inspection.shards:,}, {size}"),
        ("top k", inspection.top_k or "the whole vocabulary"),
    ]
    for name, path in inspection.paths.items():
        text = f"{path.positions:,} positions, mean tail mass {path.mean_tail:.4f}"
        lines.append((f"along {name}", text))
    lines.append(
        ("hypothesis length", f"{inspection.mean_hypothesis_length:.1f} tokens{_ratio(inspection)}")
    )
    cut = "unknown" if inspection.cut_share is None else f"{inspection.cut_share:.2%} of hypotheses"
    lines.append(("at the length limit", cut))
    if inspection.bleu is not None:
        bleu = inspection.bleu
        lines.append(("BLEU of the teacher", f"{bleu.score:.2f} on {bleu.pairs:,} training pairs"))
        lines.append(("", bleu.signature))
    return [(name, str(value)) for name, value in lines]


def _ratio(inspection: Inspection) -> str:
    if inspection.length_ratio is None:
        return ""
    reference = f"references {inspection.mean_reference_length:.1f}"
    return f", {reference}, ratio {inspection.length_ratio:.3f} where there is one"
