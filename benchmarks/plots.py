"""Every picture that the benchmarks draw, by matplotlib.

Pictures of reports are SVG texts that are embedded in pages: no script, no fonts or files from
elsewhere, light and dark, with a tooltip at every point. Colours are Okabe and Ito's, safe for the
colour-blind; every role has a marker of its own too. Pictures of training runs, of studies and of
the service are PNG files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.results import Results, ScalingFit
from benchmarks.study.config import OWN
from benchmarks.study.table import group_label
from benchmarks.systems.base import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.study.table import Setting, StudyTable


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _log_scale(axis: Axes, *names: str) -> None:
    """Make the `x` or `y` axis logarithmic, with round numbers at 1, 2 and 5 of every power."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in names:
        axis.set(**{f"{name}scale": "log"})
        scale = axis.xaxis if name == "x" else axis.yaxis
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())


def _save_png(figure: Figure, path: Path) -> None:
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=120)
    draft.replace(path)


# --- SVG ------------------------------------------------------------------------------------------

THEME = {
    "ink": ("#1b1b1b", "#eeeeee"),
    "soft": ("#6b6b6b", "#aaaaaa"),
    "grid": ("#e2e2e2", "#3a3a3a"),
    "student": ("#0072b2", "#56b4e9"),
    "teacher": ("#d55e00", "#f0883e"),
    "baseline": ("#aa4499", "#dd99cc"),
    "peer": ("#00795a", "#2fc49a"),
}
"""Colours by name, on light and on dark pages."""
LIGHT = {name: light for name, (light, _) in THEME.items()}
SVG_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quickstudy",
    "font.size": 9,
    "axes.edgecolor": LIGHT["soft"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": LIGHT["grid"],
    "legend.frameon": False,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
"""None of it: the same results make the same picture."""
MARKERS: dict[Role, str] = {"student": "o", "teacher": "s", "baseline": "^", "peer": "D"}


@contextmanager
def svg_style() -> Iterator[None]:
    """What figures for `as_svg` are drawn in."""
    from matplotlib import rc_context

    with rc_context(SVG_SETTINGS):
        yield


def as_svg(figure: Figure, title: str, tooltips: dict[str, str]) -> str:
    """A figure as an SVG element, in colours of the page's theme; `tooltips` by group id."""
    for artist in figure.findobj():
        artist.set_clip_on(False)  # a clip path is a reference, and nothing is out of bounds
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=METADATA)
    text = file.getvalue()
    for name, light in LIGHT.items():
        text = text.replace(light, f"var(--{name})")
    for group, tooltip in tooltips.items():
        start = f'<g id="{group}">'
        text = text.replace(start, f"{start}<title>{escape(tooltip)}</title>")
    tag, _, rest = text[text.index("<svg") :].partition(">")
    light, dark = (";".join(f"--{name}:{pair[n]}" for name, pair in THEME.items()) for n in (0, 1))
    style = f"svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    label = escape(title, quote=True)
    return f'{tag} role="img" aria-label="{label}"><style>{style}</style>{rest.strip()}'


# --- BLEU against speed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """A system in the picture of BLEU against speed, each with its interval of 95 %."""

    name: str
    role: Role
    speed: float
    speed_low: float
    speed_high: float
    bleu: float
    bleu_low: float
    bleu_high: float


def dots(results: Results, threads: int, batch_size: int) -> list[Dot]:
    """Every system of the run's pair with both a BLEU and that speed."""
    rows = []
    for row in results.systems:
        speed = results.speed_of(row.name, threads, batch_size)
        bleu = results.bleu(row.name) if results.same_pair(row.name) else None
        if speed is None or bleu is None:
            continue
        rate = speed.sentences_per_second
        speeds = (rate.median, rate.low, rate.high)
        rows.append(Dot(row.name, row.role, *speeds, bleu.score, bleu.low, bleu.high))
    return rows


