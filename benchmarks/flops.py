"""Arithmetic of a training step and of a translation, and what the machine can do of it.

Operations of matrix products only, a multiplication and an addition counted as two; the backward
pass costs twice the forward one. Shapes: S source length, T target length, V
vocabulary, D width, F inner width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

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


def flops_per_sentence(
    model: ModelConfig, vocab_size: int, src: np.ndarray, trg: np.ndarray, beam_size: int = 1
) -> float:
    """Mean over translations with `src` source and `trg` target tokens (EOS counted), decoded step
    by step with a cache: a step attends to the steps before it only. Every hypothesis of a beam is
    taken to be as long as the one that wins."""
    width, ffn = model.width, model.ffn
    square, inner = 2 * width * width, 2 * 2 * width * ffn
    s, t = src.astype(np.float64), trg.astype(np.float64)
    encoder = s * (4 * square + inner + 4 * s * width)
    keys_and_values = s * 2 * square
    steps = t * (6 * square + inner + 4 * s * width) + 2 * t * (t + 1) * width
    output = t * 2 * width * vocab_size
    decoder = model.decoder_layers * (keys_and_values + beam_size * steps) + beam_size * output
    return float((model.encoder_layers * encoder + decoder).mean())


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


Product = Callable[[], Any]
SIZE = 1024


def kernel_rounds(threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """10⁹ operations a second of square products of 1,024, a value a round, by the libraries of
    KERNELS that are there and can do them. Run it in a process of its own: it sets the number of
    threads."""
    products: dict[str, Product] = {}
    for name, make in _MAKERS.items():
        try:
            products[name] = make(threads)
            _gops(products[name], seconds / 4)
        except (ImportError, RuntimeError, NotImplementedError, AttributeError):
            products.pop(name, None)
    found: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(rounds):
        for name, product in products.items():
            found[name].append(_gops(product, seconds))
    return found


def _gops(product: Product, seconds: float) -> float:
    started, count = time.perf_counter(), 0
    while not count or time.perf_counter() - started < seconds:
        product()
        count += 1
    return 2 * SIZE**3 * count / (time.perf_counter() - started) / 1e9


def _torch_float32(threads: int) -> Product:
    use_cores(threads)
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    return lambda: left @ right


def _torch_int8(threads: int) -> Product:
    use_cores(threads)
    left = torch.randint(-64, 64, (SIZE, SIZE), dtype=torch.int8)
    right = torch.randint(-64, 64, (SIZE, SIZE), dtype=torch.int8)
    return lambda: torch._int_mm(left, right)


def _onnxruntime_int8(threads: int) -> Product:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    weight = generator.integers(-64, 64, (SIZE, SIZE), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [SIZE, SIZE])],
        [numpy_helper.from_array(weight, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {"a": generator.integers(0, 128, (SIZE, SIZE), dtype=np.uint8)}
    return lambda: session.run(None, given)


_MAKERS: dict[str, Callable[[int], Product]] = {
    "torch float32": _torch_float32,
    "torch int8": _torch_int8,
    "ONNX Runtime int8": _onnxruntime_int8,
}
KERNELS: dict[Literal["float32", "int8"], tuple[str, ...]] = {
    "float32": ("torch float32",),
    "int8": ("torch int8", "ONNX Runtime int8"),
}
"""Libraries that multiply matrices, by precision."""
