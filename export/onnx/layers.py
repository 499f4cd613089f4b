"""What the encoder and the decoder share, as ONNX nodes: the layers of `training.model`.

States are [N, D], all positions of a batch below each other, so that every linear layer is one
matrix product; only attention sees [B, H, length, D / H]. Square roots of widths are moved into
weights: √D into the embedding table, out of the last norm; (D / H) ^ -½ into the queries.

Shapes: B batch, N positions, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from export.onnx.builder import Graph
from export.onnx.linear import Arithmetic, Array
from training.model import DecoderLayer, EncoderLayer, SelfAttention, Transformer


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
