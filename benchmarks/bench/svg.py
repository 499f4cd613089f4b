"""What pictures are made of: scales with ticks, and labels that do not cover each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

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
