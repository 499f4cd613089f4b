"""Figures as text."""

from __future__ import annotations

from benchmarks.bench.results import Figure
from benchmarks.systems.base import WHOLE

NONE = "–"


def batch_label(batch_size: int) -> str:
    return "whole file" if batch_size == WHOLE else f"batch {batch_size}"


def decoding(beam_size: int) -> str:
    return "greedy" if beam_size == 1 else f"beam {beam_size}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure to so many significant digits, without an exponent."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    text = f"{value:,.{max(0, digits - 1 - _power(value))}f}"
    return text


def _power(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def spread(figure: Figure, digits: int = 3) -> str:
    """`median (low–high)`."""
    low, high = number(figure.low, digits), number(figure.high, digits)
    return f"{number(figure.median, digits)} ({low}–{high})"


def percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{100 * value:.{digits}f} %"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}" if value < 1e8 else f"{value / 1e6:,.0f}"
