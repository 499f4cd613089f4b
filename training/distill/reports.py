"""Reports on distillation: what a label store holds, and what a gate has learned.

The label report reads the store, the token shards and the tokenizer beside it, a shard at a time,
and writes nothing. The gate report is written after every gated run as `gate.json` and `gate.png`:
g over the steps (from the log), and g of the finished student by source length, by the teacher's
entropy and by word frequency.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sacrebleu.metrics import BLEU

from quickstudy.atomic import atomic_write
from training.checkpoint import load_checkpoint
from training.config.losses import GateConfig, HybridObjective, LearnedGateConfig
from training.data.batching import RaggedColumn
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.distill.gates import entropy_of
from training.distill.label_store import MANIFEST, LabelError, LabelStore
from training.distill.losses import build_loss
from training.distill.losses.base import target_of, target_states
from training.distill.losses.hybrid import HybridLoss
from training.distill.teachers.base import LIMIT_STEP
from training.model.decoding import output_limit
from training.model.transformer import Transformer

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


# --- the gate report ---------------------------------------------------------------------------


SAMPLE = 10_000
QUANTILES = 5
COLLAPSE = 0.02


@dataclass(frozen=True)
class Measured:
    """One value a sentence of the sample, or one a target position where the gate is of positions:
    each [units]."""

    gate: np.ndarray
    length: np.ndarray
    """Source tokens of the sentence, EOS counted."""
    entropy: np.ndarray
    """Entropy of the teacher's distribution, nats a position; the tail is one outcome."""
    rarity: np.ndarray
    """−log10 of the relative frequency of the target tokens."""


@torch.inference_mode()
def gates_of(
    model: Transformer, objective: HybridLoss, data: ParallelDataset, rows: np.ndarray
) -> list[np.ndarray]:
    """g of each of the rows: [1] of a sentence, [T] of its positions."""
    per_position = objective.gate.per_position
    needed = objective.needs_distributions if per_position else ()
    gates_by_row: list[np.ndarray] = [np.empty(0)] * len(rows)
    order = np.argsort(data.src.lengths[rows], kind="stable")
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        batch = data.batch(rows[chosen], ("hypothesis",), needed)
        target = target_of(batch, "hypothesis")
        memory, bias = model.encode(batch.src)
        states = target_states(model, target, memory, bias) if per_position else memory[:, 0]
        gates = objective.gates(memory, batch.src, states, target).numpy()
        sizes = target.mask.sum(1).numpy() if per_position else np.ones(len(chosen), dtype=int)
        for place, part in zip(chosen, np.split(gates, np.cumsum(sizes)[:-1]), strict=True):
            gates_by_row[place] = part
    return gates_by_row


def entropies(store: LabelStore, path: str, row: int) -> np.ndarray:
    """Entropy of the teacher at each position of a path of a row, nats: [T]."""
    _, logp, tail = store.distributions(path, np.array([row]))
    return entropy_of(logp, tail).numpy()


def measure(
    model: Transformer,
    objective: HybridLoss,
    data: ParallelDataset,
    store: LabelStore,
    seed: int = 0,
) -> Measured:
    """Measure a sample of at most `SAMPLE` training sentences."""
    count = min(SAMPLE, len(data))
    rows = np.sort(np.random.default_rng(seed).choice(data.rows, count, replace=False))
    targets = [store.hypotheses[row] for row in rows]
    counts = np.bincount(np.concatenate(targets), minlength=model.vocab_size)
    rarity = -np.log10(np.maximum(counts, 1) / counts.sum())
    rarities = [rarity[target] for target in targets]
    teacher = [entropies(store, objective.path, row) for row in rows]
    gates = gates_of(model, objective, data, rows)
    lengths = data.src.lengths[rows]
    if objective.gate.per_position:
        return Measured(
            gate=np.concatenate(gates),
            length=np.repeat(lengths, [len(gate) for gate in gates]),
            entropy=np.concatenate(teacher),
            rarity=np.concatenate(rarities),
        )
    return Measured(
        gate=np.concatenate(gates),
        length=lengths,
        entropy=np.array([values.mean() for values in teacher]),
        rarity=np.array([values.mean() for values in rarities]),
    )


