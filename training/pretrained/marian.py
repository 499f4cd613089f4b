"""Marian's Transformer as ours: settings checked, weights renamed.

A setting that asks for something our Transformer does not compute is refused by name. Names and
meaning follow src/models/transformer.h of marian-dev. Marian's GELU is x · σ(1.702 x), which a SiLU
computes with weights scaled by that number.

Shapes: D width, F inner width; Marian's matrices are [in, out], ours [out, in].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from training.pretrained.base import MAX_LAYERS, Array
from training.pretrained.files import PretrainedError, shown
from training.pretrained.marian_container import Container
from training.pretrained.vocabulary import Vocabulary

NORM_EPSILON = 1e-6
GELU_SCALE = 1.702
ACTIVATIONS = {"relu": "relu", "swish": "silu", "gelu": "silu"}
FIXED: dict[str, tuple[str, ...]] = {
    "type": ("transformer",),
    "layer-normalization": ("false",),
    "right-left": ("false",),
    "transformer-ffn-depth": ("2",),
    "transformer-decoder-ffn-depth": ("0", "2"),
    "transformer-no-projection": ("false",),
    "transformer-pool": ("false",),
    "transformer-train-position-embeddings": ("false",),
    "transformer-train-positions": ("false",),
    "transformer-postprocess-emb": ("", "d"),
    "transformer-rnn-projection": ("false",),
    "transformer-no-affine": ("false",),
    "transformer-no-bias": ("false",),
    "factors-dim-emb": ("0",),
    "lemma-dim-emb": ("0",),
    "lemma-dependency": ("",),
    "factors-combine": ("", "sum"),
    "ulr": ("false",),
    "output-approx-knn": ("",),
}
"""Settings and the values that our Transformer computes."""


@dataclass(frozen=True)
class Architecture:
    """What the settings of a Marian Transformer ask for, in our terms."""

    width: int
    heads: int
    ffn: int
    encoder_layers: int
    decoder_layers: tuple[int, ...]
    """Number of each layer's weights in the file: tied layers share theirs"""
    activation: str
    norm: Literal["pre", "post"]
    decoder_cell: Literal["attention", "ssru"]
    source_table: str
    target_table: str
    output_bias: bool
    version: str | None

    @property
    def joint(self) -> bool:
        """Whether source and target share their embeddings."""
        return self.source_table == self.target_table

    def dimensions(self) -> dict[str, Any]:
        """Fields of a `ModelConfig`."""
        return {
            "width": self.width,
            "heads": self.heads,
            "ffn": self.ffn,
            "encoder_layers": self.encoder_layers,
            "decoder_layers": len(self.decoder_layers),
            "activation": ACTIVATIONS[self.activation],
            "norm": self.norm,
            "decoder_cell": self.decoder_cell,
            "norm_epsilon": NORM_EPSILON,
            "sinusoids": "tensor2tensor",
        }


# --- settings ----------------------------------------------------------------------------------


class _Settings:
    """Settings of a model; collects what does not fit, so that all of it is named at once."""

    def __init__(self, values: dict[str, Any], origin: str) -> None:
        self.values = values
        self.origin = origin
        self.faults: list[str] = []

    def refuse(self, name: str, reason: str = "") -> None:
        value = self.values.get(name)
        self.faults.append(f"{name}: {shown(value)}{f' ({reason})' if reason else ''}")

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name, default)
        if value == [] or value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(name)
            return default
        return value

    def flag(self, name: str) -> bool:
        value = self.text(name, "false").lower()
        if value not in ("true", "false"):
            self.refuse(name)
        return value == "true"

    def number(self, name: str, most: int) -> int:
        value = self.text(name)
        if not (value.isascii() and value.isdecimal() and 0 < len(value) < 10):
            self.refuse(name, "missing" if name not in self.values else "")
            return 1
        if not 0 < int(value) <= most:
            self.refuse(name, f"1 to {most} are read")
            return 1
        return int(value)

    def raise_faults(self) -> None:
        if self.faults:
            raise PretrainedError(
                f"{self.origin}: these settings do not fit our Transformer: "
                + "; ".join(self.faults)
            )


def read_architecture(values: dict[str, Any], origin: str) -> Architecture:
    """What a model's settings ask for.

    Raises PretrainedError with every setting that our Transformer does not compute.
    """
    settings = _Settings(values, origin)
    for name, allowed in FIXED.items():
        if name in values and settings.text(name, allowed[0]) not in allowed:
            settings.refuse(name)
    if "type" not in values:
        settings.refuse("type", "missing")
    source_table, target_table = _tables(settings)
    architecture = Architecture(
        width=settings.number("dim-emb", 1 << 16),
        heads=settings.number("transformer-heads", 1 << 10),
        ffn=_ffn(settings),
        encoder_layers=settings.number("enc-depth", MAX_LAYERS),
        decoder_layers=_decoder_layers(settings),
        activation=_activation(settings),
        norm=_norm(settings),
        decoder_cell=_cell(settings),
        source_table=source_table,
        target_table=target_table,
        output_bias=not settings.flag("output-omit-bias"),
        version=settings.text("version") or None,
    )
    settings.raise_faults()
    return architecture


