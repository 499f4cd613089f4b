"""One cached decoder step as ONNX nodes.

It has one new position a row, so that nothing needs to be transposed.

Shapes: B batch, S source length, T steps so far, V vocabulary, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.onnx.builder import Graph
from export.onnx.encoder import HIDDEN, EncodedSource
from export.onnx.layers import Layers, array, positions
from export.onnx.linear import Arithmetic
from training.model import (
    BOS,
    EOS,
    PAD,
    UNK,
    CrossAttention,
    DecoderLayer,
    SelfAttention,
    Transformer,
)


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