def by_quantile(gate: np.ndarray, value: np.ndarray) -> list[dict[str, float]]:
    """Mean and spread of g in each fifth of `value`; ties may leave fewer, larger groups."""
    edges = np.unique(np.quantile(value, np.linspace(0, 1, QUANTILES + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0]])
    groups = []
    for low, high in pairwise(edges):
        inside = (value >= low) & ((value < high) | (high == edges[-1]))
        if inside.any():
            groups.append(
                {
                    "from": float(low),
                    "to": float(high),
                    "units": int(inside.sum()),
                    "mean": float(gate[inside].mean()),
                    "spread": float(gate[inside].std()),
                }
            )
    return groups


def gate_history(log: Path) -> list[dict[str, float]]:
    """Mean and spread of g over the steps, and the sentence-level share of the gradient where it
    was measured, from a run's log."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    names = {"step": "step", "mean": "gate", "spread": "gate_spread", "share": "gradient_share"}
    return [
        {key: line[name] for key, name in names.items() if name in line}
        for line in lines
        if "gate" in line
    ]


def collapse_warning(measured: Measured, config: GateConfig) -> str | None:
    """What to say of a learned gate that ended at one bound everywhere; None if it did not."""
    if not isinstance(config, LearnedGateConfig):
        return None
    floor = config.floor
    low, high = float(measured.gate.min()), float(measured.gate.max())
    for bound, name in ((floor, "token"), (1 - floor, "sentence")):
        if max(abs(low - bound), abs(high - bound)) < COLLAPSE:
            return (
                f"the gate collapsed: g is {bound:.2f} everywhere, so the student followed the "
                f"{name}-level loss alone; raise gate.prior_weight or gate.entropy_weight"
            )
    return None


def write_gate_report(
    checkpoint: Path, folder: Path, shards: list[Path], labels: Path, config: HybridObjective
) -> dict[str, Any]:
    """Measure the finished student's gate and write `gate.json` and `gate.png` into `folder`."""
    loaded = load_checkpoint(checkpoint)
    objective = build_loss(config, loaded.config.width)
    assert isinstance(objective, HybridLoss)
    objective.load_state_dict(loaded.objective)
    objective.eval()
    objective.progress = 1.0
    store = LabelStore(labels)
    measured = measure(loaded.model, objective, ParallelDataset(shards, store), store)
    report = {
        "gate": config.gate.model_dump(),
        "unit": "position" if objective.gate.per_position else "sentence",
        "units": len(measured.gate),
        "mean": float(measured.gate.mean()),
        "spread": float(measured.gate.std()),
        "smallest": float(measured.gate.min()),
        "largest": float(measured.gate.max()),
        "warning": collapse_warning(measured, config.gate),
        "steps": gate_history(folder / "log.jsonl"),
        "by_source_length": by_quantile(measured.gate, measured.length),
        "by_teacher_entropy": by_quantile(measured.gate, measured.entropy),
        "by_target_rarity": by_quantile(measured.gate, measured.rarity),
    }
    atomic_write(folder / "gate.json", json.dumps(report, indent=2))
    _draw(report, folder / "gate.png")
    return report


def _draw(report: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    steps = report["steps"]
    mean = np.array([point["mean"] for point in steps])
    spread = np.array([point["spread"] for point in steps])
    at = [point["step"] for point in steps]
    axes[0, 0].plot(at, mean, color="#0b6e99")
    axes[0, 0].fill_between(at, mean - spread, mean + spread, color="#0b6e99", alpha=0.2, lw=0)
    axes[0, 0].set(xlabel="optimiser step (band: spread within a batch)")
    panels = [
        (axes[0, 1], "by_source_length", "source tokens"),
        (axes[1, 0], "by_teacher_entropy", "teacher's entropy, nats a position"),
        (axes[1, 1], "by_target_rarity", "rarity of the words, mean −log10 frequency"),
    ]
    for axis, key, label in panels:
        groups = report[key]
        names = [f"{group['from']:.2g} – {group['to']:.2g}" for group in groups]
        heights = [group["mean"] for group in groups]
        errors = [group["spread"] for group in groups]
        axis.bar(names, heights, yerr=errors, color="#d98f2b", ecolor="#555555", capsize=3)
        axis.set(xlabel=label)
    for axis in axes.flat:
        axis.set(ylim=(0, 1), ylabel="g")
        axis.grid(axis="y", alpha=0.3)
    figure.suptitle("Gate: 1 follows the sentence-level loss, 0 the token-level loss")
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=110)
    draft.replace(path)
