"""A model's weights as the bytes that the compiled engine reads (`src/model.c` has the order).

Weights are bytes with a step a row: w = byte · step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"QSNATIV1"
HEAD = struct.Struct("<12if12x")
ACTIVATIONS = ("relu", "silu", "gelu")
"""By their number in the head."""

Bytes = NDArray[np.int8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NativeDims:
    """The head of a model; `source_vocab_size` is 0 where both sides share a table."""

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

    def fault(self) -> str | None:
        """What the engine does not do, or None; `src/model.c` checks the same and more."""
        if self.activation not in ACTIVATIONS:
            return f"activation {self.activation}"
        if self.width % 8 or self.hidden % 8 or self.heads < 1 or self.width % (8 * self.heads):
            return (
                f"width {self.width}, {self.heads} heads, ffn {self.hidden}: widths and those of "
                "heads must be multiples of 8"
            )
        return None

    def to_bytes(self) -> bytes:
        numbers = (
            self.width, self.heads, self.hidden, self.encoder_layers, self.decoder_layers,
            self.vocab_size, self.source_vocab_size, self.positions,
            ACTIVATIONS.index(self.activation), self.post_norm, self.recurrent, self.shortlisted,
        )  # fmt: skip
        return MAGIC + HEAD.pack(*map(int, numbers), self.epsilon)


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
    for layer in range(dims.encoder_layers):
        yield from _encoder_layer(source, f"encoder.{layer}")
    if not dims.post_norm:
        yield from _norm(source, "encoder_norm")
    for layer in range(dims.decoder_layers):
        yield from _decoder_layer(source, f"decoder.{layer}")
    if not dims.post_norm:
        yield from _norm(source, "decoder_norm")


def _encoder_layer(source: NativeSource, name: str) -> Iterator[bytes]:
    width = source.dims.width
    yield from _norm(source, f"{name}.attention_norm")
    yield from _linear(source, f"{name}.attention.qkv", 3 * width, width)
    yield from _linear(source, f"{name}.attention.out", width, width)
    yield from _feed_forward(source, name)


def _decoder_layer(source: NativeSource, name: str) -> Iterator[bytes]:
    width = source.dims.width
    yield from _norm(source, f"{name}.attention_norm")
    if source.dims.recurrent:
        yield from _linear(source, f"{name}.attention.unit", 2 * width, width)
    else:
        yield from _linear(source, f"{name}.attention.qkv", 3 * width, width)
        yield from _linear(source, f"{name}.attention.out", width, width)
    yield from _norm(source, f"{name}.cross_norm")
    yield from _linear(source, f"{name}.cross.query", width, width)
    yield from _linear(source, f"{name}.cross.kv", 2 * width, width)
    yield from _linear(source, f"{name}.cross.out", width, width)
    yield from _feed_forward(source, name)


def _feed_forward(source: NativeSource, name: str) -> Iterator[bytes]:
    width, hidden = source.dims.width, source.dims.hidden
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
