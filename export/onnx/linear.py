"""Matrix products and embeddings of ONNX graphs, in float32 and in int8.

Int8 is as in CTranslate2: weights in 7 bits with one scale a row (`quantize_rows` of
`export/to_ctranslate2.py`), activations quantised while translating, each position by its own
largest value. `DynamicQuantizeLinear` would be fewer nodes, but it has one scale for a whole batch,
so that a sentence's translation would depend on what shares its batch.

Shapes: N positions below each other, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export.onnx.builder import Graph
from export.to_ctranslate2 import quantize_rows

LARGEST_ACTIVATION = 127
ZERO_POINT = 128
"""Activations are unsigned bytes around it: runtimes are slow at products of two signed ones."""

Array = NDArray[np.float32]


class Arithmetic(Protocol):
    """How weights are stored and multiplied, in a graph and those inside it, for N positions."""

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        """Ids [N] → rows [N, D] of the table [V, D]."""

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        """x [N, inputs] → x · weightᵀ + bias [N, outputs]; the weight is [outputs, inputs]."""


class Float32:
    """Float32 throughout."""

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        return graph.op("Gather", graph.weight(name, table), ids)

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        matrix = graph.weight(name, weight)
        return graph.op("Gemm", x, matrix, graph.weight(f"{name}.bias", bias), transB=1)


class Int8:
    """7-bit weights; activations in 8 bits, a scale for each of the N positions of `ids`."""

    def __init__(self, graph: Graph, ids: str) -> None:
        self._zero = graph.scalar("zero_point", ZERO_POINT, "uint8")
        self._zeros = graph.op("Expand", self._zero, graph.op("Shape", ids))

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        matrix, scale = self._matrix(graph, name, table)
        rows = graph.op("Gather", matrix, ids)
        return graph.op("DequantizeLinear", rows, graph.op("Gather", scale, ids), axis=0)

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        matrix, scale = self._matrix(graph, name, weight)
        turned = graph.shared("Transpose", matrix, perm=[1, 0])  # runtimes do it once, on loading
        largest = graph.op("ReduceMax", graph.op("Abs", x), graph.ints(1), keepdims=0)
        share = graph.scalar("activation_step", 1 / LARGEST_ACTIVATION, "float32")
        x_scale = graph.op("Mul", largest, share)
        quantized = graph.op("QuantizeLinear", x, x_scale, self._zeros, axis=0)
        product = graph.op("MatMulInteger", quantized, turned, self._zero)
        product = graph.op("DequantizeLinear", product, x_scale, axis=0)
        return graph.op("Add", graph.op("Mul", product, scale), graph.weight(f"{name}.bias", bias))

    def _matrix(self, graph: Graph, name: str, weight: Array) -> tuple[str, str]:
        """The weight in 7 bits [outputs, inputs] and the scales [outputs] that undo it."""
        quantized, scale = quantize_rows(weight)
        return graph.weight(name, quantized), graph.weight(f"{name}.scale", 1 / scale)


MakeArithmetic = Callable[[Graph, str], Arithmetic]
"""The arithmetic for as many positions as there are ids [N] in a graph."""

ARITHMETIC: dict[Literal["float32", "int8"], MakeArithmetic] = {
    "float32": lambda graph, ids: Float32(),
    "int8": Int8,
}
