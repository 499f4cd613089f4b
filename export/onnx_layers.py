"""The layers of `training.model.transformer` as ONNX nodes: encoder, decoder step, arithmetic.

`Graph` is a thin layer over `onnx.helper`. All weights lie in the outermost graph, once; the graphs
inside (the body of a Loop, the branches of an If) see them by name.

States are [N, D], all positions of a batch below each other, so every linear layer is one matrix
product; only attention sees [B, H, length, D / H]. A decoder step has one new position a row, so
nothing needs to be transposed. Square roots of widths are folded into weights: √D into the
embedding table, out of the last norm; (D / H) ^ -½ into the queries.

Int8 is as in CTranslate2: weights in 7 bits with one scale a row (`export.ctranslate2.
quantize_rows`), activations quantised while translating, each position by its own largest value.
`DynamicQuantizeLinear` would be fewer nodes, but has one scale for a whole batch, so a sentence's
translation would depend on what shares its batch.

Shapes: B batch, S source length, T steps so far, N positions (B · S in the encoder), D width, H
heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor, nn

from export.ctranslate2 import quantize_rows
from training.model.transformer import (
    BOS,
    EOS,
    PAD,
    UNK,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    SelfAttention,
    Transformer,
)

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


class Layers:
    """Writes layers of a model into graphs."""

    def __init__(self, model: Transformer, arithmetic: Arithmetic) -> None:
        self.model = model
        self.width = model.width
        self.heads = model.heads
        self.head_width = model.width // model.heads
        self.arithmetic = arithmetic
        self.table = array(model.embedding.weight) * np.float32(math.sqrt(model.width))

    def embed(self, graph: Graph, ids: str) -> str:
        """Ids [N] → scaled embeddings [N, D], without positions."""
        return self.arithmetic.embed(graph, ids, "embedding", self.table)

    def linear(self, graph: Graph, x: str, name: str, linear: nn.Linear) -> str:
        """[N, inputs] → [N, outputs]."""
        return self.arithmetic.linear(graph, x, name, array(linear.weight), array(linear.bias))

    def norm(self, graph: Graph, x: str, name: str, norm: nn.LayerNorm, scale: float = 1.0) -> str:
        """[N, D] → `scale` times their norm [N, D]."""
        gain = graph.weight(f"{name}.gain", array(norm.weight) * np.float32(scale))
        bias = graph.weight(f"{name}.bias", array(norm.bias) * np.float32(scale))
        return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=norm.eps)

    def qkv(self, graph: Graph, x: str, name: str, attention: SelfAttention) -> str:
        """[N, D] → scaled queries, keys and values side by side [N, 3 D]."""
        scale = np.ones((3, self.width), np.float32)
        scale[0] = self.head_width**-0.5
        weight = array(attention.qkv.weight) * scale.reshape(-1, 1)
        bias = array(attention.qkv.bias) * scale.reshape(-1)
        return self.arithmetic.linear(graph, x, name, weight, bias)

    def mix(self, graph: Graph, query: str, key: str, value: str, mask: str | None) -> str:
        """Attention: queries [..., L, D / H], keys [..., D / H, S], values [..., S, D / H] and a
        mask that is added to the scores → [..., L, D / H]."""
        scores = graph.op("MatMul", query, key)
        if mask is not None:
            scores = graph.op("Add", scores, mask)
        return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)

    def join_heads(self, graph: Graph, mixed: str) -> str:
        """[B, length, H, D / H], or [B, H, 1, D / H] → [N, D]."""
        return graph.op("Reshape", mixed, graph.ints(-1, self.width))

    def feed_forward(
        self, graph: Graph, x: str, name: str, layer: EncoderLayer | DecoderLayer
    ) -> str:
        """x [N, D] → x with its feed-forward branch added."""
        normed = self.norm(graph, x, f"{name}.ffn_norm", layer.ffn_norm)
        inner = self.linear(graph, normed, f"{name}.ffn.inner", layer.ffn.inner)
        inner = ACTIVATIONS[layer.ffn.activation](graph, inner)
        return graph.op("Add", x, self.linear(graph, inner, f"{name}.ffn.outer", layer.ffn.outer))


def positions(graph: Graph, model: Transformer) -> str:
    """Encodings of all positions [max_length, D]."""
    return graph.weight("positions", array(model.positions))


def array(tensor: Tensor | nn.Module) -> Array:
    """A tensor's own copy in float32 on the CPU."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy().copy()


def _relu(graph: Graph, x: str) -> str:
    return graph.op("Relu", x)


def _gelu(graph: Graph, x: str) -> str:
    return graph.op("Gelu", x)