def _norm(settings: _Settings) -> Literal["pre", "post"]:
    """Where layers normalise; dropout (`d`) does nothing in a trained model."""
    before, after, top = (
        settings.text(f"transformer-{name}").replace("d", "")
        for name in ("preprocess", "postprocess", "postprocess-top")
    )
    if (before, after, top) == ("", "an", ""):
        return "post"
    if (before, after, top) == ("n", "a", "n"):
        return "pre"
    settings.refuse(
        "transformer-preprocess",
        f"with transformer-postprocess {shown(settings.text('transformer-postprocess'))} and "
        f"transformer-postprocess-top {shown(settings.text('transformer-postprocess-top'))}; "
        "either '', 'dan', '' or 'n', 'da', 'n' are read",
    )
    return "post"


def _cell(settings: _Settings) -> Literal["attention", "ssru"]:
    kind = settings.text("transformer-decoder-autoreg", "self-attention")
    if kind == "self-attention":
        return "attention"
    if kind != "rnn":
        settings.refuse("transformer-decoder-autoreg")
    elif settings.text("dec-cell") != "ssru":
        settings.refuse("dec-cell", "with transformer-decoder-autoreg rnn; ssru is read")
    return "ssru"


def _activation(settings: _Settings) -> str:
    name = settings.text("transformer-ffn-activation", "swish")
    if name not in ACTIVATIONS:
        settings.refuse("transformer-ffn-activation", f"{', '.join(ACTIVATIONS)} are read")
        return "relu"
    return name


def _ffn(settings: _Settings) -> int:
    width = settings.number("transformer-dim-ffn", 1 << 18)
    if settings.text("transformer-decoder-dim-ffn", "0") not in ("0", "", str(width)):
        settings.refuse("transformer-decoder-dim-ffn", f"transformer-dim-ffn is {width}")
    return width


def _decoder_layers(settings: _Settings) -> tuple[int, ...]:
    depth = settings.number("dec-depth", MAX_LAYERS)
    tied = settings.values.get("transformer-tied-layers") or []
    if not tied:
        return tuple(range(1, depth + 1))
    numbers = {str(number) for number in range(1, depth + 1)}
    if not isinstance(tied, list) or len(tied) != depth or not all(n in numbers for n in tied):
        settings.refuse("transformer-tied-layers", f"dec-depth is {depth}")
        return (1,)
    return tuple(int(number) for number in tied)


def _tables(settings: _Settings) -> tuple[str, str]:
    """Names of the embeddings of source and target; the target's are the output's too."""
    everything = settings.flag("tied-embeddings-all")
    if everything:
        return "Wemb", "Wemb"
    if settings.flag("tied-embeddings-src") or not settings.flag("tied-embeddings"):
        settings.refuse(
            "tied-embeddings",
            "the output must share the target's embeddings: tied-embeddings or tied-embeddings-all",
        )
    return "encoder_Wemb", "decoder_Wemb"


# --- weights -----------------------------------------------------------------------------------


class _Weights:
    """Items of a model file by name, each of the shape that is needed."""

    def __init__(self, container: Container, origin: str) -> None:
        self.items = container.items
        self.origin = origin

    def get(self, name: str, shape: tuple[int, int]) -> Array:
        item = self.items.get(name)
        if item is None:
            raise PretrainedError(f"{self.origin}: it has no {name}, which its settings ask for")
        if item.shape != shape and not (shape[0] == 1 and item.shape == shape[1:]):
            raise PretrainedError(
                f"{self.origin}: {name} is {list(item.shape)}, settings and vocabulary ask for "
                f"{list(shape)}"
            )
        return item.values(name, self.origin).reshape(shape)

    def matrix(self, name: str, inputs: int, outputs: int) -> Array:
        """[out, in]"""
        return np.ascontiguousarray(self.get(name, (inputs, outputs)).T)

    def vector(self, name: str, width: int) -> Array:
        return self.get(name, (1, width)).reshape(-1)

    def linear(self, weight: str, bias: str, inputs: int, outputs: int) -> dict[str, Array]:
        return {
            "weight": self.matrix(weight, inputs, outputs),
            "bias": self.vector(bias, outputs),
        }

    def attention(self, prefix: str, parts: str, width: int) -> dict[str, Array]:
        """The projections of an attention, such as `qkv`, below each other."""
        projections = [
            self.linear(f"{prefix}_W{part}", f"{prefix}_b{part}", width, width) for part in parts
        ]
        return {
            key: np.concatenate([projection[key] for projection in projections])
            for key in ("weight", "bias")
        }

    def norm(self, prefix: str, suffix: str, width: int) -> dict[str, Array]:
        return {
            "weight": self.vector(f"{prefix}_ln_scale{suffix}", width),
            "bias": self.vector(f"{prefix}_ln_bias{suffix}", width),
        }