def pareto_front(points: Sequence[Dot]) -> list[Dot]:
    """Those that no other beats in both speed and BLEU, slowest first."""
    front: list[Dot] = []
    for dot in sorted(points, key=lambda point: (-point.speed, -point.bleu)):
        if not front or dot.bleu > front[-1].bleu:
            front.append(dot)
    return front[::-1]


def without_bleu(results: Results, threads: int, batch_size: int) -> list[tuple[str, float]]:
    """Systems of other language pairs or not scored: name and sentences a second."""
    rows = []
    for row in results.systems:
        speed = results.speed_of(row.name, threads, batch_size)
        if speed is not None and not (row.scored and results.same_pair(row.name)):
            rows.append((row.name, speed.sentences_per_second.median))
    return rows


def bleu_against_speed(results: Results, threads: int = 1, batch_size: int = 1) -> str | None:
    """The main picture as SVG; None where no system has both figures. Systems of another pair, or
    whose translations are not the model's, are marked at their speed on the same source text."""
    points = dots(results, threads, batch_size)
    if not points:
        return None
    others = without_bleu(results, threads, batch_size)
    tooltips = {}
    with svg_style():
        figure, (axis,) = new_figure(7.9, 4.9)
        _log_scale(axis, "x")
        _set_limits(axis, points, others)
        front = pareto_front(points)
        axis.plot(
            [dot.speed for dot in front],
            [dot.bleu for dot in front],
            "--",
            color=LIGHT["soft"],
            lw=1,
            label="Pareto front",
        )
        shown: set[Role] = set()
        for number, dot in enumerate(points):
            axis.errorbar(
                dot.speed,
                dot.bleu,
                xerr=[[dot.speed - dot.speed_low], [dot.speed_high - dot.speed]],
                fmt="none",
                ecolor=LIGHT[dot.role],
                alpha=0.45,
            )
            (marker,) = axis.plot(
                dot.speed,
                dot.bleu,
                MARKERS[dot.role],
                color=LIGHT[dot.role],
                ms=11 if dot.name == results.main_system else 7,
                label=None if dot.role in shown else dot.role,
            )
            shown.add(dot.role)
            marker.set_gid(f"dot-{number}")
            tooltips[f"dot-{number}"] = (
                f"{dot.name}: {dot.bleu:.2f} BLEU, {dot.speed:.4g} sentences a second"
            )
        for number, (name, speed) in enumerate(others):
            _mark_speed(axis, number, name, speed)
            tooltips[f"speed-{number}"] = f"{name}: {speed:.4g} sentences a second, no BLEU"
        how = "one at a time" if batch_size == 1 else f"in batches of {batch_size}"
        cores = "one thread" if threads == 1 else f"{threads} threads"
        axis.set(xlabel=f"sentences a second, {how}, {cores} (log scale)", ylabel="BLEU")
        axis.grid(zorder=0)
        axis.set_axisbelow(True)
        figure.legend(loc="outside lower left", ncols=6)
        first = (results.main_system, *(dot.name for dot in front))
        _label_points(figure, axis, sorted(points, key=lambda dot: dot.name not in first), first[0])
        title = "BLEU against sentences a second; up and to the right is better"
        return as_svg(figure, title, tooltips)


def _set_limits(axis: Axes, points: Sequence[Dot], others: Sequence[tuple[str, float]]) -> None:
    speeds = [dot.speed for dot in points] + [speed for _, speed in others]
    scores = [dot.bleu for dot in points]
    room = max((max(scores) - min(scores)) * 0.25, 1.0)
    axis.set(
        xlim=(min(speeds) / 1.6, max(speeds) * 1.6),
        ylim=(min(scores) - room, max(scores) + room),
    )


