"""The gate report: when did the student follow the sentence, when the token?

Written after every gated run as `gate.json` and `gate.png`: g over the steps (from the log), and g
of the finished student by source length, by the teacher's entropy and by word frequency.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.atomic import atomic_write
from training.checkpoint import load_checkpoint
from training.data import ParallelDataset
from training.distill.config import GateConfig, HybridObjective, LearnedGateConfig
from training.distill.gate import entropy_of
from training.distill.labels import LabelStore
from training.distill.objectives import build_loss
from training.distill.objectives.base import side_of, target_states
from training.distill.objectives.hybrid import HybridLoss
from training.model import Transformer

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
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    order = np.argsort(data.src.lengths[rows], kind="stable")
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        batch = data.batch(rows[chosen], ("hypothesis",), needed)
        side = side_of(batch, "hypothesis")
        memory, bias = model.encode(batch.src)
        states = target_states(model, side, memory, bias) if per_position else memory[:, 0]
        gates = objective.gates(memory, batch.src, states, side).numpy()
        sizes = side.mask.sum(1).numpy() if per_position else np.ones(len(chosen), dtype=int)
        for place, part in zip(chosen, np.split(gates, np.cumsum(sizes)[:-1]), strict=True):
            found[place] = part
    return found


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
    rows = np.sort(np.random.default_rng(seed).choice(len(data), count, replace=False))
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
    """Mean and spread of g over the steps, from a run's log."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        {"step": line["step"], "mean": line["gate"], "spread": line["gate_spread"]}
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
