"""Pictures of results as SVG: no script, no fonts or files from elsewhere, light and dark.

Colours are Okabe and Ito's, safe for the colour-blind; every role has a shape of its own too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from benchmarks.bench.results import Growth, Results
from benchmarks.bench.svg import AxisScale, Frame, Label, place_labels, text_width
from benchmarks.systems.base import Role

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
