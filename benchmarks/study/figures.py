"""Figures of a study: BLEU by method, by student size, by text and by decoding; the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.config import OWN
from benchmarks.study.table import Setting, StudyTable

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
MARKERS = "osD^vPX*"
MAIN = ("nll", "sentence", "token", "hybrid")
"""Lines of the axes' figures; the other methods are in the first figure only."""


def draw_all(table: StudyTable, out: Path) -> list[str]:
    """Draw every figure that the rows allow; → file names."""
    drawn = [
        draw(table, out / name)
        for name, draw in (
            ("methods.png", _methods),
            ("sizes.png", _sizes),
            ("texts.png", _texts),
            ("buckets.png", _buckets),
            ("gates.png", _gates),
        )
    ]
    return [name for name in drawn if name is not None]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _save(figure: Any, path: Path) -> str:
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=120)
    draft.replace(path)
    return path.name


def _style(method: str, methods: list[str]) -> dict[str, Any]:
    index = methods.index(method)
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
        "label": method,
    }


def _methods(table: StudyTable, path: Path) -> str | None:
    """BLEU of every method of the recipe's own student, each seed a point."""
    methods = table.methods(OWN, OWN)
    if not methods:
        return None
    settings = table.settings()
    figure, axes = _figure(3.2 * len(settings) + 1.5, 0.34 * len(methods) + 1.6, len(settings))
    for axis, setting in zip(axes, settings, strict=True):
        for place, method in enumerate(reversed(methods)):
            rows = table.of(OWN, OWN, method)
            values = [table.bleu([row], setting).value for row in rows]
            axis.plot(values, [place] * len(values), "o", color=PALETTE[0], alpha=0.45, ms=5)
            axis.plot(sum(values) / len(values), place, "|", color=PALETTE[1], ms=16, mew=2.5)
        axis.set(title=setting.label, xlabel="BLEU")
        axis.set_yticks(range(len(methods)), list(reversed(methods)) if axis is axes[0] else [])
        axis.grid(axis="x", alpha=0.3)
    figure.suptitle("BLEU by method: points are seeds, bars their mean")
    return _save(figure, path)


def _lines(
    table: StudyTable,
    path: Path,
    points: Sequence[tuple[str, str, float | str]],
    xlabel: str,
    title: str,
) -> str | None:
    """BLEU over an axis of the methods that have two points or more; a point is (text, student,
    position)."""
    measured = [
        method
        for method in table.values("method")
        for text, student, _ in points
        if table.of(text, student, method)
    ]
    methods = [name for name in dict.fromkeys(measured) if measured.count(name) > 1]
    if len(points) < 2 or not methods:
        return None
    settings = [setting for setting in table.settings() if setting.beam == 1]
    figure, axes = _figure(4.6 * len(settings), 3.6, len(settings))
    for axis, setting in zip(axes, settings, strict=True):
        for method in methods:
            at = [(x, table.of(text, student, method)) for text, student, x in points]
            at = [(x, rows) for x, rows in at if rows]
            means = [table.bleu(rows, setting) for _, rows in at]
            axis.errorbar(
                [x for x, _ in at],
                [mean.value for mean in means],
                [mean.spread for mean in means],
                capsize=3,
                **_style(method, methods),
            )
        axis.set(xlabel=xlabel, ylabel="BLEU", title=setting.label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    return _save(figure, path)


def _sizes(table: StudyTable, path: Path) -> str | None:
    points = [(OWN, name, value / 1e6) for name, value in table.sizes(OWN).items()]
    return _lines(table, path, points, "student, million parameters", "BLEU by student size")


def _texts(table: StudyTable, path: Path) -> str | None:
    texts = [text for text in table.values("text") if table.methods(text, OWN)]
    points = [(text, OWN, "clean" if text == OWN else text) for text in texts]
    return _lines(table, path, points, "text", "BLEU by text complexity")


def _buckets(table: StudyTable, path: Path) -> str | None:
    """BLEU less that of `sentence`, by thirds of the test set."""
    methods = [m for m in table.methods(OWN, OWN) if m in MAIN and m != "sentence"]
    base = table.of(OWN, OWN, "sentence")
    if not methods or not base:
        return None
    setting = table.settings()[0]
    figure, axes = _figure(9, 3.6, 2)
    for column, (axis, name) in enumerate(zip(axes, ("length", "rarity"), strict=True)):
        for method in methods:
            rows = table.of(OWN, OWN, method)
            values = [_less(table, rows, base, setting, column, third) for third in range(3)]
            axis.plot([1, 2, 3], values, **_style(method, methods))
        axis.axhline(0, color="#777777", lw=1)
        axis.set(xlabel=f"third of the test set by source {name}", xticks=[1, 2, 3])
        axis.set(ylabel="BLEU less `sentence`")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"What each method gains over sentence-level: {setting.label}")
    return _save(figure, path)


def _less(
    table: StudyTable, rows: list[Any], base: list[Any], setting: Setting, column: int, third: int
) -> float:
    inside = table.bucket(setting, column, third)
    mine, other = (table.bleu(some, setting, inside).value for some in (rows, base))
    return mine - other


def _gates(table: StudyTable, path: Path) -> str | None:
    """g by source length, teacher's entropy and word rarity, one line a learned gate."""
    gated = [row for row in table.rows if row.get("gate") and row["gate"]["spread"] > 1e-4]
    if not gated:
        return None
    keys = ("by_source_length", "by_teacher_entropy", "by_target_rarity")
    names = ("source length", "teacher's entropy", "word rarity")
    figure, axes = _figure(11, 3.8, 3)
    labels = list(dict.fromkeys(_gate_label(row) for row in gated))
    for axis, key, name in zip(axes, keys, names, strict=True):
        for row in gated:
            groups = row["gate"][key]
            style = _style(_gate_label(row), labels)
            if any(row is not other and _gate_label(other) == style["label"] for other in gated):
                style["alpha"] = 0.6
            axis.plot(range(1, len(groups) + 1), [group["mean"] for group in groups], **style)
        axis.set(xlabel=f"fifth of the text by {name}", ylim=(0, 1), ylabel="g")
        axis.grid(alpha=0.3)
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[0].legend(handles.values(), handles.keys(), fontsize=8)
    figure.suptitle("Gate: 1 follows the sentence-level loss, 0 the token-level loss")
    return _save(figure, path)


def _gate_label(row: dict[str, Any]) -> str:
    parts = [row["method"]]
    parts += [str(row[field]) for field in ("text", "student") if row[field] != OWN]
    return ", ".join(parts)