def convert_weights(
    container: Container,
    architecture: Architecture,
    source: Vocabulary,
    target: Vocabulary,
    origin: str,
) -> dict[str, Array]:
    """The weights of a Marian Transformer, named and shaped as ours.

    Raises PretrainedError for a weight that is missing or of another shape.
    """
    weights, width = _Weights(container, origin), architecture.width
    state: dict[str, Array] = {}

    def put(name: str, tensors: dict[str, Array]) -> None:
        state.update({f"{name}.{key}": value for key, value in tensors.items()})

    table = weights.get(architecture.target_table, (target.original_size, width))
    put("embedding", {"weight": target.embedding(table)})
    if not architecture.joint:
        table = weights.get(architecture.source_table, (source.original_size, width))
        put("source_embedding", {"weight": source.embedding(table)})
    bias = np.zeros(target.original_size, dtype=np.float32)
    if architecture.output_bias:
        bias = weights.vector("decoder_ff_logit_out_b", target.original_size)
    state["output_bias"] = target.output_bias(bias)
    for index in range(architecture.encoder_layers):
        _encoder_layer(weights, architecture, put, index)
    for index, number in enumerate(architecture.decoder_layers):
        _decoder_layer(weights, architecture, put, index, number)
    if architecture.norm == "pre":
        put("encoder_norm", weights.norm("encoder_top", "", width))
        put("decoder_norm", weights.norm("decoder_top", "", width))
    return state


Put = Callable[[str, dict[str, Array]], None]


def _encoder_layer(weights: _Weights, shape: Architecture, put: Put, index: int) -> None:
    theirs, ours = f"encoder_l{index + 1}", f"encoder.{index}"
    _self_attention(weights, shape, put, theirs, ours)
    _feed_forward(weights, shape, put, theirs, ours)


def _decoder_layer(
    weights: _Weights, shape: Architecture, put: Put, index: int, number: int
) -> None:
    theirs, ours, width = f"decoder_l{number}", f"decoder.{index}", shape.width
    if shape.decoder_cell == "ssru":
        _ssru(weights, shape, put, theirs, ours)
    else:
        _self_attention(weights, shape, put, theirs, ours)
    context = f"{theirs}_context"
    put(f"{ours}.cross_norm", weights.norm(f"{context}_Wo", _suffix(shape), width))
    for name, parts in (("query", "q"), ("kv", "kv"), ("out", "o")):
        put(f"{ours}.cross.{name}", weights.attention(context, parts, width))
    _feed_forward(weights, shape, put, theirs, ours)


def _suffix(shape: Architecture) -> str:
    return "_pre" if shape.norm == "pre" else ""


def _self_attention(
    weights: _Weights, shape: Architecture, put: Put, theirs: str, ours: str
) -> None:
    prefix, width = f"{theirs}_self", shape.width
    put(f"{ours}.attention_norm", weights.norm(f"{prefix}_Wo", _suffix(shape), width))
    put(f"{ours}.attention.qkv", weights.attention(prefix, "qkv", width))
    put(f"{ours}.attention.out", weights.attention(prefix, "o", width))


def _ssru(weights: _Weights, shape: Architecture, put: Put, theirs: str, ours: str) -> None:
    prefix, width = f"{theirs}_rnn", shape.width
    norm = prefix if shape.norm == "pre" else f"{prefix}_ffn"
    put(f"{ours}.attention_norm", weights.norm(norm, _suffix(shape), width))
    put(f"{ours}.attention.candidate", {"weight": weights.matrix(f"{prefix}_W", width, width)})
    put(
        f"{ours}.attention.forget",
        weights.linear(f"{prefix}_Wf", f"{prefix}_bf", width, width),
    )


def _feed_forward(weights: _Weights, shape: Architecture, put: Put, theirs: str, ours: str) -> None:
    prefix, width = f"{theirs}_ffn", shape.width
    put(f"{ours}.ffn_norm", weights.norm(f"{prefix}_ffn", _suffix(shape), width))
    inner = weights.linear(f"{prefix}_W1", f"{prefix}_b1", width, shape.ffn)
    outer = weights.linear(f"{prefix}_W2", f"{prefix}_b2", shape.ffn, width)
    if shape.activation == "gelu":
        inner, outer = sigmoid_gelu_as_silu(inner, outer)
    put(f"{ours}.ffn.inner", inner)
    put(f"{ours}.ffn.outer", outer)


def sigmoid_gelu_as_silu(
    inner: dict[str, Array], outer: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Feed-forward weights with which SiLU computes what x · σ(1.702 x) did:
    g(x) = silu(1.702 x) / 1.702."""
    scale = np.float32(GELU_SCALE)
    scaled = {name: value * scale for name, value in inner.items()}
    return scaled, {**outer, "weight": outer["weight"] / scale}