def _silu(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x))


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {"relu": _relu, "gelu": _gelu, "silu": _silu}


# --- encoder -----------------------------------------------------------------------------------


HIDDEN = -1e9
"""Score of what must not be attended to or chosen: in float32 its probability is 0."""


@dataclass(frozen=True)
class EncodedSource:
    """What decoder steps read of the source: by layer the keys [B, H, D / H, S] and values
    [B, H, S, D / H] of cross-attention, and the mask [B, 1, 1, S] that is added to its scores."""

    keys: list[str]
    values: list[str]
    mask: str


def encode(graph: Graph, model: Transformer, make: MakeArithmetic, src: str) -> EncodedSource:
    """Source ids [B, S], EOS last, PAD right → what decoder steps read of them."""
    ids = graph.op("Reshape", src, graph.ints(-1))
    encoder = _Encoder(graph, Layers(model, make(graph, ids)), src)
    x = encoder.embed(ids)
    for index, layer in enumerate(model.encoder):
        assert isinstance(layer, EncoderLayer)
        x = encoder.layer(x, f"encoder.{index}", layer)
    memory = encoder.layers.norm(graph, x, "encoder_norm", model.encoder_norm)
    pairs = []
    for index, block in enumerate(model.decoder):
        assert isinstance(block, DecoderLayer)
        pairs.append(encoder.memory(memory, f"decoder.{index}.cross.kv", block.cross))
    return EncodedSource([key for key, _ in pairs], [value for _, value in pairs], encoder.mask)


class _Encoder:
    """The encoder over one source."""

    def __init__(self, graph: Graph, layers: Layers, src: str) -> None:
        self.graph = graph
        self.layers = layers
        self._shape = graph.op("Shape", src)
        padding = graph.op("Equal", src, graph.scalar("pad", PAD, "int64"))
        hidden = graph.scalar("hidden", HIDDEN, "float32")
        mask = graph.op("Where", padding, hidden, graph.scalar("shown", 0, "float32"))
        self.mask = graph.op("Unsqueeze", mask, graph.ints(1, 2))

    def embed(self, ids: str) -> str:
        """Ids [N] → [N, D]."""
        graph = self.graph
        rows = graph.op("Reshape", self.layers.embed(graph, ids), self._dims(-1))
        length = graph.op("Slice", self._shape, graph.ints(1), graph.ints(2))
        table = positions(graph, self.layers.model)
        rows = graph.op("Add", rows, graph.op("Slice", table, graph.ints(0), length))
        return graph.op("Reshape", rows, graph.ints(-1, self.layers.width))

    def layer(self, x: str, name: str, layer: EncoderLayer) -> str:
        """[N, D] → [N, D]."""
        normed = self.layers.norm(self.graph, x, f"{name}.attention_norm", layer.attention_norm)
        x = self.graph.op("Add", x, self._attend(normed, f"{name}.attention", layer.attention))
        return self.layers.feed_forward(self.graph, x, name, layer)

    def _attend(self, x: str, name: str, attention: SelfAttention) -> str:
        """[N, D] → [N, D]; the heads are [1, B, H, S, D / H]."""
        graph, layers = self.graph, self.layers
        qkv = layers.qkv(graph, x, f"{name}.qkv", attention)
        qkv = graph.op("Reshape", qkv, self._dims(3, layers.heads, layers.head_width))
        qkv = graph.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
        key = graph.op("Transpose", key, perm=[0, 1, 2, 4, 3])
        mixed = layers.mix(graph, query, key, value, self.mask)
        mixed = layers.join_heads(graph, graph.op("Transpose", mixed, perm=[0, 1, 3, 2, 4]))
        return layers.linear(graph, mixed, f"{name}.out", attention.out)

    def memory(self, states: str, name: str, cross: CrossAttention) -> tuple[str, str]:
        """Encoder states [N, D] → keys [B, H, D / H, S] and values [B, H, S, D / H]."""
        graph, layers = self.graph, self.layers
        both = layers.linear(graph, states, name, cross.kv)
        both = graph.op("Reshape", both, self._dims(2, layers.heads, layers.head_width))
        halves = graph.ops("Split", both, outputs=2, axis=2, num_outputs=2)
        key, value = (graph.op("Squeeze", half, graph.ints(2)) for half in halves)
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        return key, graph.op("Transpose", value, perm=[0, 2, 1, 3])

    def _dims(self, *inner: int) -> str:
        """The shape [B, S, *inner]."""
        return self.graph.op("Concat", self._shape, self.graph.ints(*inner), axis=0)


