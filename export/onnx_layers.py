"""The layers of `training.model.transformer` as ONNX nodes: encoder and decoder step.

States are [N, D], all positions of a batch below each other, so every linear layer is one matrix
product; only attention sees [B, H, length, D / H]. A decoder step has one new position a row, so
nothing needs to be transposed. Square roots of widths are folded into weights: √D into the
embedding table, out of the last norm; (D / H) ^ -½ into the queries.

With a shortlist the output layer is computed for C candidates alone, the union over a batch's
sentences; each sentence may choose among its own.

Shapes: B batch, S source length, T steps so far, N positions (B · S in the encoder), D width, H
heads, V vocabulary, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto
from torch import Tensor, nn

from export.onnx_builder import Arithmetic, Array, Graph, MakeArithmetic
from training.model.transformer import (
    BOS,
    EOS,
    PAD,
    SSRU,
    UNK,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    SelfAttention,
    Transformer,
    position_rates,
)


class Layers:
    """Writes layers of a model into graphs."""

    def __init__(self, model: Transformer, arithmetic: Arithmetic) -> None:
        self.model = model
        self.width = model.width
        self.head_width = model.width // model.heads
        self.arithmetic = arithmetic
        self.table = self._scaled(model.embedding)

    def _scaled(self, table: nn.Embedding) -> Array:
        return array(table.weight) * np.float32(math.sqrt(self.width))

    def embed(self, graph: Graph, ids: str) -> str:
        """Target ids [N] → scaled embeddings [N, D], without positions."""
        return self.arithmetic.embed(graph, ids, "embedding", self.table)

    def embed_source(self, graph: Graph, ids: str) -> str:
        """Source ids [N] → scaled embeddings [N, D], without positions."""
        own = self.model.source_embedding
        if own is None:
            return self.embed(graph, ids)
        return self.arithmetic.embed(graph, ids, "source_embedding", self._scaled(own))

    def linear(self, graph: Graph, x: str, name: str, linear: nn.Linear) -> str:
        """[N, inputs] → [N, outputs]."""
        return self.arithmetic.linear(graph, x, name, array(linear.weight), array(linear.bias))

    def residual(
        self,
        graph: Graph,
        x: str,
        name: str,
        norm: nn.LayerNorm,
        block: Callable[[str], str],
        scale: float = 1.0,
    ) -> str:
        """[N, D] → [N, D]: x with a block's output added, normalised before the block or after the
        sum; `scale` multiplies the norm after the sum."""
        if self.model.post_norm:
            return self.norm(graph, graph.op("Add", x, block(x)), name, norm, scale)
        return graph.op("Add", x, block(self.norm(graph, x, name, norm)))

    def final_norm(
        self, graph: Graph, x: str, name: str, norm: nn.Module, scale: float = 1.0
    ) -> str:
        """[N, D] → `scale` times the norm after the last layer; post-norm has none."""
        if not isinstance(norm, nn.LayerNorm):
            return x
        return self.norm(graph, x, name, norm, scale)

    def norm(self, graph: Graph, x: str, name: str, norm: nn.LayerNorm, scale: float = 1.0) -> str:
        """[N, D] → `scale` times their norm [N, D]."""
        gain = graph.weight(f"{name}.gain", array(norm.weight) * np.float32(scale))
        bias = graph.weight(f"{name}.bias", array(norm.bias) * np.float32(scale))
        return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=norm.eps)

    def qkv(self, graph: Graph, x: str, name: str, attention: SelfAttention) -> str:
        """[N, D] → scaled queries, keys and values side by side
        [N, 3 · H · D / H]."""
        scale = np.ones((3, attention.heads * self.head_width), np.float32)
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

    def join_heads(self, graph: Graph, mixed: str, heads: int) -> str:
        """[B, length, H, D / H], or [B, H, 1, D / H] → [N, H · D / H]."""
        return graph.op("Reshape", mixed, graph.ints(-1, heads * self.head_width))

    def feed_forward(
        self,
        graph: Graph,
        x: str,
        name: str,
        layer: EncoderLayer | DecoderLayer,
        scale: float = 1.0,
    ) -> str:
        """[N, D] → [N, D]; `scale` as for `residual`."""

        def block(states: str) -> str:
            inner = self.linear(graph, states, f"{name}.ffn.inner", layer.ffn.inner)
            inner = ACTIVATIONS[layer.ffn.activation](graph, inner)
            return self.linear(graph, inner, f"{name}.ffn.outer", layer.ffn.outer)

        return self.residual(graph, x, f"{name}.ffn_norm", layer.ffn_norm, block, scale)


def positions(graph: Graph, model: Transformer) -> str:
    """Encodings of all positions [max_length, D], computed in float64 from their rates when a
    runtime loads the graph: stored, they would take as many bytes as a thousand words."""
    rates = position_rates(model.width, model.sinusoids).numpy()
    phases = np.repeat([0.0, np.pi / 2], len(rates))  # the cosines are sines
    places = graph.weight("places", np.arange(model.max_length, dtype=np.float64)[:, None])
    angles = graph.shared("Mul", places, graph.weight("place_rates", np.tile(rates, 2)))
    angles = graph.shared("Add", angles, graph.weight("place_phases", phases))
    return graph.shared("Cast", graph.shared("Sin", angles), to=TensorProto.FLOAT)


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
    memory = encoder.layers.final_norm(graph, x, "encoder_norm", model.encoder_norm)
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
        mask = graph.op("Where", padding, *_hidden_and_shown(graph))
        self.mask = graph.op("Unsqueeze", mask, graph.ints(1, 2))

    def embed(self, ids: str) -> str:
        """Ids [N] → [N, D]."""
        graph = self.graph
        rows = graph.op("Reshape", self.layers.embed_source(graph, ids), self._dims(-1))
        length = graph.op("Slice", self._shape, graph.ints(1), graph.ints(2))
        table = positions(graph, self.layers.model)
        rows = graph.op("Add", rows, graph.op("Slice", table, graph.ints(0), length))
        return graph.op("Reshape", rows, graph.ints(-1, self.layers.width))

    def layer(self, x: str, name: str, layer: EncoderLayer) -> str:
        """[N, D] → [N, D]."""
        x = self.layers.residual(
            self.graph,
            x,
            f"{name}.attention_norm",
            layer.attention_norm,
            lambda states: self._attend(states, f"{name}.attention", layer.attention),
        )
        return self.layers.feed_forward(self.graph, x, name, layer)

    def _attend(self, x: str, name: str, attention: SelfAttention) -> str:
        """[N, D] → [N, D]; the heads are [1, B, H, S, D / H]."""
        graph, layers = self.graph, self.layers
        qkv = layers.qkv(graph, x, f"{name}.qkv", attention)
        qkv = graph.op("Reshape", qkv, self._dims(3, attention.heads, layers.head_width))
        qkv = graph.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=0, num_outputs=3)
        key = graph.op("Transpose", key, perm=[0, 1, 2, 4, 3])
        mixed = layers.mix(graph, query, key, value, self.mask)
        mixed = graph.op("Transpose", mixed, perm=[0, 1, 3, 2, 4])
        mixed = layers.join_heads(graph, mixed, attention.heads)
        return layers.linear(graph, mixed, f"{name}.out", attention.out)

    def memory(self, states: str, name: str, cross: CrossAttention) -> tuple[str, str]:
        """Encoder states [N, D] → keys [B, H, D / H, S] and values [B, H, S, D / H]."""
        graph, layers = self.graph, self.layers
        both = layers.linear(graph, states, name, cross.kv)
        both = graph.op("Reshape", both, self._dims(2, cross.heads, layers.head_width))
        halves = graph.ops("Split", both, outputs=2, axis=2, num_outputs=2)
        key, value = (graph.op("Squeeze", half, graph.ints(2)) for half in halves)
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        return key, graph.op("Transpose", value, perm=[0, 2, 1, 3])

    def _dims(self, *inner: int) -> str:
        """The shape [B, S, *inner]."""
        return self.graph.op("Concat", self._shape, self.graph.ints(*inner), axis=0)


Past = list[list[str]]
"""What a step reads of those before it, by layer: the keys [B, H, D / H, T] and values
[B, H, T, D / H] of self-attention, or the state [B, D] of a recurrent unit."""


@dataclass(frozen=True)
class Shortlist:
    """Candidates of a batch's output layer, in the outermost graph: their ids [C], what the
    arithmetic needs of them, and what is added to the logits [B, C] so that a sentence chooses
    among its own."""

    ids: str
    rows: list[str]
    mask: str


class Decoder:
    """Writes steps of a model's decoder into graphs. `arithmetic` is for B positions."""

    def __init__(
        self, model: Transformer, arithmetic: Arithmetic, shortlist: Shortlist | None = None
    ) -> None:
        self.model = model
        self._layers = Layers(model, arithmetic)
        self._shortlist = shortlist

    def shortlisted(self, graph: Graph, candidates: str, mask: str) -> Decoder:
        """This decoder with an output layer of the candidates [C] alone, gathered in `graph`."""
        rows = self._layers.arithmetic.rows(
            graph, candidates, "embedding", self._layers.table, self._output_bias()
        )
        chosen = Shortlist(candidates, rows, mask)
        return Decoder(self.model, self._layers.arithmetic, chosen)

    def first_step(self, graph: Graph, bos: str, source: EncodedSource) -> tuple[str, Past]:
        """BOS [B] → logits [B, V] (or [B, C]), EOS banned too, and what the next step reads."""
        table = positions(graph, self.model)
        position = graph.op("Gather", table, graph.scalar("zero", 0, "int64"))
        logits, past = self.step(graph, bos, position, source, None)
        eos = graph.scalar("eos", EOS, "int64")
        if self._shortlist is None:
            choices = graph.weight("eos_ban", np.array([0, HIDDEN], np.float32))
            banned = graph.op("OneHot", eos, graph.ints(self.model.vocab_size), choices)
        else:
            hidden, shown = _hidden_and_shown(graph)
            banned = graph.op("Where", graph.op("Equal", self._shortlist.ids, eos), hidden, shown)
        return graph.op("Add", logits, banned), past

    def token(self, graph: Graph, choice: str) -> str:
        """The index of the largest logit [B] → token ids [B]."""
        return (
            choice if self._shortlist is None else graph.op("Gather", self._shortlist.ids, choice)
        )

    def step(
        self, graph: Graph, last: str, position: str, source: EncodedSource, past: Past | None
    ) -> tuple[str, Past]:
        """Token ids [B] and their position's encoding [D] → logits [B, V] (or [B, C]), and what
        the next step reads. `past` is None at the first step. PAD, UNK and BOS are banned."""
        x = graph.op("Add", self._layers.embed(graph, last), position)
        after: Past = []
        for index, layer in enumerate(self.model.decoder):
            assert isinstance(layer, DecoderLayer)
            before = past[index] if past is not None else None
            memory = (source.keys[index], source.values[index], source.mask)
            x, kept = self._layer(graph, x, index, layer, memory, before)
            after.append(kept)
        return self._logits(graph, x), after

    def _layer(
        self,
        graph: Graph,
        x: str,
        index: int,
        layer: DecoderLayer,
        memory: tuple[str, str, str],
        before: list[str] | None,
    ) -> tuple[str, list[str]]:
        """[B, D] → [B, D], and what the layer's next step reads."""
        name = f"decoder.{index}"
        kept: list[str] = []

        def attend(states: str) -> str:
            nonlocal kept
            write = self._recur if isinstance(layer.attention, SSRU) else self._attend
            mixed, kept = write(graph, states, f"{name}.attention", layer.attention, before)
            return mixed

        def cross(states: str) -> str:
            return self._cross(graph, states, f"{name}.cross", layer.cross, memory)

        residual = self._layers.residual
        x = residual(graph, x, f"{name}.attention_norm", layer.attention_norm, attend)
        x = residual(graph, x, f"{name}.cross_norm", layer.cross_norm, cross)
        last = index == len(self.model.decoder) - 1
        scale = self._unscale if last else 1.0
        return self._layers.feed_forward(graph, x, name, layer, scale), kept

    @property
    def _unscale(self) -> float:
        """What undoes the scale of the embedding table in the output layer."""
        return float(self.model.width**-0.5)

    def _attend(
        self,
        graph: Graph,
        x: str,
        name: str,
        attention: nn.Module,
        past: list[str] | None,
    ) -> tuple[str, list[str]]:
        """Self-attention of the new position, [B, D] → [B, D], and all keys and values so far."""
        assert isinstance(attention, SelfAttention)
        heads, head_width = attention.heads, self._layers.head_width
        qkv = self._layers.qkv(graph, x, f"{name}.qkv", attention)
        qkv = graph.op("Reshape", qkv, graph.ints(-1, 3 * heads, 1, head_width))
        query, key, value = graph.ops("Split", qkv, outputs=3, axis=1, num_outputs=3)
        key = graph.op("Reshape", key, graph.ints(-1, heads, head_width, 1))
        mixed = value  # attention over one position
        if past is not None:
            key = graph.op("Concat", past[0], key, axis=3)
            value = graph.op("Concat", past[1], value, axis=2)
            mixed = self._layers.mix(graph, query, key, value, None)
        mixed = self._layers.join_heads(graph, mixed, heads)
        return self._layers.linear(graph, mixed, f"{name}.out", attention.out), [key, value]

    def _recur(
        self, graph: Graph, x: str, name: str, unit: nn.Module, past: list[str] | None
    ) -> tuple[str, list[str]]:
        """The recurrent unit at the new position, [B, D] → [B, D], and its state [B, D]."""
        assert isinstance(unit, SSRU)
        weight = np.concatenate([array(unit.candidate.weight), array(unit.forget.weight)])
        bias = np.concatenate([np.zeros(self._layers.width, np.float32), array(unit.forget.bias)])
        both = self._layers.arithmetic.linear(graph, x, f"{name}.unit", weight, bias)
        candidate, forget = graph.ops("Split", both, outputs=2, axis=1, num_outputs=2)
        forget = graph.op("Sigmoid", forget)
        if past is None:
            state = graph.op("Sub", candidate, graph.op("Mul", forget, candidate))
        else:
            change = graph.op("Mul", forget, graph.op("Sub", past[0], candidate))
            state = graph.op("Add", candidate, change)
        return graph.op("Relu", state), [state]

    def _cross(
        self, graph: Graph, x: str, name: str, cross: CrossAttention, memory: tuple[str, str, str]
    ) -> str:
        """Attention of the new position to the source, [B, D] → [B, D]."""
        heads, head_width = cross.heads, self._layers.head_width
        scale = np.float32(head_width**-0.5)
        weight, bias = array(cross.query.weight) * scale, array(cross.query.bias) * scale
        query = self._layers.arithmetic.linear(graph, x, f"{name}.query", weight, bias)
        query = graph.op("Reshape", query, graph.ints(-1, heads, 1, head_width))
        mixed = self._layers.join_heads(graph, self._layers.mix(graph, query, *memory), heads)
        return self._layers.linear(graph, mixed, f"{name}.out", cross.out)

    def _output_bias(self) -> Array:
        """The output layer's bias, with PAD, UNK and BOS banned."""
        bias = array(self.model.output_bias)
        bias[[PAD, UNK, BOS]] = HIDDEN
        return bias

    def _logits(self, graph: Graph, x: str) -> str:
        """States [B, D] → logits [B, V], or [B, C] of the candidates."""
        layers = self._layers
        states = layers.final_norm(graph, x, "decoder_norm", self.model.decoder_norm, self._unscale)
        if self._shortlist is None:
            bias = self._output_bias()
            return layers.arithmetic.linear(graph, states, "embedding", layers.table, bias)
        logits = layers.arithmetic.linear_of_rows(graph, states, self._shortlist.rows)
        return graph.op("Add", logits, self._shortlist.mask)


def _hidden_and_shown(graph: Graph) -> tuple[str, str]:
    return graph.scalar("hidden", HIDDEN, "float32"), graph.scalar("shown", 0, "float32")
