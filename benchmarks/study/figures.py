"""Figures of a study: BLEU by method, by student size, by text and by decoding; the gate.

Rows of a study, grouped and compared: what the report and the figures are drawn from.

A group is the rows that differ in method and seed alone: one text, one student size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.config import OWN
from export.metrics import Paired, bleu_of, paired_bootstrap, unpack

Row = dict[str, Any]
TEACHER = "teacher"


@dataclass(frozen=True)
class Setting:
    """How a number was measured: test set and beam size (1 is greedy)."""

    test: str
    beam: int

    @property
    def label(self) -> str:
        decoding = "greedy" if self.beam == 1 else f"beam {self.beam}"
        return f"{self.test}, {decoding}"


@dataclass(frozen=True)
class Mean:
    """Of some seeds: mean, sample standard deviation (0 for one seed), and how many."""

    value: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.seeds == 1 else f"{self.value:.2f} ± {self.spread:.2f}"


def mean_of(values: list[float]) -> Mean:
    """Raises ValueError for no values."""
    if not values:
        raise ValueError("no values to take a mean of")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Mean(float(np.mean(values)), spread, len(values))


def share_seeds(one: list[Row], other: list[Row]) -> bool:
    """Whether two methods have rows of the same seed, so that they can be compared."""
    return bool({row["seed"] for row in one} & {row["seed"] for row in other})


class StudyTable:
    """Rows of one study. Cached statistics: comparisons read them again and again."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = [row for row in rows if row["method"] != TEACHER]
        self.teachers = [row for row in rows if row["method"] == TEACHER]
        self._statistics: dict[tuple[int, Setting], np.ndarray] = {}

    def values(self, field: str) -> list[str]:
        """The distinct values of a field, in the order of the rows."""
        return list(dict.fromkeys(row[field] for row in self.rows))

    def settings(self) -> list[Setting]:
        """Every test set with every beam size."""
        tests = self.rows[0]["tests"] if self.rows else {}
        return [
            Setting(name, int(key.removeprefix("beam")))
            for name, test in tests.items()
            for key in test
            if key.startswith("beam")
        ]

    def groups(self) -> list[tuple[str, str]]:
        """(text, student) of every group."""
        return list(dict.fromkeys((row["text"], row["student"]) for row in self.rows))

    def of(self, text: str, student: str, method: str) -> list[Row]:
        """Rows of a method in a group, one a seed."""
        wanted = (text, student, method)
        return [row for row in self.rows if (row["text"], row["student"], row["method"]) == wanted]

    def methods(self, text: str, student: str) -> list[str]:
        """Methods of a group, in the order of the rows."""
        inside = [r["method"] for r in self.rows if (r["text"], r["student"]) == (text, student)]
        return list(dict.fromkeys(inside))

    def sizes(self, text: str) -> dict[str, int]:
        """Parameters of the students on a text, fewest first. Of students of one size, which differ
        in their training, the first counts."""
        first: dict[int, str] = {}
        for row in self.rows:
            if row["text"] == text:
                first.setdefault(row["parameters"], row["student"])
        return {student: parameters for parameters, student in sorted(first.items())}

    def statistics(self, row: Row, setting: Setting) -> np.ndarray:
        """BLEU statistics of each sentence, [S, 6]."""
        key = (id(row), setting)
        if key not in self._statistics:
            packed = row["tests"][setting.test][f"beam{setting.beam}"]["statistics"]
            self._statistics[key] = unpack(packed)
        return self._statistics[key]

    def bleu(self, rows: list[Row], setting: Setting, inside: np.ndarray | None = None) -> Mean:
        """Mean BLEU over seeds, of all sentences or of those `inside` (bool, [S])."""
        found = [self.statistics(row, setting) for row in rows]
        return mean_of([bleu_of(one if inside is None else one[inside]) for one in found])

    def metric(self, rows: list[Row], setting: Setting, name: str) -> Mean:
        """Mean of a stored score (BLEU, chrF2) over seeds."""
        return mean_of([row["tests"][setting.test][f"beam{setting.beam}"][name] for row in rows])

    def compare(
        self,
        rows: list[Row],
        baseline: list[Row],
        setting: Setting,
        inside: np.ndarray | None = None,
    ) -> Paired:
        """Paired bootstrap of two methods on the seeds that both have."""
        common = {row["seed"] for row in rows} & {row["seed"] for row in baseline}
        both = [
            [self.statistics(row, setting) for row in some if row["seed"] in common]
            for some in (rows, baseline)
        ]
        if inside is not None:
            both = [[one[inside] for one in some] for some in both]
        return paired_bootstrap(both[0], both[1])

    def bucket(self, setting: Setting, column: int, third: int) -> np.ndarray:
        """Which sentences of a test set are in a third: by length (column 0), rarity (1)."""
        buckets = unpack(self.rows[0]["tests"][setting.test]["buckets"])
        inside: np.ndarray = buckets[:, column] == third
        return inside


@dataclass(frozen=True)
class Advantage:
    """Of one method over another at one point of an axis."""

    where: str
    paired: Paired

    def __str__(self) -> str:
        return f"{self.where}: {self.paired.difference:+.2f} (p = {self.paired.p_value:.3f})"


def advantages(
    table: StudyTable,
    points: list[str],
    rows_at: Callable[[str, str], list[Row]],
    setting: Setting,
    methods: tuple[str, str],
) -> list[Advantage]:
    """`methods[0]` over `methods[1]` at every point of an axis where both were trained."""
    found = []
    for point in points:
        one, other = (rows_at(point, method) for method in methods)
        if share_seeds(one, other):
            found.append(Advantage(point, table.compare(one, other, setting)))
    return found


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