@dataclass(frozen=True)
class Past:
    """What a step reads of those before it: by layer the keys [B, H, D / H, T] and values
    [B, H, T, D / H] of self-attention."""

    keys: list[str]
    values: list[str]


class Decoder:
    """Writes steps of a model's decoder into graphs. `arithmetic` is for B positions."""

    def __init__(self, model: Transformer, arithmetic: Arithmetic) -> None:
        self.model = model
        self._layers = Layers(model, arithmetic)

    def first_step(self, graph: Graph, bos: str, source: EncodedSource) -> tuple[str, Past]:
        """BOS [B] → logits [B, V], EOS banned too, and what the next step reads."""
        table = positions(graph, self.model)
        position = graph.op("Gather", table, graph.scalar("zero", 0, "int64"))
        logits, past = self.step(graph, bos, position, source, None)
        choices = graph.weight("eos_ban", np.array([0, HIDDEN], np.float32))
        eos, size = graph.scalar("eos", EOS, "int64"), graph.ints(self.model.vocab_size)
        return graph.op("Add", logits, graph.op("OneHot", eos, size, choices)), past

    def step(
        self, graph: Graph, last: str, position: str, source: EncodedSource, past: Past | None
    ) -> tuple[str, Past]:
        """Token ids [B] and their position's encoding [D] → logits [B, V], and what the next step
        reads. `past` is None at the first step. PAD, UNK and BOS are banned."""
        x = graph.op("Add", self._layers.embed(graph, last), position)
        keys, values = [], []
        for index, layer in enumerate(self.model.decoder):
            assert isinstance(layer, DecoderLayer)
            name = f"decoder.{index}"
            before = (past.keys[index], past.values[index]) if past is not None else None
            normed = self._layers.norm(graph, x, f"{name}.attention_norm", layer.attention_norm)
            attended, key, value = self._attend(
                graph, normed, f"{name}.attention", layer.attention, before
            )
            x = graph.op("Add", x, attended)
            normed = self._layers.norm(graph, x, f"{name}.cross_norm", layer.cross_norm)
            memory = (source.keys[index], source.values[index], source.mask)
            x = graph.op("Add", x, self._cross(graph, normed, f"{name}.cross", layer.cross, memory))
            x = self._layers.feed_forward(graph, x, name, layer)
            keys.append(key)
            values.append(value)
        return self._logits(graph, x), Past(keys, values)

    def _attend(
        self,
        graph: Graph,
        x: str,
        name: str,
        attention: SelfAttention,
        past: tuple[str, str] | None,
    ) -> tuple[str, str, str]:
        """Self-attention of the new position, [B, D] → [B, D], and all keys and values so far."""
        heads, head_width = self._layers.heads, self._layers.head_width
        qkv = self._layers.qkv(graph, x, f"{name}.qkv", attention)
        qkv = graph.op("Reshape", qkv, graph.ints(-1, 3 * heads, 1, head_width))
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=1, num_outputs=3)
        key = graph.op("Reshape", key, graph.ints(-1, heads, head_width, 1))
        mixed = value  # attention over one position
        if past is not None:
            key = graph.op("Concat", past[0], key, axis=3)
            value = graph.op("Concat", past[1], value, axis=2)
            mixed = self._layers.mix(graph, query, key, value, None)
        mixed = self._layers.join_heads(graph, mixed)
        return self._layers.linear(graph, mixed, f"{name}.out", attention.out), key, value

    def _cross(
        self, graph: Graph, x: str, name: str, cross: CrossAttention, memory: tuple[str, str, str]
    ) -> str:
        """Attention of the new position to the source, [B, D] → [B, D]."""
        heads, head_width = self._layers.heads, self._layers.head_width
        scale = np.float32(head_width**-0.5)
        weight, bias = array(cross.query.weight) * scale, array(cross.query.bias) * scale
        query = self._layers.arithmetic.linear(graph, x, f"{name}.query", weight, bias)
        query = graph.op("Reshape", query, graph.ints(-1, heads, 1, head_width))
        mixed = self._layers.join_heads(graph, self._layers.mix(graph, query, *memory))
        return self._layers.linear(graph, mixed, f"{name}.out", cross.out)

    def _logits(self, graph: Graph, x: str) -> str:
        """States [B, D] → logits [B, V]."""
        bias = array(self.model.output_bias)
        bias[[PAD, UNK, BOS]] = HIDDEN
        unscale = self.model.width**-0.5
        normed = self._layers.norm(graph, x, "decoder_norm", self.model.decoder_norm, unscale)
        table = self._layers.table
        return self._layers.arithmetic.linear(graph, normed, "embedding", table, bias)
