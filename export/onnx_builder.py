"""ONNX graphs that grow node by node, and the arithmetic of their weights: float32 or bytes.

`Graph` is a thin layer over `onnx.helper`. All weights lie in the outermost graph, once; the graphs
inside (the body of a Loop, the branches of an If) see them by name.

Int8 is weights in bytes with one scale a row (`export.quantization.keep_bytes`), and activations
quantised while translating, each position by its own largest value. `DynamicQuantizeLinear` would
be fewer nodes, but has one scale for a whole batch, so a sentence's translation would depend on
what shares its batch.

Shapes: N positions, D width, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.quantization import keep_bytes

Dims = Sequence[int | str | None]

TYPES = {
    "bool": TensorProto.BOOL,
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


def value(name: str, kind: str, dims: Dims = ()) -> ValueInfoProto:
    """A typed input or output; a dimension is a number, a symbol or unknown."""
    return helper.make_tensor_value_info(name, TYPES[kind], list(dims))


class Graph:
    """A graph that grows node by node. Values are known by their names."""

    def __init__(self, name: str, parent: Graph | None = None) -> None:
        self.name = name
        self._root: Graph = parent._root if parent is not None else self
        self._nodes: list[NodeProto] = []
        self._weights: dict[str, TensorProto] = {}
        self._shared: dict[tuple[str, ...], str] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and give that output's name; "" is an input left out."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node, and give the names of its outputs."""
        self._root._count += 1
        name = f"{kind}_{self._root._count}"
        names = [name] if outputs == 1 else [f"{name}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names

    def shared(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of weights to the outermost graph, once however often it is asked for."""
        key = (kind, *inputs)
        if key not in self._root._shared:
            self._root._shared[key] = self._root.op(kind, *inputs, **attributes)
        return self._root._shared[key]

    def rename(self, name: str, new: str) -> str:
        """Give a value another name: that of an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [name], [new], name=new))
        return new

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A weight of the outermost graph, stored once under its name."""
        weights = self._root._weights
        if name not in weights:
            weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, *values: int) -> str:
        """A constant list of integers [n]."""
        return self.weight(f"ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, name: str, number: float | int | bool, kind: str) -> str:
        """A named constant without dimensions."""
        return self.weight(name, np.array(number, np.dtype(kind)))

    def child(self, name: str) -> Graph:
        """A graph to be put inside this one."""
        return Graph(name, self)

    def proto(
        self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> GraphProto:
        """The graph as ONNX has it."""
        weights = [self._weights[name] for name in sorted(self._weights)]
        return helper.make_graph(self._nodes, self.name, list(inputs), list(outputs), weights)


# --- arithmetic --------------------------------------------------------------------------------


LARGEST_ACTIVATION = 127
ZERO_POINT = 128
"""Activations are unsigned bytes around it: runtimes are slow at products of two signed ones."""

Array = NDArray[np.float32]
Quantize = Callable[[Array], tuple[NDArray[np.int8], NDArray[np.float32]]]
"""Weights [rows, columns] → bytes and scales [rows]."""


class Arithmetic(Protocol):
    """How weights are stored and multiplied, in a graph and those inside it, for N positions."""

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        """Ids [N] → rows [N, D] of the table [V, D]."""

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        """x [N, inputs] → x · weightᵀ + bias [N, outputs]; the weight is [outputs, inputs]."""

    def rows(self, graph: Graph, ids: str, name: str, weight: Array, bias: Array) -> list[str]:
        """The rows `ids` [C] of a weight and its bias, as `linear_of_rows` takes them."""

    def linear_of_rows(self, graph: Graph, x: str, rows: list[str]) -> str:
        """x [N, inputs] → x · rowsᵀ + bias [N, C]."""


class Float32:
    """Float32 throughout."""

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        return graph.op("Gather", graph.weight(name, table), ids)

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        matrix = graph.weight(name, weight)
        return graph.op("Gemm", x, matrix, graph.weight(f"{name}.bias", bias), transB=1)

    def rows(self, graph: Graph, ids: str, name: str, weight: Array, bias: Array) -> list[str]:
        return _rows(graph, ids, graph.weight(name, weight), graph.weight(f"{name}.bias", bias))

    def linear_of_rows(self, graph: Graph, x: str, rows: list[str]) -> str:
        return graph.op("Gemm", x, *rows, transB=1)


def _rows(graph: Graph, ids: str, *tables: str) -> list[str]:
    return [graph.op("Gather", table, ids) for table in tables]


class Int8:
    """Weights in bytes, as `quantize` makes them; activations in 8 bits, a scale for each of the N
    positions of `ids`."""

    def __init__(self, graph: Graph, ids: str, quantize: Quantize = keep_bytes) -> None:
        self._quantize = quantize
        self._zero = graph.scalar("zero_point", ZERO_POINT, "uint8")
        self._zeros = graph.op("Expand", self._zero, graph.op("Shape", ids))

    def embed(self, graph: Graph, ids: str, name: str, table: Array) -> str:
        matrix, scale = self._matrix(graph, name, table)
        rows = graph.op("Gather", matrix, ids)
        return graph.op("DequantizeLinear", rows, graph.op("Gather", scale, ids), axis=0)

    def linear(self, graph: Graph, x: str, name: str, weight: Array, bias: Array) -> str:
        matrix, scale = self._matrix(graph, name, weight)
        turned = graph.shared("Transpose", matrix, perm=[1, 0])  # runtimes do it once, on loading
        return self._product(graph, x, turned, scale, graph.weight(f"{name}.bias", bias))

    def rows(self, graph: Graph, ids: str, name: str, weight: Array, bias: Array) -> list[str]:
        tables = *self._matrix(graph, name, weight), graph.weight(f"{name}.bias", bias)
        matrix, scale, chosen_bias = _rows(graph, ids, *tables)
        return [graph.op("Transpose", matrix, perm=[1, 0]), scale, chosen_bias]

    def linear_of_rows(self, graph: Graph, x: str, rows: list[str]) -> str:
        return self._product(graph, x, *rows)

    def _product(self, graph: Graph, x: str, turned: str, scale: str, bias: str) -> str:
        """x [N, inputs] · turned [inputs, outputs] · scale + bias."""
        largest = graph.op("ReduceMax", graph.op("Abs", x), graph.ints(1), keepdims=0)
        share = graph.scalar("activation_step", 1 / LARGEST_ACTIVATION, "float32")
        x_scale = graph.op("Mul", largest, share)
        quantized = graph.op("QuantizeLinear", x, x_scale, self._zeros, axis=0)
        product = graph.op("MatMulInteger", quantized, turned, self._zero)
        product = graph.op("DequantizeLinear", product, x_scale, axis=0)
        return graph.op("Add", graph.op("Mul", product, scale), bias)

    def _matrix(self, graph: Graph, name: str, weight: Array) -> tuple[str, str]:
        """The weight in bytes [outputs, inputs] and the scales [outputs] that undo it."""
        quantized, scale = self._quantize(weight)
        return graph.weight(name, quantized), graph.weight(f"{name}.scale", 1 / scale)


MakeArithmetic = Callable[[Graph, str], Arithmetic]
"""The arithmetic for as many positions as there are ids [N] in a graph."""

StoredPrecision = Literal["float32", "int8"]
ARITHMETIC: dict[StoredPrecision, MakeArithmetic] = {
    "float32": lambda graph, ids: Float32(),
    "int8": Int8,
}
"""By their names in the manifest."""
