"""The gate report: what a hybrid student's gate has learned, and whether that goes with difficulty.

Written after every hybrid run as `gate.json` and `gate.png`: g over the steps (from the log), g of
the finished student by source length, by the teacher's entropy and by word frequency, each held to
a control in which the difficulties are shuffled among the sentences, and beside it what either loss
does for held-out text on the same sentences (`training.distill.gate_controls`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.atomic import atomic_write
from training.checkpoint import load_checkpoint
from training.config.losses import (
    GateConfig,
    HybridObjective,
    LearnedGateConfig,
    learns_from_held_out,
)
from training.data.dataset import ParallelDataset
from training.distill.gate_controls import against_shuffled, gains_of, held_out_of
from training.distill.gates import entropy_of
from training.distill.label_store import LabelStore
from training.distill.losses import build_loss
from training.distill.losses.base import target_of, target_states
from training.distill.losses.hybrid import HybridLoss
from training.model.transformer import Transformer
from training.validation import split_validation

SAMPLE = 10_000
GAIN_SAMPLE = 2000
"""Sentences of the sample whose losses are held to held-out text."""
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
    sentence: np.ndarray
    """Which sentence of the sample each is of, or belongs to."""

    def by_sentence(self, values: np.ndarray) -> np.ndarray:
        """The mean of values [units] in each sentence [sentences]."""
        sums = np.bincount(self.sentence, values)
        means: np.ndarray = sums / np.bincount(self.sentence)
        return means


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


def sampled_rows(data: ParallelDataset, count: int = SAMPLE, seed: int = 0) -> np.ndarray:
    """At most so many rows that are learnt from, by rising number."""
    chosen = np.random.default_rng(seed).choice(data.rows, min(count, len(data)), replace=False)
    return np.sort(chosen)


def measure(
    model: Transformer,
    objective: HybridLoss,
    data: ParallelDataset,
    store: LabelStore,
    rows: np.ndarray,
) -> Measured:
    """Measure g of some training sentences, and how hard they are."""
    targets = [store.hypotheses[row] for row in rows]
    counts = np.bincount(np.concatenate(targets), minlength=model.vocab_size)
    rarity = -np.log10(np.maximum(counts, 1) / counts.sum())
    rarities = [rarity[target] for target in targets]
    teacher = [entropies(store, objective.path, row) for row in rows]
    gates = gates_of(model, objective, data, rows)
    lengths, numbers = data.src.lengths[rows], np.arange(len(rows))
    if objective.gate.per_position:
        sizes = [len(gate) for gate in gates]
        return Measured(
            gate=np.concatenate(gates),
            length=np.repeat(lengths, sizes),
            entropy=np.concatenate(teacher),
            rarity=np.concatenate(rarities),
            sentence=np.repeat(numbers, sizes),
        )
    return Measured(
        gate=np.concatenate(gates),
        length=lengths,
        entropy=np.array([values.mean() for values in teacher]),
        rarity=np.array([values.mean() for values in rarities]),
        sentence=numbers,
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
    checkpoint: Path,
    folder: Path,
    shards: list[Path],
    labels: Path,
    config: HybridObjective,
    validation: Path,
) -> dict[str, Any]:
    """Measure the finished student's gate and write `gate.json` and `gate.png` into `folder`."""
    loaded = load_checkpoint(checkpoint)
    objective = build_loss(config, loaded.config.width)
    assert isinstance(objective, HybridLoss)
    objective.load_state_dict(loaded.objective)
    objective.eval()
    objective.progress = 1.0
    store = LabelStore(labels)
    data = ParallelDataset(shards, store)
    rows = sampled_rows(data)
    measured = measure(loaded.model, objective, data, store, rows)
    # Not what the gate has learnt from.
    held_out = held_out_of(loaded, split_validation(validation, learns_from_held_out(config))[0])
    few = np.linspace(0, len(rows) - 1, min(GAIN_SAMPLE, len(rows))).astype(int)
    gains = gains_of(loaded.model, objective, data, rows[few], held_out)
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
        "gain": {"sentence": float(gains[0].mean()), "token": float(gains[1].mean())},
        "difficulty": _difficulty(measured, gains[0] - gains[1], few),
    }
    atomic_write(folder / "gate.json", json.dumps(report, indent=2))
    _draw(report, folder / "gate.png")
    return report


def _difficulty(measured: Measured, advantage: np.ndarray, few: np.ndarray) -> dict[str, Any]:
    """How g, and the advantage that the sentence-level loss has on held-out text in `few` of the
    sentences, go with each measure of difficulty."""
    gate = measured.by_sentence(measured.gate)
    values = {
        "source_length": measured.length,
        "teacher_entropy": measured.entropy,
        "target_rarity": measured.rarity,
    }
    found = {}
    for name, units in values.items():
        hard = measured.by_sentence(units)
        found[name] = {
            "gate": asdict(against_shuffled(gate, hard)),
            "advantage": asdict(against_shuffled(advantage, hard[few])),
        }
    return found


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