def _mark_speed(axis: Axes, number: int, name: str, speed: float) -> None:
    """A line at a speed that has no BLEU here; names stand at different heights."""
    colour = LIGHT["peer"]
    (line,) = axis.plot(
        [speed, speed],
        axis.get_ylim(),
        ":",
        color=colour,
        lw=1,
        label=None if number else "speed only",
    )
    line.set_gid(f"speed-{number}")
    low, high = axis.get_xlim()
    is_right = speed > (low * high) ** 0.5
    axis.annotate(
        name,
        (speed, axis.get_ylim()[0]),
        xytext=(-5 if is_right else 5, 6 + 12 * number),
        textcoords="offset points",
        ha="right" if is_right else "left",
        fontsize=8,
    )


BESIDE = 9
"""Points between a dot and a label that needs no line to it."""
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
OFFSETS = [
    (distance, right, up)
    for distance in (BESIDE, 16, 26, 38, 52, 68, 86, 106)
    for right, up in DIRECTIONS
]


def _label_points(figure: Figure, axis: Axes, points: Sequence[Dot], bold: str) -> None:
    """Name dots, the first ones nearest to them. A label covers nothing; one that would, at every
    place, is left out, since the tables name its system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    line = {"arrowstyle": "-", "color": LIGHT["soft"], "lw": 0.6}
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    places = axis.transData.transform([(dot.speed, dot.bleu) for dot in points])
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in places]
    taken += [text.get_window_extent(renderer) for text in axis.texts]
    inside = axis.get_window_extent(renderer)
    for dot in points:
        for distance, right, up in OFFSETS:
            label = axis.annotate(
                dot.name,
                (dot.speed, dot.bleu),
                xytext=(right * distance, up * distance * 0.6),
                textcoords="offset points",
                ha={1: "left", -1: "right", 0: "center"}[right],
                va={1: "bottom", -1: "top", 0: "center"}[up],
                fontsize=8,
                fontweight="bold" if dot.name == bold else None,
                arrowprops=None if distance == BESIDE else line,
            )
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer)  # without its line
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
            fits = fits and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()


# --- how cost grows -------------------------------------------------------------------------------


def scaling_plot(fits: Sequence[ScalingFit]) -> str:
    """Seconds along one axis as SVG, both logarithmic, a line a system."""
    first = fits[0]
    roles = list(MARKERS)
    with svg_style():
        figure, (axis,) = new_figure(4, 2.7)
        _log_scale(axis, "x", "y")
        for number, fit in enumerate(fits):
            role = roles[number % len(roles)]
            axis.plot(
                [point.x for point in fit.points],
                [point.seconds.median for point in fit.points],
                f"-{MARKERS[role]}",
                color=LIGHT[role],
                ms=5,
                label=fit.system,
            )
        axis.set(xlabel=first.unit, ylabel="seconds")
        axis.grid(axis="y")
        if len(fits) > 1:
            axis.legend(fontsize=7)
        return as_svg(figure, f"Seconds of {first.of}, by {first.axis}", {})


# --- the evaluation of a run ----------------------------------------------------------------------

EVALUATION_COLOURS = {"teacher": "#7a7a7a", "student": "#0b6e99"}
EVALUATION_MARKERS = {"torch": "o", "CTranslate2": "D"}


def evaluation_points(report: dict[str, Any]) -> list[dict[str, Any]]:
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


def draw_evaluation(report: dict[str, Any], path: Path) -> None:
    """BLEU against sentences a second of a run's systems, as PNG."""
    points = evaluation_points(report)
    figure, (axis,) = new_figure(8, 4.2)
    for number, point in enumerate(points):
        axis.plot(
            point["speed"],
            point["score"],
            EVALUATION_MARKERS.get(point["engine"], "s"),
            color=EVALUATION_COLOURS.get(point["name"], "#d98f2b"),
            markersize=11,
        )
        axis.annotate(
            f"{point['name']}, {point['engine']} {point['precision']}\n"
            f"{point['score']:.1f} BLEU, {point['speed']:.0f}/s",
            (point["speed"], point["score"]),
            # Above and below by turns: neighbours are often close.
            xytext=(0, 12 if number % 2 == 0 else -34),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    speeds = [point["speed"] for point in points]
    scores = [point["score"] for point in points]
    room = max(max(scores) - min(scores), 2.0)
    _log_scale(axis, "x")
    axis.set(
        xlim=(min(speeds) / 2, max(speeds) * 2),
        ylim=(min(scores) - room, max(scores) + room),
        xlabel="sentences a second, one at a time, one thread (log scale)",
        ylabel=f"BLEU, test set {points[0]['dataset']}",
    )
    axis.grid(alpha=0.3)
    _save_png(figure, path)


# --- the service under load -----------------------------------------------------------------------

PERCENTILES = (("p50", "o", 1.0), ("p95", "^", 0.55))
LOAD_STYLES = {
    "native": ("#0b6e99", "-", "/v1/translate"),
    "libretranslate": ("#d98f2b", "--", "/translate"),
}


def draw_load(report: dict[str, Any], path: Path) -> bool:
    """Latency against throughput of the open loop, as PNG; False if there was none."""
    rows = report["services"].get("no cache", {}).get("open-loop")
    if not rows:
        return False
    figure, (axis,) = new_figure(8, 4.2)
    _log_scale(axis, "x", "y")
    for shape, (colour, line, label) in LOAD_STYLES.items():
        for percentile, marker, alpha in PERCENTILES:
            axis.plot(
                [row["per_s"] for row in rows[shape]],
                [row[percentile] for row in rows[shape]],
                f"{line}{marker}",
                color=colour,
                alpha=alpha,
                label=f"{label}, {percentile}",
            )
    axis.set(
        xlabel="requests answered a second, one sentence each (log scale)",
        ylabel="ms from when a request was due (log scale)",
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    _save_png(figure, path)
    return True


# --- a study --------------------------------------------------------------------------------------

PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
STUDY_MARKERS = "osD^vPX*"
MAIN = ("nll", "sentence", "token", "hybrid")
"""Methods of the pictures of buckets; the others are in the picture of methods only."""


def draw_study(table: StudyTable, noise: dict[str, list[str]], out: Path) -> list[str]:
    """Draw every picture of a study that its rows allow as PNG; → file names. `noise` has texts
    with ever more noise, the recipe's own first, by its kind."""
    drawn = [_draw_methods(table, out / "methods.png"), _draw_sizes(table, out / "sizes.png")]
    drawn += [
        _draw_noise(table, kind, texts, out / f"noise-{kind.replace(', ', '-')}.png")
        for kind, texts in noise.items()
    ]
    drawn += [_draw_buckets(table, out / "buckets.png"), _draw_gates(table, out / "gates.png")]
    return [name for name in drawn if name is not None]


def _method_style(method: str, methods: list[str]) -> dict[str, Any]:
    index = methods.index(method)
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": STUDY_MARKERS[index % len(STUDY_MARKERS)],
        "label": method,
    }


def _draw_methods(table: StudyTable, path: Path) -> str | None:
    """BLEU of every method of the first group, each seed a point."""
    text, student = table.groups()[0]
    methods = table.methods(text, student)
    settings = table.settings()
    figure, axes = new_figure(3.2 * len(settings) + 1.5, 0.34 * len(methods) + 1.6, len(settings))
    for axis, setting in zip(axes, settings, strict=True):
        for place, method in enumerate(reversed(methods)):
            rows = table.of(text, student, method)
            values = [table.bleu([row], setting).value for row in rows]
            axis.plot(values, [place] * len(values), "o", color=PALETTE[0], alpha=0.45, ms=5)
            axis.plot(sum(values) / len(values), place, "|", color=PALETTE[1], ms=16, mew=2.5)
        axis.set(title=setting.label, xlabel="BLEU")
        axis.set_yticks(range(len(methods)), list(reversed(methods)) if axis is axes[0] else [])
        axis.grid(axis="x", alpha=0.3)
    about = group_label(text, student).replace("`", "")
    figure.suptitle(f"BLEU by method, {about}: points are seeds, bars their mean")
    _save_png(figure, path)
    return path.name


def _draw_lines(
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
    figure, axes = new_figure(4.6 * len(settings), 3.6, len(settings))
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
                **_method_style(method, methods),
            )
        axis.set(xlabel=xlabel, ylabel="BLEU", title=setting.label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    _save_png(figure, path)
    return path.name


def _draw_sizes(table: StudyTable, path: Path) -> str | None:
    points = [(OWN, name, value / 1e6) for name, value in table.sizes(OWN).items()]
    return _draw_lines(table, path, points, "student, million parameters", "BLEU by student size")


def _draw_noise(table: StudyTable, kind: str, texts: list[str], path: Path) -> str | None:
    students = [one for one in table.values("student") if table.methods(texts[-1], one)]
    if not students:
        return None
    points = [(text, students[0], "clean" if text == OWN else text) for text in texts]
    title = f"BLEU by text complexity (source words: {kind})"
    return _draw_lines(table, path, points, "text", title)


def _draw_buckets(table: StudyTable, path: Path) -> str | None:
    """BLEU less that of `sentence`, by thirds of the test set."""
    text, student = table.groups()[0]
    methods = [m for m in table.methods(text, student) if m in MAIN and m != "sentence"]
    base = table.of(text, student, "sentence")
    if not methods or not base:
        return None
    setting = table.settings()[0]
    figure, axes = new_figure(9, 3.6, 2)
    for column, (axis, name) in enumerate(zip(axes, ("length", "rarity"), strict=True)):
        for method in methods:
            rows = table.of(text, student, method)
            values = [_gain(table, rows, base, setting, column, third) for third in range(3)]
            axis.plot([1, 2, 3], values, **_method_style(method, methods))
        axis.axhline(0, color="#777777", lw=1)
        axis.set(xlabel=f"third of the test set by source {name}", xticks=[1, 2, 3])
        axis.set(ylabel="BLEU less `sentence`")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"What each method gains over sentence-level: {setting.label}")
    _save_png(figure, path)
    return path.name


def _gain(
    table: StudyTable,
    rows: list[Any],
    baseline: list[Any],
    setting: Setting,
    column: int,
    third: int,
) -> float:
    inside = table.bucket(setting, column, third)
    mine, other = (table.bleu(some, setting, inside).value for some in (rows, baseline))
    return mine - other


def _draw_gates(table: StudyTable, path: Path) -> str | None:
    """g by source length, teacher's entropy and word rarity, one line a learned gate."""
    gated = [row for row in table.rows if row.get("gate") and row["gate"]["spread"] > 1e-4]
    if not gated:
        return None
    keys = ("by_source_length", "by_teacher_entropy", "by_target_rarity")
    names = ("source length", "teacher's entropy", "word rarity")
    figure, axes = new_figure(11, 3.8, 3)
    labels = list(dict.fromkeys(_gate_label(row) for row in gated))
    for axis, key, name in zip(axes, keys, names, strict=True):
        for row in gated:
            groups = row["gate"][key]
            style = _method_style(_gate_label(row), labels)
            if any(row is not other and _gate_label(other) == style["label"] for other in gated):
                style["alpha"] = 0.6
            axis.plot(range(1, len(groups) + 1), [group["mean"] for group in groups], **style)
        axis.set(xlabel=f"fifth of the text by {name}", ylim=(0, 1), ylabel="g")
        axis.grid(alpha=0.3)
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[0].legend(handles.values(), handles.keys(), fontsize=8)
    figure.suptitle("Gate: 1 follows the sentence-level loss, 0 the token-level loss")
    _save_png(figure, path)
    return path.name


def _gate_label(row: dict[str, Any]) -> str:
    parts = [row["method"]]
    parts += [str(row[field]) for field in ("text", "student") if row[field] != OWN]
    return ", ".join(parts)
