"""Weights in bytes: their own where no product can overflow, else as fine as a row allows."""

from __future__ import annotations

import numpy as np
import pytest

from export.quantization import (
    LARGEST_PAIR,
    keep_bytes,
    on_coarser_grid,
    quantize_pairs,
    quantize_rows,
)

GENERATOR = np.random.default_rng(5)


def test_bytes_that_cannot_overflow_come_back_exactly() -> None:
    original = GENERATOR.integers(-64, 65, (50, 96)).astype(np.int8)
    original[:, 7] = 127
    original[:, 6] = 1
    weight = (original / np.float32(37.123)).astype(np.float32)
    weight *= np.float32(32) ** np.float32(-0.5)  # as the scale of queries is folded in
    quantized, scale = keep_bytes(weight)
    assert (quantized == original).all()
    assert np.allclose(quantized / scale[:, None], weight, rtol=1e-6)


def test_rows_that_could_overflow_are_requantised() -> None:
    original = GENERATOR.integers(-60, 61, (3, 32)).astype(np.int8)
    original[1, 4:6] = (127, -2)  # together 129
    original[2, 5:7] = (127, 127)  # no pair: products are summed from even places
    original[2, 4], original[2, 7] = 0, 0
    weight = (original / np.float32(12.5)).astype(np.float32)
    quantized, scale = keep_bytes(weight)
    again, again_scale = quantize_pairs(weight)
    assert (quantized[0] == original[0]).all()
    assert (quantized[1] == again[1]).all()
    assert scale[1] == again_scale[1]
    assert (quantized[2] == original[2]).all()


def test_no_pair_of_neighbours_is_ever_too_large() -> None:
    original = GENERATOR.integers(-127, 128, (200, 33)).astype(np.float32)
    quantized, _ = keep_bytes(original / np.float32(3))
    size = np.abs(np.pad(quantized.astype(int), ((0, 0), (0, 1))))
    assert (size[:, ::2] + size[:, 1::2]).max() <= LARGEST_PAIR


def test_a_scale_is_as_fine_as_the_pairs_of_a_row_allow() -> None:
    weight = np.array([[0.5, 0.1, -1.0, 0.2], [1.0, 1.0, 0.0, 0.0], [0, 0, 0, 0]], np.float32)
    quantized, scale = quantize_pairs(weight)
    assert scale.tolist() == pytest.approx([127 / 1.2, 127 / 2, 1.0])
    assert quantized.tolist() == [[53, 11, -106, 21], [64, 64, 0, 0], [0, 0, 0, 0]]
    weight = GENERATOR.normal(size=(500, 255)).astype(np.float32)
    quantized, scale = quantize_pairs(weight)
    size = np.abs(np.pad(quantized.astype(int), ((0, 0), (0, 1))))
    assert (size[:, ::2] + size[:, 1::2]).max() <= LARGEST_PAIR
    _, seven = quantize_rows(weight)
    assert (scale >= seven).all()
    assert (scale / seven).mean() > 1.3
    error = np.abs(quantized / scale[:, None] - weight)
    assert (error <= 0.5001 / scale[:, None]).all()


def test_weights_that_were_never_bytes_are_quantised_as_usual() -> None:
    weight = GENERATOR.normal(size=(20, 64)).astype(np.float32)
    weight[3] = 0
    expected = quantize_pairs(weight)
    for actual, wanted in zip(keep_bytes(weight), expected, strict=True):
        rows = [row for row in range(20) if row != 3]
        assert (actual[rows] == wanted[rows]).all()
    assert not keep_bytes(weight)[0][3].any()


def test_a_row_without_its_smallest_step_is_understood() -> None:
    original = np.array([[2, 3, 0, 63, -9, 50, 4, 6]], np.float32)  # its step is half of 2
    quantized, _ = keep_bytes(original / np.float32(7.7))
    assert (quantized == original).all()


def test_a_coarser_grid_has_fewer_values_and_is_kept() -> None:
    weight = GENERATOR.normal(0, 0.1, (400, 64)).astype(np.float32)
    weight[7] *= 40  # beyond the bytes of that grid
    coarse = on_coarser_grid(weight, 2)
    bytes_, scale = keep_bytes(coarse)
    fine, _ = keep_bytes(weight)
    rest = np.arange(400) != 7
    step = 2 * np.median(1 / keep_bytes(weight)[1])
    assert np.abs(coarse - weight)[rest].max() <= step / 2 * 1.001
    assert np.allclose(1 / scale[rest], step, rtol=1e-3)
    assert len(np.unique(bytes_[rest])) < 0.6 * len(np.unique(fine))
    assert (coarse[7] == weight[7]).all()
