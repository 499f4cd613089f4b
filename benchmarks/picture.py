"""The picture of an evaluation: BLEU against sentences a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"teacher": "#7a7a7a", "student": "#0b6e99"}
TICKS = [base * 10**power for power in range(-1, 6) for base in (1, 2, 5)]
MARKERS = {"torch": "o", "CTranslate2": "D"}


def points(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every system with both a BLEU (of the first test set) and a speed."""
    bleu: dict[str, dict[str, Any]] = {}
    for row in report["scores"]:
        label = f"{row['name']}, {row['engine']} {row['precision']}, {row['decoding']}"
        if row["metric"] == "BLEU":
            bleu.setdefault(label, row)
    return [
        {**bleu[row["system"]], "speed": row["sentences_per_second"], "label": row["system"]}
        for row in report["speed"]["systems"]
        if row["system"] in bleu
    ]


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a PNG; speed is on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    found = points(report)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for index, point in enumerate(found):
        axis.plot(
            point["speed"],
            point["score"],
            MARKERS.get(point["engine"], "s"),
            color=COLOURS.get(point["name"], "#d98f2b"),
            markersize=11,
        )
        axis.annotate(
            f"{point['name']}, {point['engine']} {point['precision']}\n"
            f"{point['score']:.1f} BLEU, {point['speed']:.0f}/s",
            (point["speed"], point["score"]),
            # Above and below by turns: neighbours are often close.
            xytext=(0, 12 if index % 2 == 0 else -34),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    speeds = [point["speed"] for point in found]
    scores = [point["score"] for point in found]
    room = max(max(scores) - min(scores), 2.0)
    axis.set(
        xscale="log",
        xlim=(min(speeds) / 2, max(speeds) * 2),
        ylim=(min(scores) - room, max(scores) + room),
        xlabel="sentences a second, one at a time, one thread (log scale)",
        ylabel=f"BLEU, test set {found[0]['dataset']}" if found else "BLEU",
    )
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    ticks = [tick for tick in TICKS if min(speeds) / 2 <= tick <= max(speeds) * 2]
    axis.set_xticks(ticks)
    axis.grid(alpha=0.3)
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=130)
    draft.replace(path)
