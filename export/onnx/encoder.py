"""The encoder as ONNX nodes, up to the keys and values that the decoder attends to.

Shapes: B batch, S source length, N = B · S, D width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.onnx.builder import Graph
from export.onnx.layers import Layers, positions
from export.onnx.linear import MakeArithmetic
from training.model import (
    PAD,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    SelfAttention,
    Transformer,
)

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
