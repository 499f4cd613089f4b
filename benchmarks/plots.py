"""Pictures of results as SVG: no script, no fonts or files from elsewhere, light and dark.

Colours are Okabe and Ito's, safe for the colour-blind; every role has a shape of its own too.

What pictures are made of: scales with ticks, and labels that do not cover each other.

The picture of an evaluation: BLEU against sentences a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from benchmarks.results import Growth, Results
from benchmarks.systems.base import Role

FONT = 11
CHARACTER = 6.1
"""Mean width of a character in pixels, in a sans-serif of FONT pixels."""
BESIDE = 9
"""Pixels between a point and a label that needs no line."""


@dataclass(frozen=True)
class AxisScale:
    """Values to pixels: `low` is drawn at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def linear(cls, low: float, high: float, start: float, end: float) -> AxisScale:
        return cls(low, high, start, end, log=False)

    @classmethod
    def logarithmic(cls, low: float, high: float, start: float, end: float) -> AxisScale:
        return cls(low, high, start, end, log=True)

    def of(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = log10(low), log10(high), log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends: 1, 2 and 5 of every power of ten, or equal steps."""
        if self.log:
            powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            found = [base * 10.0**power for power in powers for base in (1, 2, 5)]
            inside = [value for value in found if self.low <= value <= self.high]
            if len(inside) > 8:
                inside = [v for v in inside if abs(log10(v) - round(log10(v))) < 1e-6]
            return inside
        step = 10.0 ** floor(log10((self.high - self.low) / 3))
        for times in (1, 2, 5, 10):
            if (self.high - self.low) / (step * times) <= 7:
                step *= times
                break
        first = ceil(self.low / step)
        return [round(k * step, 10) for k in range(first, floor(self.high / step) + 1)]


@dataclass(frozen=True)
class Frame:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Frame) -> bool:
        beside = self.right < other.left or other.right < self.left
        return not (beside or self.bottom < other.top or other.bottom < self.top)

    def distance(self, x: float, y: float) -> float:
        """From the rectangle to a point, 0 inside."""
        beside = max(self.left - x, 0.0, x - self.right)
        above = max(self.top - y, 0.0, y - self.bottom)
        return float((beside**2 + above**2) ** 0.5)

    def holds(self, other: Frame) -> bool:
        wide = self.left <= other.left and other.right <= self.right
        return wide and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class Label:
    """What stands beside the point (x, y)."""

    text: str
    x: float
    y: float
    bold: bool = False


def text_width(text: str) -> float:
    """About how wide a text is, in pixels."""
    return CHARACTER * len(text)


def place_labels(labels: Sequence[Label], inside: Frame) -> list[str]:
    """SVG texts, the first labels nearest to their points. A label covers nothing; it lies beside
    its own point and clearly further from all others, or has a line to it. One that fits nowhere is
    left out, since the tables name its point."""
    taken = [Frame(one.x - 6, one.y - 6, one.x + 6, one.y + 6) for one in labels]
    found = []
    for label in labels:
        others = [one for one in labels if one is not label]
        for box, distance in _candidates(label):
            free = inside.holds(box) and not any(box.overlaps(other) for other in taken)
            clear = distance > BESIDE or all(
                box.distance(other.x, other.y) > 2 * BESIDE for other in others
            )
            if free and clear:
                taken.append(box)
                found.append(_text(label, box, distance))
                break
    return found


def _candidates(label: Label) -> Iterator[tuple[Frame, float]]:
    """Boxes around the point, the nearest first."""
    width, height = text_width(label.text) * (1.08 if label.bold else 1), FONT + 2
    for distance in (BESIDE, 16, 26, 38, 52, 68, 86, 106):
        for right, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            middle_x = label.x + right * (distance + width / 2)
            middle_y = label.y + down * (distance + height / 4)
            yield (
                Frame(
                    middle_x - width / 2,
                    middle_y - height / 2,
                    middle_x + width / 2,
                    middle_y + height / 2,
                ),
                distance,
            )


def _text(label: Label, box: Frame, distance: float) -> str:
    weight = ' font-weight="bold"' if label.bold else ""
    line = ""
    if distance > BESIDE:
        x = min(max(label.x, box.left), box.right)
        y = box.bottom if box.bottom < label.y else box.top
        line = (
            f'<line class="axis" x1="{label.x:.1f}" y1="{label.y:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>'
        )
    return (
        f'{line}<text x="{box.left:.1f}" y="{box.bottom - 3:.1f}" font-size="{FONT}"{weight}>'
        f"{escape(label.text)}</text>"
    )


WIDTH, HEIGHT = 760, 470
ROLES: tuple[Role, ...] = ("student", "teacher", "baseline", "peer")
ROLE_NAMES = {"student": "student", "teacher": "teacher", "baseline": "baseline", "peer": "peer"}
STYLE = """<style>
.qs{font:12px system-ui,sans-serif;--ink:#1b1b1b;--soft:#6b6b6b;--grid:#e2e2e2;
--student:#0072b2;--teacher:#d55e00;--baseline:#aa4499;--peer:#00795a}
@media(prefers-color-scheme:dark){.qs{--ink:#eee;--soft:#aaa;--grid:#3a3a3a;
--student:#56b4e9;--teacher:#f0883e;--baseline:#dd99cc;--peer:#2fc49a}}
.qs text{fill:var(--ink)}.qs .soft{fill:var(--soft)}.qs .grid{stroke:var(--grid)}
.qs .axis{stroke:var(--soft);fill:none}.qs .front{stroke:var(--soft);stroke-dasharray:5 4;fill:none}
.qs .student{fill:var(--student);stroke:var(--student)}
.qs .teacher{fill:var(--teacher);stroke:var(--teacher)}
.qs .baseline{fill:var(--baseline);stroke:var(--baseline)}
.qs .peer{fill:var(--peer);stroke:var(--peer)}
.qs .bar{opacity:.45;stroke-width:1.5}.qs .line{fill:none;stroke-width:1.6}
</style>"""


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
    found = []
    for row in results.systems:
        speed = results.speed_of(row.name, threads, batch_size)
        bleu = results.bleu(row.name) if results.same_pair(row.name) else None
        if speed is None or bleu is None:
            continue
        rate = speed.sentences_per_second
        found.append(
            Dot(
                row.name,
                row.role,
                *(rate.median, rate.low, rate.high),
                *(bleu.score, bleu.low, bleu.high),
            )
        )
    return found


def pareto_front(found: Sequence[Dot]) -> list[Dot]:
    """Those that no other beats in both speed and BLEU, slowest first."""
    front: list[Dot] = []
    for dot in sorted(found, key=lambda one: (-one.speed, -one.bleu)):
        if not front or dot.bleu > front[-1].bleu:
            front.append(dot)
    return front[::-1]


def outsiders(results: Results, threads: int, batch_size: int) -> list[tuple[str, float]]:
    """Systems of other language pairs or not scored: name and sentences a second, no BLEU."""
    found = []
    for row in results.systems:
        speed = results.speed_of(row.name, threads, batch_size)
        if speed is not None and not (row.scored and results.same_pair(row.name)):
            found.append((row.name, speed.sentences_per_second.median))
    return found


def bleu_against_speed(results: Results, threads: int = 1, batch_size: int = 1) -> str | None:
    """The main picture; None where no system has both figures. Systems of another pair, or whose
    translations are not the model's, are marked at their speed on the same source text."""
    found = dots(results, threads, batch_size)
    if not found:
        return None
    others = outsiders(results, threads, batch_size)
    speeds = [dot.speed for dot in found] + [speed for _, speed in others]
    x = AxisScale.logarithmic(min(speeds) / 1.6, max(speeds) * 1.6, 56, WIDTH - 16)
    scores = [dot.bleu for dot in found]
    room = max((max(scores) - min(scores)) * 0.25, 1.0)
    y = AxisScale.linear(min(scores) - room, max(scores) + room, HEIGHT - 84, 16)
    front = pareto_front(found)
    parts = [_axes(x, y, results, threads, batch_size)]
    path = " ".join(f"{x.of(dot.speed):.1f},{y.of(dot.bleu):.1f}" for dot in front)
    parts.append(f'<polyline class="front" points="{path}"/>')
    parts += [_outsider(x, y, place, *one) for place, one in enumerate(others)]
    parts += [_dot(x, y, dot, dot.name == results.main_system) for dot in found]
    labels = [
        Label(dot.name, x.of(dot.speed), y.of(dot.bleu), bold=dot.name == results.main_system)
        for dot in sorted(
            found, key=lambda one: (one.name != results.main_system, one not in front)
        )
    ]
    parts += place_labels(labels, Frame(56, 16, WIDTH - 8, HEIGHT - 84))
    parts.append(_legend(found, bool(others)))
    title = "BLEU against sentences a second; up and to the right is better"
    return _svg(WIDTH, HEIGHT, title, parts)


def _axes(x: AxisScale, y: AxisScale, results: Results, threads: int, batch_size: int) -> str:
    bottom, top = y.start, y.end
    parts = []
    for value in x.ticks():
        place = x.of(value)
        parts.append(
            f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{top}" y2="{bottom}"/>'
        )
        parts.append(
            f'<text class="soft" x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    for value in y.ticks():
        place = y.of(value)
        parts.append(
            f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="soft" x="{x.start - 6}" y="{place + 4:.1f}" text-anchor="end">'
            f"{value:g}</text>"
        )
    what = "one at a time" if batch_size == 1 else f"in batches of {batch_size}"
    plural = "one thread" if threads == 1 else f"{threads} threads"
    middle = (x.start + x.end) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{bottom + 36}" text-anchor="middle">'
        f"sentences a second, {what}, {plural} (log scale)</text>"
        f'<text x="14" y="{(top + bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + bottom) / 2:.0f})">BLEU</text>'
    )
    return "".join(parts)


def _dot(x: AxisScale, y: AxisScale, dot: Dot, main: bool) -> str:
    cx, cy = x.of(dot.speed), y.of(dot.bleu)
    left, right = x.of(dot.speed_low), x.of(dot.speed_high)
    bars = (
        f'<line class="bar {dot.role}" x1="{left:.1f}" x2="{right:.1f}" '
        f'y1="{cy:.1f}" y2="{cy:.1f}"/>'
    )
    tip = f"{dot.name}: {dot.bleu:.2f} BLEU, {dot.speed:.4g} sentences a second"
    shape = marker(dot.role, cx, cy, 8 if main else 5.5)
    return f"<g><title>{escape(tip)}</title>{bars}{shape}</g>"


def marker(role: Role, x: float, y: float, r: float) -> str:
    """The shape of a role: circle, square, triangle, diamond."""
    match role:
        case "student":
            return f'<circle class="{role}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
        case "teacher":
            side = 1.8 * r
            return (
                f'<rect class="{role}" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" '
                f'width="{side:.1f}" height="{side:.1f}"/>'
            )
        case "baseline":
            points = [(x, y - 1.2 * r), (x - 1.1 * r, y + 0.8 * r), (x + 1.1 * r, y + 0.8 * r)]
        case "peer":
            points = [(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polygon class="{role}" points="{path}"/>'


def _outsider(x: AxisScale, y: AxisScale, place: int, name: str, speed: float) -> str:
    """A line at a speed that has no BLEU here; names stand at different heights."""
    across = x.of(speed)
    label = Label(name, across, y.start - 12 - 14 * place)
    side = "end" if across > (x.start + x.end) / 2 else "start"
    start = label.x + (-8 if side == "end" else 8)
    return (
        f"<g><title>{escape(name)}: {speed:.4g} sentences a second, no BLEU</title>"
        f'<line class="bar peer" x1="{across:.1f}" x2="{across:.1f}" y1="{y.end}" y2="{y.start}" '
        f'stroke-dasharray="2 3"/>{marker("peer", across, label.y - 4, 4.5)}'
        f'<text x="{start:.1f}" y="{label.y:.1f}" font-size="11" text-anchor="{side}">'
        f"{escape(name)}</text></g>"
    )


def _legend(found: Sequence[Dot], others: bool) -> str:
    parts, place = [], 60.0
    entries = [(role, ROLE_NAMES[role]) for role in ROLES if any(d.role == role for d in found)]
    if others:
        entries = [entry for entry in entries if entry[0] != "peer"]
        entries.append(("peer", "peer; dotted: speed only"))
    bottom = HEIGHT - 22
    for role, name in entries:
        parts.append(marker(role, place, bottom - 4, 5.5))
        parts.append(f'<text x="{place + 11:.0f}" y="{bottom}">{name}</text>')
        place += 36 + text_width(name)
    parts.append(
        f'<line class="front" x1="{place:.0f}" x2="{place + 24:.0f}" y1="{bottom - 4}" '
        f'y2="{bottom - 4}"/><text x="{place + 30:.0f}" y="{bottom}">Pareto front</text>'
    )
    return "".join(parts)


def growth_picture(growth: Sequence[Growth]) -> str:
    """Seconds along one axis, both logarithmic, a line a system."""
    width, height = 380, 260
    xs = [point.x for one in growth for point in one.points]
    ys = [point.seconds.median for one in growth for point in one.points]
    x = AxisScale.logarithmic(min(xs) / 1.1, max(xs) * 1.1, 56, width - 12)
    y = AxisScale.logarithmic(min(ys) / 1.3, max(ys) * 1.3, height - 62, 12)
    parts = []
    for value in x.ticks():
        parts.append(
            f'<text class="soft" x="{x.of(value):.1f}" y="{y.start + 15}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    for value in y.ticks():
        place = y.of(value)
        parts.append(
            f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="soft" x="{x.start - 5}" y="{place + 4:.1f}" text-anchor="end">'
            f"{_seconds(value)}</text>"
        )
    for index, one in enumerate(growth):
        role = ROLES[index % len(ROLES)]
        line = " ".join(f"{x.of(p.x):.1f},{y.of(p.seconds.median):.1f}" for p in one.points)
        parts.append(f'<polyline class="line {role}" style="fill:none" points="{line}"/>')
        parts += [marker(role, x.of(p.x), y.of(p.seconds.median), 3.5) for p in one.points]
        parts.append(
            marker(role, 12, height - 8 - 13 * (len(growth) - 1 - index) - 4, 4)
            if len(growth) > 1
            else ""
        )
    first = growth[0]
    middle = (x.start + x.end) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{y.start + 32}" text-anchor="middle">'
        f"{escape(first.unit)}</text>"
    )
    title = f"Seconds of {first.of}, by {first.axis}"
    return _svg(width, height, title, parts)


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:g} s"
    power = floor(log10(value) + 1e-9)
    return f"{value * 1e3:g} ms" if power >= -3 else f"{value * 1e6:g} µs"


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="qs" role="img" '
        f'viewBox="0 0 {width} {height}" aria-label="{escape(title, quote=True)}">'
        f"{STYLE}{''.join(parts)}</svg>"
    )


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
