"""The layers of `training.model.Transformer` as ONNX nodes.

States are [N, D], all positions of a batch below each other, so that every linear layer is one
matrix product; only attention sees [B, H, length, D / H]. A decoder step has one position a row,
where N = B. Square roots of the widths are moved into weights.

Shapes: B batch, S source length, T target length so far, N positions, D width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from export.onnx_builder import Graph
from export.onnx_linear import Arithmetic, Array
from training.model import (
    BOS,
    PAD,
    UNK,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    SelfAttention,
    Transformer,
)

HIDDEN = -1e9
"""Score of what must not be chosen or attended to: its probability is 0 in float32."""


@dataclass(frozen=True)
class Source:
    """What decoder steps read of the source: by layer the keys [B, H, D / H, S] and values
    [B, H, S, D / H] of cross-attention, and the mask [B, 1, 1, S] that is added to its scores."""

    keys: list[str]
    values: list[str]
    mask: str


@dataclass(frozen=True)
class Past:
    """What a decoder step reads of those before it: by layer the keys [B, H, D / H, T] and values
    [B, H, T, D / H] of self-attention."""

    keys: list[str]
    values: list[str]


class Layers:
    """Writes the parts of one model into graphs."""

    def __init__(self, model: Transformer, arithmetic: Arithmetic) -> None:
        self._model = model
        self._arithmetic = arithmetic
        self.depth = len(model.decoder)
        self.heads = model.heads
        self.head_width = model.width // model.heads
        self._scale = np.float32(math.sqrt(model.width))
        self._table = array(model.embedding.weight) * self._scale

    def encode(self, graph: Graph, src: str) -> Source:
        """Source ids [B, S], EOS last, PAD right → what decoder steps read of them."""
        shape = graph.op("Shape", src)
        x = self._embed_source(graph, src, shape)
        mask = self._mask(graph, src)
        for index, layer in enumerate(self._model.encoder):
            assert isinstance(layer, EncoderLayer)
            name = f"encoder.{index}"
            normed = self._norm(graph, x, f"{name}.attention_norm", layer.attention_norm)
            attended = self._attend_source(graph, normed, name, layer.attention, shape, mask)
            x = graph.op("Add", x, attended)
            x = self._feed_forward(graph, x, name, layer)
        memory = self._norm(graph, x, "encoder_norm", self._model.encoder_norm)
        pairs = []
        for index, block in enumerate(self._model.decoder):
            assert isinstance(block, DecoderLayer)
            pairs.append(self._memory(graph, memory, f"decoder.{index}.kv", block.cross, shape))
        return Source([key for key, _ in pairs], [value for _, value in pairs], mask)

    def step(
        self, graph: Graph, last: str, position: str, source: Source, past: Past | None
    ) -> tuple[str, Past]:
        """One cached decoder step: token ids [B], their position's encoding [D] → logits [B, V],
        and what the next step reads. `past` is None at the first. PAD, UNK and BOS are banned."""
        x = self._arithmetic.embed(graph, last, "embedding", self._table)
        x = graph.op("Add", x, position)
        keys, values = [], []
        for index, layer in enumerate(self._model.decoder):
            assert isinstance(layer, DecoderLayer)
            name = f"decoder.{index}"
            before = (past.keys[index], past.values[index]) if past is not None else None
            normed = self._norm(graph, x, f"{name}.attention_norm", layer.attention_norm)
            attended, key, value = self._attend_past(graph, normed, name, layer.attention, before)
            x = graph.op("Add", x, attended)
            normed = self._norm(graph, x, f"{name}.cross_norm", layer.cross_norm)
            memory = (source.keys[index], source.values[index], source.mask)
            x = graph.op("Add", x, self._cross(graph, normed, name, layer.cross, memory))
            x = self._feed_forward(graph, x, name, layer)
            keys.append(key)
            values.append(value)
        return self._logits(graph, x), Past(keys, values)

    def _embed_source(self, graph: Graph, src: str, shape: str) -> str:
        flat = graph.op("Reshape", src, graph.ints(-1))
        x = self._arithmetic.embed(graph, flat, "embedding", self._table)
        x = graph.op("Reshape", x, graph.op("Concat", shape, graph.ints(-1), axis=0))
        length = graph.op("Slice", shape, graph.ints(1), graph.ints(2))
        positions = graph.op("Slice", self.positions(graph), graph.ints(0), length)
        x = graph.op("Add", x, positions)
        return graph.op("Reshape", x, graph.ints(-1, self._model.width))

    def positions(self, graph: Graph) -> str:
        """Encodings of all positions [max_length, D]."""
        return graph.weight("positions", array(self._model.positions))

    def _mask(self, graph: Graph, src: str) -> str:
        """[B, 1, 1, S]: 0, and HIDDEN at padding."""
        padding = graph.op("Equal", src, graph.scalar("pad", PAD, "int64"))
        hidden = graph.scalar("hidden", HIDDEN, "float32")
        mask = graph.op("Where", padding, hidden, graph.scalar("shown", 0.0, "float32"))
        return graph.op("Unsqueeze", mask, graph.ints(1, 2))

    def _attend_source(
        self, graph: Graph, x: str, name: str, attention: SelfAttention, shape: str, mask: str
    ) -> str:
        """Self-attention of the encoder, [N, D] → [N, D]; inside, [1, B, H, S, D / H]."""
        qkv = self._qkv(graph, x, name, attention)
        dims = graph.op("Concat", shape, graph.ints(3, self.heads, self.head_width), axis=0)
        qkv = graph.op("Transpose", graph.op("Reshape", qkv, dims), perm=[2, 0, 3, 1, 4])
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
        key = graph.op("Transpose", key, perm=[0, 1, 2, 4, 3])
        mixed = self._mix(graph, query, key, value, mask)
        mixed = graph.op("Transpose", mixed, perm=[0, 1, 3, 2, 4])
        mixed = graph.op("Reshape", mixed, graph.ints(-1, self._model.width))
        return self._linear(graph, mixed, f"{name}.out", attention.out)

    def _attend_past(
        self,
        graph: Graph,
        x: str,
        name: str,
        attention: SelfAttention,
        past: tuple[str, str] | None,
    ) -> tuple[str, str, str]:
        """Self-attention of one new position, [B, D] → [B, D], and all keys and values so far."""
        qkv = self._qkv(graph, x, name, attention)
        qkv = graph.op("Reshape", qkv, graph.ints(-1, 3 * self.heads, 1, self.head_width))
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=1, num_outputs=3)
        key = graph.op("Reshape", key, graph.ints(-1, self.heads, self.head_width, 1))
        mixed = value  # attention over one position
        if past is not None:
            key = graph.op("Concat", past[0], key, axis=3)
            value = graph.op("Concat", past[1], value, axis=2)
            mixed = self._mix(graph, query, key, value, None)
        mixed = graph.op("Reshape", mixed, graph.ints(-1, self._model.width))
        return self._linear(graph, mixed, f"{name}.out", attention.out), key, value

    def _cross(
        self, graph: Graph, x: str, name: str, cross: CrossAttention, memory: tuple[str, str, str]
    ) -> str:
        """Attention of one new position to the source, [B, D] → [B, D]."""
        scale = np.float32(self.head_width**-0.5)
        weight, bias = array(cross.query.weight) * scale, array(cross.query.bias) * scale
        query = self._arithmetic.linear(graph, x, f"{name}.query", weight, bias)
        query = graph.op("Reshape", query, graph.ints(-1, self.heads, 1, self.head_width))
        mixed = self._mix(graph, query, *memory)
        mixed = graph.op("Reshape", mixed, graph.ints(-1, self._model.width))
        return self._linear(graph, mixed, f"{name}.cross_out", cross.out)

    def _memory(
        self, graph: Graph, memory: str, name: str, cross: CrossAttention, shape: str
    ) -> tuple[str, str]:
        """Encoder states [N, D] → keys [B, H, D / H, S] and values [B, H, S, D / H]."""
        both = self._linear(graph, memory, name, cross.kv)
        dims = graph.op("Concat", shape, graph.ints(2, self.heads, self.head_width), axis=0)
        both = graph.op("Reshape", both, dims)
        halves = graph.ops("Split", both, outputs=2, axis=2, num_outputs=2)
        key, value = (graph.op("Squeeze", half, graph.ints(2)) for half in halves)
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        return key, graph.op("Transpose", value, perm=[0, 2, 1, 3])

    def _qkv(self, graph: Graph, x: str, name: str, attention: SelfAttention) -> str:
        """Queries, keys and values side by side [N, 3 D]; queries scaled by (D / H) ^ -0.5."""
        scale = np.ones((3, self._model.width), np.float32)
        scale[0] = self.head_width**-0.5
        weight = array(attention.qkv.weight) * scale.reshape(-1, 1)
        bias = array(attention.qkv.bias) * scale.reshape(-1)
        return self._arithmetic.linear(graph, x, f"{name}.qkv", weight, bias)

    def _mix(self, graph: Graph, query: str, key: str, value: str, mask: str | None) -> str:
        scores = graph.op("MatMul", query, key)
        if mask is not None:
            scores = graph.op("Add", scores, mask)
        return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)

    def _feed_forward(
        self, graph: Graph, x: str, name: str, layer: EncoderLayer | DecoderLayer
    ) -> str:
        """x + its feed-forward branch, [N, D] → [N, D]."""
        ffn: FeedForward = layer.ffn
        normed = self._norm(graph, x, f"{name}.ffn_norm", layer.ffn_norm)
        inner = self._linear(graph, normed, f"{name}.inner", ffn.inner)
        inner = ACTIVATIONS[ffn.activation](graph, inner)
        return graph.op("Add", x, self._linear(graph, inner, f"{name}.outer", ffn.outer))

    def _linear(self, graph: Graph, x: str, name: str, linear: nn.Linear) -> str:
        return self._arithmetic.linear(graph, x, name, array(linear.weight), array(linear.bias))

    def _norm(
        self, graph: Graph, x: str, name: str, norm: nn.LayerNorm, scale: float = 1.0
    ) -> str:
        gain = graph.weight(f"{name}.gain", array(norm.weight) * np.float32(scale))
        bias = graph.weight(f"{name}.bias", array(norm.bias) * np.float32(scale))
        return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=norm.eps)

    def _logits(self, graph: Graph, x: str) -> str:
        """States [B, D] → logits [B, V]. The table is scaled for embedding, the norm against it."""
        bias = array(self._model.output_bias)
        bias[[PAD, UNK, BOS]] = HIDDEN
        norm = self._model.decoder_norm
        normed = self._norm(graph, x, "decoder_norm", norm, scale=1 / float(self._scale))
        return self._arithmetic.linear(graph, normed, "embedding", self._table, bias)


def _relu(graph: Graph, x: str) -> str:
    return graph.op("Relu", x)


def _gelu(graph: Graph, x: str) -> str:
    return graph.op("Gelu", x)


def _silu(graph: Graph, x: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x))


ACTIVATIONS = {"relu": _relu, "gelu": _gelu, "silu": _silu}


def array(tensor: Tensor | nn.Module) -> Array:
    """A tensor's own copy in float32 on the CPU."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy().copy()
