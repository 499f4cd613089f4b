"""The weights of an int8 `greedy.onnx` that our export wrote, for the compiled engine.

Both engines then compute with the same bytes, from one file. `export.onnx` names weights as the
model does and folds the scales of embeddings, queries and the last norm into them; here they are
taken out again, since the compiled engine multiplies by them itself. The nodes are not run, but
read as far as they say what the weights do not: heads, activation, epsilon; and every weight must
be used by as many nodes of the kinds as our graphs have, so that a graph that computes something
else is not taken for one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.native.weights import Floats, LayerDims, NativeDims, NativeSource, Quantised
from export.runtime.onnx_format import (
    CANDIDATES,
    FORMAT,
    FORMAT_VERSION,
    GREEDY_INPUTS,
    Node,
    OnnxModel,
    parse_onnx,
    read_onnx,
)

PRECISIONS = ("int8", "int8-7bit")
CONSTANTS = {"zero_point": 128, "activation_step": 1 / 127, "pad": 0, "bos": 2, "eos": 3}
ACTIVATIONS = {("Relu",): "relu", ("Gelu",): "gelu", ("Mul", "Sigmoid"): "silu"}
"""By the nodes that read the first layer of a feed-forward block."""
MOST_POSITIONS = 1 << 24
"""Values of the position table that are computed; a table of 16,384 positions at width 1,024 has as
many."""
Uses = dict[str, Counter[str]]
"""How many nodes of each kind read a weight."""


def read_onnx_weights(path: Path, *, shortlisted: bool) -> NativeSource:
    """The weights of a graph, in the bytes that it has; `shortlisted` says what it must take.

    Raises ValueError for a graph that is not one of ours in int8, BundleError for a file that is
    none at all.
    """
    graph = GreedyGraph(parse_onnx(read_onnx(path)), shortlisted)
    graph.check()
    return NativeSource(graph.dims, quantised=graph.quantised, floats=graph.floats)


@dataclass(frozen=True)
class GreedyGraph:
    """A greedy graph as a model's dimensions and weights."""

    model: OnnxModel
    shortlisted: bool

    def check(self) -> None:
        """Raise ValueError where the graph is not what `export.onnx` writes."""
        metadata = self.model.metadata
        stated = metadata.get("format"), metadata.get("format_version")
        if stated != (FORMAT, FORMAT_VERSION) or metadata.get("precision") not in PRECISIONS:
            raise ValueError(f"it is {stated} in {metadata.get('precision')}, not ours in int8")
        inputs = [*GREEDY_INPUTS, *(CANDIDATES if self.shortlisted else [])]
        if self.model.inputs != inputs:
            raise ValueError(f"it takes {self.model.inputs[:10]}, not {inputs}")
        for name, value in CONSTANTS.items():
            if not np.array_equal(self._weight(name).astype(np.float32).ravel(), _single(value)):
                raise ValueError(f"its {name} is not {value:g}")
        self._check_uses()

    def _check_uses(self) -> None:
        expected = self._position_uses() | _expected_uses(self.dims)
        for name, uses in expected.items():
            if (found := self._uses[name]) != uses:
                raise ValueError(f"{name} is read by {dict(found)}, not {dict(uses)}")
        known = (*expected, *CONSTANTS)
        for name, array in self.model.weights.items():
            if name not in known and array.size > 4:
                raise ValueError(f"it has a weight {name[:100]!r}, which is not known")

    # --- dimensions ---

    @cached_property
    def dims(self) -> NativeDims:
        """Sizes and options; `_check_uses` and `model_bytes` hold the weights against them."""
        table = self._matrix("embedding")
        weights = self.model.weights
        own = "source_embedding" in weights
        width, head_width = table.shape[1], self._head_width()
        layers = {side: self._layers(side) for side in ("encoder", "decoder")}
        sizes = tuple(
            self._sizes(f"{side}.{number}", head_width)
            for side, many in layers.items()
            for number in range(many)
        )
        return NativeDims(
            width=width,
            heads=width // head_width,
            hidden=max(layer.hidden for layer in sizes),
            encoder_layers=layers["encoder"],
            decoder_layers=layers["decoder"],
            vocab_size=len(table),
            source_vocab_size=len(self._matrix("source_embedding")) if own else 0,
            positions=self._positions,
            activation=self._activation(),
            post_norm="encoder_norm.gain" not in weights,
            recurrent="decoder.0.attention.unit" in weights,
            shortlisted=self.shortlisted,
            epsilon=self._epsilon(),
            sizes=sizes,
        )

    def _layers(self, side: str) -> int:
        return next(n for n in count() if f"{side}.{n}.ffn.inner" not in self.model.weights)

    def _head_width(self) -> int:
        """From the shapes that queries, keys and values are given: 3, heads, width of a head."""
        shapes = [
            array.tolist()
            for array in self.model.weights.values()
            if array.dtype == np.int64 and array.shape == (3,) and array[0] == 3
        ]
        widths = {width for _, heads, width in shapes if heads > 0 and width > 0}
        mixed = len(self._matrix("encoder.0.attention.qkv"))
        if len(widths) != 1 or mixed % (3 * (width := int(widths.pop()))):
            raise ValueError("it does not say how many heads there are")
        return width

    def _sizes(self, name: str, head_width: int) -> LayerDims:
        """Those of a layer, by its matrices."""
        qkv, kv = f"{name}.attention.qkv", f"{name}.cross.kv"
        rows = {part: len(self._matrix(part)) for part in (qkv, kv) if part in self.model.weights}
        return LayerDims(
            heads=rows.get(qkv, 0) // (3 * head_width),
            cross_heads=rows.get(kv, 0) // (2 * head_width),
            hidden=len(self._matrix(f"{name}.ffn.inner")),
        )

    def _activation(self) -> str:
        """What reads the first layer of each feed-forward block."""
        found = {
            tuple(sorted(reader.op for output in node.outputs for reader in self._readers[output]))
            for node in self.model.nodes
            if node.op == "Add" and any(name.endswith(".ffn.inner.bias") for name in node.inputs)
        }
        if len(found) != 1 or (activation := ACTIVATIONS.get(found.pop())) is None:
            raise ValueError("it has no activation that is known")
        return activation

    def _epsilon(self) -> float:
        found = {
            node.attributes.get("epsilon", 1e-5)
            for node in self.model.nodes
            if node.op == "LayerNormalization"
        }
        if len(found) != 1:
            raise ValueError("its norms have no common epsilon")
        return found.pop()

    # --- nodes ---

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        """The nodes that read a value."""
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.model.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    @cached_property
    def _uses(self) -> Uses:
        uses: Uses = defaultdict(Counter)
        for name in self.model.weights:
            uses[name] = Counter(node.op for node in self._readers.get(name, []))
        return uses

    # --- weights, by their names in the model ---

    def quantised(self, name: str) -> Quantised:
        """A weight and its steps, without the scale that the graph has folded into them."""
        rows, steps = self._weight(name), self._vector(f"{name}.scale")
        return Quantised(rows, _divided(steps, self._folded(name, len(steps))))

    def floats(self, name: str) -> Floats:
        """A bias or a part of a norm, likewise."""
        if name == "positions":
            return self._position_table()
        if name == "output_bias":
            return self._vector("embedding.bias")
        module, _, part = name.rpartition(".")
        if module.endswith("norm"):
            array = self._vector(f"{module}.{'gain' if part == 'weight' else part}")
            return _divided(array, self._last_scale) if module == self._last_norm else array
        array = self._vector(name)
        return _divided(array, self._folded(module, len(array)))

    # --- positions: a table in files of former versions, now computed from their rates ---

    @property
    def _positions(self) -> int:
        stored = "positions" in self.model.weights
        return len(self._matrix("positions" if stored else "places"))

    def _position_uses(self) -> Uses:
        """The nodes that read what positions are made of; raises ValueError unless the table that
        they make is read as a stored one is."""
        table_uses = Counter(Slice=2, Gather=1)
        if "positions" in self.model.weights:
            return {"positions": table_uses}
        value = "places"
        for op in ("Mul", "Add", "Sin", "Cast"):
            found = self._readers.get(value, [])
            if [(one.op, len(one.outputs)) for one in found] != [(op, 1)]:
                raise ValueError(f"its positions are not made by one {op}")
            value = found[0].outputs[0]
        if (uses := Counter(node.op for node in self._readers.get(value, []))) != table_uses:
            raise ValueError(f"its positions are read by {dict(uses)}, not {dict(table_uses)}")
        once = {"places": "Mul", "place_rates": "Mul", "place_phases": "Add"}
        return {name: Counter({op: 1}) for name, op in once.items()}

    def _position_table(self) -> Floats:
        if "positions" in self.model.weights:
            return self._weight("positions")
        places, width = self._matrix("places"), self.dims.width
        rates, phases = self._vector("place_rates"), self._vector("place_phases")
        if places.shape[1] != 1 or not len(rates) == len(phases) == width:
            raise ValueError("the rates of its positions do not fit")
        if places.size * width > MOST_POSITIONS:
            raise ValueError(f"{len(places)} positions of {width} values are too many")
        return np.sin(places * rates + phases).astype(np.float32)

    def _folded(self, name: str, rows: int) -> Floats:
        """The scale of each row: of embeddings the square root of the width, of queries one over
        that of a head's."""
        dims = self.dims
        scale = np.ones(rows, np.float32)
        if name.endswith("embedding"):
            scale[:] = np.float32(dims.width**0.5)
        elif name.endswith(".cross.query"):
            scale[:] = np.float32(dims.head_width**-0.5)
        elif name.endswith(".qkv"):
            scale[: rows // 3] = np.float32(dims.head_width**-0.5)
        return scale

    @property
    def _last_norm(self) -> str:
        """The norm whose output the output layer takes."""
        last = f"decoder.{self.dims.decoder_layers - 1}.ffn_norm"
        return last if self.dims.post_norm else "decoder_norm"

    @property
    def _last_scale(self) -> np.float32:
        return np.float32(self.dims.width**-0.5)

    def _weight(self, name: str) -> NDArray[Any]:
        if (array := self.model.weights.get(name)) is None:
            raise ValueError(f"it lacks {name}")
        return array

    def _matrix(self, name: str) -> NDArray[Any]:
        if (array := self._weight(name)).ndim != 2 or not array.size:
            raise ValueError(f"{name} is no matrix")
        return array

    def _vector(self, name: str) -> NDArray[Any]:
        if (array := self._weight(name)).ndim != 1:
            raise ValueError(f"{name} is no vector")
        return array


def _divided(array: Floats, scale: Floats | np.float32) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):  # the compiled engine refuses such values
        divided: Floats = array / scale
    return divided


