"""Arithmetic of a training step, and what the machine can do of it.

Floating-point operations of matrix products only, a multiplication and an addition counted as two;
the backward pass costs twice the forward one. Shapes: S source length, T target length, V
vocabulary, D width, F inner width.
"""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import torch

from benchmarks.trainers.task import use_cores
from training.recipe import ModelConfig

Precision = Literal["float32", "bfloat16"]


def flops_per_target_token(
    model: ModelConfig, vocab_size: int, src: np.ndarray, trg: np.ndarray
) -> float:
    """Mean over a corpus whose sentences have `src` and `trg` tokens (EOS counted), no padding.

    Attention is counted in full, as it is computed where the kernel masks: 4 · L · D a token.
    """
    width, ffn = model.width, model.ffn
    square, inner = 2 * width * width, 2 * 2 * width * ffn
    s, t = src.astype(np.float64), trg.astype(np.float64)
    encoder = s * (4 * square + inner + 4 * s * width)
    cross = t * 2 * square + s * 2 * square + 4 * t * s * width
    decoder = t * (4 * square + inner + 4 * t * width) + cross
    output = t * 2 * width * vocab_size
    forward = model.encoder_layers * encoder + model.decoder_layers * decoder + output
    return float(3 * forward.sum() / t.sum())


def gemm_gflops(precision: Precision, threads: int | None, seconds: float = 1.0) -> float:
    """10⁹ operations a second of square matrix products of 1,024, on so many threads (all if
    None). Run it in a process of its own: it sets the number of threads."""
    use_cores(threads)
    size = 1024
    left = torch.randn(size, size).to(getattr(torch, precision))
    right = torch.randn(size, size).to(left.dtype)
    for _ in range(3):
        left @ right
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        left @ right
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - started) / 1e9
