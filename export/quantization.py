"""Weights in bytes: 7 bits, as many as a row allows, or the 8 bits that they came in.

CPUs with AVX2 and no VNNI multiply unsigned by signed bytes and sum the products in pairs into 16
bits: 2 · 255 · 127 overflows them. Weights kept to 7 bits (|q| ≤ 63) cannot overflow
(2 · 255 · 63 < 2^15), nor can 8-bit ones of which no pair of neighbours is too large together
(255 · 128 < 2^15). Summed are neighbours of even and odd place, (2k, 2k + 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_WEIGHT = 63
LARGEST_PAIR = 128
LARGEST_BYTE = 127
DIVISORS = 16
"""The smallest value of a row is taken for at most so many steps of its scale."""
TOLERANCE = 2e-3
"""How far from whole numbers values may lie that came from bytes, in steps."""


def quantize_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [rows, columns] → 7-bit integers of the same shape and scales [rows].

    q = round(scale · w), scale = 63 / max|w| by row; a row of zeros has scale 1.
    """
    largest = np.abs(weight).max(axis=1).astype(np.float32)
    largest[largest == 0] = LARGEST_WEIGHT
    largest = np.maximum(largest, np.float32(LARGEST_WEIGHT) / np.finfo(np.float32).max)
    scale = (np.float32(LARGEST_WEIGHT) / largest).astype(np.float32)
    return np.rint(weight * scale[:, None]).astype(np.int8), scale


def quantize_pairs(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [rows, columns] → bytes of the same shape and scales [rows], the largest of which
    no product can overflow.

    q = round(scale · w), scale = 127 / max(max|w|, max(|w_2k| + |w_2k+1|)) by row: pairs are 127
    before rounding and so 128 at most behind it. That is never coarser than `quantize_rows`, and
    1.3 to 1.6 times as fine for weights without outliers: of 400 lines 74 % are then those of
    float32, with 7 bits 68 % (English to German, greedy).
    """
    largest = _pair_sums(weight).max(axis=1).astype(np.float32)
    largest[largest == 0] = LARGEST_BYTE
    largest = np.maximum(largest, np.float32(LARGEST_BYTE) / np.finfo(np.float32).max)
    scale = (np.float32(LARGEST_BYTE) / largest).astype(np.float32)
    return np.rint(weight * scale[:, None]).astype(np.int8), scale


def keep_bytes(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [rows, columns] → bytes and scales [rows]: those that they were before, if they were.

    A row whose values are whole multiples of one step, up to 127 of them, is kept exactly where no
    product can overflow; every other row is quantised as `quantize_pairs` does.
    """
    quantized, scale = quantize_pairs(weight)
    steps = _steps(weight)
    whole = np.rint(weight / steps[:, None])
    kept = _is_whole(weight, steps) & (np.abs(whole).max(axis=1) <= LARGEST_BYTE) & _fits(whole)
    quantized[kept] = whole[kept].astype(np.int8)
    scale[kept] = 1 / steps[kept]
    return quantized, scale


def on_coarser_grid(weight: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Weights [rows, columns] rounded to whole multiples of one step, `factor` times the median of
    the steps that `keep_bytes` gives their rows; rows that bytes do not hold so stay as they are.

    Fewer values are left, which pack smaller: Firefox's embeddings, 8.2 MB, to 6.4 MB as they are
    and to 5.6 MB with a factor of 2.
    """
    _, scale = keep_bytes(weight)
    step = np.float32(factor * np.median(1 / scale))
    whole = np.rint(weight / step)
    held = (np.abs(whole).max(axis=1) <= LARGEST_BYTE) & _fits(whole)
    return np.where(held[:, None], whole * step, weight).astype(np.float32)


def _steps(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The step of each row: its smallest value that is not 0, or a whole part of that."""
    values = np.abs(weight)
    smallest = np.where(values > 0, values, np.inf).min(axis=1)
    smallest = np.where(np.isfinite(smallest), smallest, 1.0).astype(np.float32)
    steps = smallest.copy()
    open_ = np.ones(len(weight), dtype=bool)
    for divisor in range(1, DIVISORS + 1):
        rows = np.flatnonzero(open_)
        if not len(rows):
            break
        tried = (smallest[rows] / divisor).astype(np.float32)
        right = _is_whole(weight[rows], tried)
        steps[rows[right]] = tried[right]
        open_[rows[right]] = False
    return _refined(weight, steps)


def _refined(weight: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Steps by least squares over their rows, so that the error of the smallest value is not
    multiplied."""
    whole = np.rint(weight / steps[:, None]).astype(np.float64)
    squares = (whole * whole).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        refined = (weight * whole).sum(axis=1) / squares
    return np.where(squares > 0, refined, steps).astype(np.float32)


def _is_whole(weight: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows are whole multiples of their step."""
    scaled = weight / steps[:, None]
    rows: NDArray[np.bool_] = (np.abs(scaled - np.rint(scaled)) <= TOLERANCE).all(axis=1)
    return rows


def _fits(whole: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rows of which no two neighbours (2k, 2k + 1) overflow 16 bits together."""
    rows: NDArray[np.bool_] = _pair_sums(whole).max(axis=1) <= LARGEST_PAIR
    return rows


def _pair_sums(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """|w_2k| + |w_2k+1| of each row [rows, columns / 2], a last one alone by itself."""
    size = np.abs(weight)
    if size.shape[1] % 2:
        size = np.pad(size, ((0, 0), (0, 1)))
    sums: NDArray[np.float32] = size[:, ::2] + size[:, 1::2]
    return sums
