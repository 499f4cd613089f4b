"""A thin layer over `onnx.helper` to write graphs by hand: names, weights, subgraphs; no torch.

All weights lie in the outermost graph, once; the graphs inside (the body of a Loop, the branches of
an If) see them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

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