def _single(value: float) -> Floats:
    return np.array([value], np.float32)


# --- how our graphs use their weights ------------------------------------------------------------


def _expected_uses(dims: NativeDims) -> Uses:
    """The nodes that read each weight: of the decoder there are the first step and the later ones,
    and a product turns its matrix once."""
    uses = _table_uses(dims)
    for layer in range(dims.encoder_layers):
        name = f"encoder.{layer}"
        uses |= _norms([f"{name}.attention_norm", f"{name}.ffn_norm"], 1)
        linears = ("attention.qkv", "attention.out", "ffn.inner", "ffn.outer")
        uses |= _linears([f"{name}.{part}" for part in linears], 1)
    cell = ("attention.unit",) if dims.recurrent else ("attention.qkv", "attention.out")
    for layer in range(dims.decoder_layers):
        name = f"decoder.{layer}"
        norms = ("attention_norm", "cross_norm", "ffn_norm")
        uses |= _norms([f"{name}.{part}" for part in norms], 2)
        linears = (*cell, "cross.query", "cross.out", "ffn.inner", "ffn.outer")
        uses |= _linears([f"{name}.{part}" for part in linears], 2)
        uses |= _linears([f"{name}.cross.kv"], 1)
    if not dims.post_norm:
        uses |= _norms(["encoder_norm"], 1) | _norms(["decoder_norm"], 2)
    return uses


def _table_uses(dims: NativeDims) -> Uses:
    """Of the embeddings, the target's being the output layer too."""
    shared, own = 1, {}
    if dims.source_vocab_size:
        shared = 0
        own = {"source_embedding": Counter(Gather=1), "source_embedding.scale": Counter(Gather=1)}
    if dims.shortlisted:
        rows = Counter(Gather=3 + shared)
        return {
            "embedding": rows,
            "embedding.scale": rows,
            "embedding.bias": Counter(Gather=1),
            **own,
        }
    rows = Counter(Gather=2 + shared)
    return {
        "embedding": rows + Counter(Transpose=1),
        "embedding.scale": rows + Counter(Mul=2),
        "embedding.bias": Counter(Add=2),
        **own,
    }


def _norms(names: list[str], times: int) -> Uses:
    return {
        f"{name}.{part}": Counter(LayerNormalization=times)
        for name in names
        for part in ("gain", "bias")
    }


def _linears(names: list[str], times: int) -> Uses:
    uses: Uses = {}
    for name in names:
        uses[name] = Counter(Transpose=1)
        uses[f"{name}.scale"] = Counter(Mul=times)
        uses[f"{name}.bias"] = Counter(Add=times)
    return uses
