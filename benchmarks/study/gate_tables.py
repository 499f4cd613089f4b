"""What a study's report says of gates: where g ended, and whether that goes with difficulty."""

from __future__ import annotations

from typing import Any

AXES = {
    "source_length": "source length",
    "teacher_entropy": "teacher's entropy",
    "target_rarity": "word rarity",
}


def gate_tables(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none where no row has a gate."""
    gated = [row for row in rows if row.get("gate")]
    return [*_ends(gated), *_controls(gated)] if gated else []


def _ends(gated: list[dict[str, Any]]) -> list[str]:
    lines = [
        "### The gate at the end of each run",
        "",
        "g = 1 follows the sentence-level loss. First and last fifth of the training text by "
        "source length, teacher's entropy and word rarity.",
        "",
        "| student | gate | mean | spread | share of the gradient | length | entropy | rarity "
        "| collapsed |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in gated:
        gate = row["gate"]
        ends = [
            f"{gate[f'by_{axis}'][0]['mean']:.2f} → {gate[f'by_{axis}'][-1]['mean']:.2f}"
            for axis in AXES
        ]
        lines.append(
            f"| {_name(row)} | {_kind(gate['gate'])} | {gate['mean']:.2f} | {gate['spread']:.2f} "
            f"| {_share(gate['steps'])} | {' | '.join(ends)} "
            f"| {'yes' if gate['warning'] else 'no'} |"
        )
    return [*lines, ""]


def _controls(gated: list[dict[str, Any]]) -> list[str]:
    """Tables of rows that were measured with controls, which rows of earlier versions were not."""
    controlled = [row for row in gated if "difficulty" in row["gate"]]
    if not controlled:
        return []
    lines = [
        "### Does g go with difficulty?",
        "",
        "Rank correlations over training sentences, with 95 % of those that shuffled difficulties "
        "give, and p by them; each run by itself. Of the gate, and of what a step by the "
        "sentence-level loss of a sentence does for held-out text, less what one by its "
        "token-level loss does. A gate that learns from its batch follows whichever loss is the "
        "smaller: only the second says which teaches harder sentences better.",
        "",
        "| student | difficulty | ρ of g | shuffled | p | ρ of the advantage | shuffled | p |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in controlled:
        for axis, name in AXES.items():
            found = row["gate"]["difficulty"][axis]
            parts = " | ".join(_control(found[what]) for what in ("gate", "advantage"))
            lines.append(f"| {_name(row)} | {name} | {parts} |")
    return [*lines, ""]


def _control(found: dict[str, float]) -> str:
    bounds = f"{found['low']:+.2f} to {found['high']:+.2f}"
    return f"{found['correlation']:+.2f} | {bounds} | {found['p_value']:.3f}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['text']}.{row['student']}.{row['method']}.{row['seed']}"


def _kind(gate: dict[str, Any]) -> str:
    held_out = gate.get("learns_from") == "held-out"
    return f"{gate['kind']}, from held-out text" if held_out else str(gate["kind"])


def _share(steps: list[dict[str, float]]) -> str:
    """The mean sentence-level share of the gradient over a run, where it was measured."""
    shares = [step["share"] for step in steps if "share" in step]
    return f"{sum(shares) / len(shares):.2f}" if shares else "–"
