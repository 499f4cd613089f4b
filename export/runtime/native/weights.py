"""A model's weights as the bytes that the compiled engine reads (`src/model.c` has the order).

Weights are bytes with a step a row: w = byte · step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_LAYERS = 256
"""Of a side, as in `src/model.c`."""
MAGIC = b"QSNATIV2"
HEAD = struct.Struct("<12if12x")
SIZES = struct.Struct("<3i")
ACTIVATIONS = ("relu", "silu", "gelu")
"""By their number in the head."""

Bytes = NDArray[np.int8]
Floats = NDArray[np.float32]


class LayerDims(NamedTuple):
    """What a layer has of its own: heads of self-attention (0 in the place of a recurrent unit) and
    of attention to the source (0 in the encoder), and feed-forward units."""

    heads: int
    cross_heads: int
    hidden: int


@dataclass(frozen=True)
class NativeDims:
    """The head of a model; `source_vocab_size` is 0 where both sides share a table. `sizes` are
    those of all layers, the encoder's first, where they are not all alike: `heads` and `hidden` are
    then what a whole layer has, and no layer has more."""

    width: int
    heads: int
    hidden: int
    encoder_layers: int
    decoder_layers: int
    vocab_size: int
    source_vocab_size: int
    positions: int
    activation: str
    post_norm: bool
    recurrent: bool
    shortlisted: bool
    epsilon: float
    sizes: tuple[LayerDims, ...] = ()

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def layers(self) -> tuple[LayerDims, ...]:
        """The sizes of all layers, the encoder's first. Raises ValueError where there are other
        than so many."""
        count = self.encoder_layers + self.decoder_layers
        if self.sizes and len(self.sizes) != count:
            raise ValueError(f"sizes of {len(self.sizes)} layers are given, there are {count}")
        encoder = LayerDims(self.heads, 0, self.hidden)
        decoder = LayerDims(0 if self.recurrent else self.heads, self.heads, self.hidden)
        alike = (encoder,) * self.encoder_layers + (decoder,) * self.decoder_layers
        return self.sizes or alike

    def fault(self) -> str | None:
        """What the engine does not do, or None; `src/model.c` checks the same and more."""
        if self.activation not in ACTIVATIONS:
            return f"activation {self.activation}"
        if self.width % 8 or self.hidden % 8 or self.heads < 1 or self.width % (8 * self.heads):
            return (
                f"width {self.width}, {self.heads} heads, ffn {self.hidden}: widths and those of "
                "heads must be multiples of 8"
            )
        if not all(1 <= n <= MOST_LAYERS for n in (self.encoder_layers, self.decoder_layers)):
            return f"{self.encoder_layers} and {self.decoder_layers} layers"
        for layer in self.sizes:
            most = LayerDims(self.heads, self.heads, self.hidden)
            if layer.hidden % 8 or any(size > of for size, of in zip(layer, most, strict=True)):
                return f"a layer of {layer}"
        return None

    def to_bytes(self) -> bytes:
        numbers = (
            self.width, self.head_width, self.hidden, self.encoder_layers, self.decoder_layers,
            self.vocab_size, self.source_vocab_size, self.positions,
            ACTIVATIONS.index(self.activation), self.post_norm, self.recurrent, self.shortlisted,
        )  # fmt: skip
        sizes = b"".join(SIZES.pack(*layer) for layer in self.layers)
        return MAGIC + HEAD.pack(*map(int, numbers), self.epsilon) + sizes


@dataclass(frozen=True)
class Quantised:
    """Rows of bytes [rows, columns] and their steps [rows]."""

    rows: Bytes
    steps: Floats


class NativeSource:
    """Where the arrays of a model come from, by the names of `training.model.transformer`.

    `quantised("decoder.0.cross.kv")` is a weight, `floats("encoder.0.ffn_norm.bias")` a bias or a
    part of a norm. Shapes are what the dimensions ask for; `model_bytes` holds them against it.
    """

    def __init__(
        self,
        dims: NativeDims,
        quantised: Callable[[str], Quantised],
        floats: Callable[[str], Floats],
    ) -> None:
        self.dims = dims
        self.quantised = quantised
        self.floats = floats


def model_bytes(source: NativeSource) -> bytes:
    """The bytes of a model. Raises ValueError where an array does not fit the dimensions."""
    if fault := source.dims.fault():
        raise ValueError(f"the compiled engine does not do {fault}")
    return b"".join([source.dims.to_bytes(), *_arrays(source)])


def _arrays(source: NativeSource) -> Iterator[bytes]:
    dims = source.dims
    yield _floats(source, "positions", dims.positions, dims.width)
    yield from _table(source, "embedding", dims.vocab_size)
    yield _floats(source, "output_bias", dims.vocab_size)
    if dims.source_vocab_size:
        yield from _table(source, "source_embedding", dims.source_vocab_size)
    encoder, decoder = dims.layers[: dims.encoder_layers], dims.layers[dims.encoder_layers :]
    for number, layer in enumerate(encoder):
        yield from _encoder_layer(source, f"encoder.{number}", layer)
    if not dims.post_norm:
        yield from _norm(source, "encoder_norm")
    for number, layer in enumerate(decoder):
        yield from _decoder_layer(source, f"decoder.{number}", layer)
    if not dims.post_norm:
        yield from _norm(source, "decoder_norm")


def _encoder_layer(source: NativeSource, name: str, layer: LayerDims) -> Iterator[bytes]:
    yield from _norm(source, f"{name}.attention_norm")
    yield from _self_attention(source, f"{name}.attention", layer.heads)
    yield from _feed_forward(source, name, layer.hidden)


def _decoder_layer(source: NativeSource, name: str, layer: LayerDims) -> Iterator[bytes]:
    width = source.dims.width
    yield from _norm(source, f"{name}.attention_norm")
    if source.dims.recurrent:
        yield from _linear(source, f"{name}.attention.unit", 2 * width, width)
    else:
        yield from _self_attention(source, f"{name}.attention", layer.heads)
    yield from _norm(source, f"{name}.cross_norm")
    mixed = layer.cross_heads * source.dims.head_width
    yield from _linear(source, f"{name}.cross.query", mixed, width)
    yield from _linear(source, f"{name}.cross.kv", 2 * mixed, width)
    yield from _linear(source, f"{name}.cross.out", width, mixed)
    yield from _feed_forward(source, name, layer.hidden)


def _self_attention(source: NativeSource, name: str, heads: int) -> Iterator[bytes]:
    width, mixed = source.dims.width, heads * source.dims.head_width
    yield from _linear(source, f"{name}.qkv", 3 * mixed, width)
    yield from _linear(source, f"{name}.out", width, mixed)


def _feed_forward(source: NativeSource, name: str, hidden: int) -> Iterator[bytes]:
    width = source.dims.width
    yield from _norm(source, f"{name}.ffn_norm")
    yield from _linear(source, f"{name}.ffn.inner", hidden, width)
    yield from _linear(source, f"{name}.ffn.outer", width, hidden)


def _table(source: NativeSource, name: str, rows: int) -> Iterator[bytes]:
    table = _quantised(source, name, rows, source.dims.width)
    yield table.steps.astype("<f4").tobytes()
    yield table.rows.tobytes()


def _linear(source: NativeSource, name: str, outputs: int, inputs: int) -> Iterator[bytes]:
    weight = _quantised(source, name, outputs, inputs)
    yield weight.steps.astype("<f4").tobytes()
    yield _floats(source, f"{name}.bias", outputs)
    yield weight.rows.tobytes()


def _norm(source: NativeSource, name: str) -> Iterator[bytes]:
    for part in ("weight", "bias"):
        yield _floats(source, f"{name}.{part}", source.dims.width)


def _quantised(source: NativeSource, name: str, rows: int, columns: int) -> Quantised:
    weight = source.quantised(name)
    if weight.rows.shape != (rows, columns) or weight.rows.dtype != np.int8:
        raise ValueError(f"{name} is {_shown(weight.rows)}, int8 {[rows, columns]} is needed")
    if weight.steps.shape != (rows,):
        raise ValueError(f"the steps of {name} are {_shown(weight.steps)}, [{rows}] are needed")
    return weight


def _floats(source: NativeSource, name: str, *shape: int) -> bytes:
    array = source.floats(name)
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name} is {_shown(array)}, float32 {list(shape)} is needed")
    return array.astype("<f4").tobytes()


def _shown(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
