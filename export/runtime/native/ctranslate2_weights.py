"""The weights of a CTranslate2 folder that our export wrote, for the compiled engine.

The folder is checked first (`export.runtime.ctranslate2_format`); its int8 matrices are taken as
they are, so both engines compute with the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.bundle import read_small
from export.runtime.ctranslate2_format import (
    ACTIVATIONS,
    CONFIG_FILE,
    MODEL_FILE,
    SCALE,
    TENSOR_NAMES,
    layer_count,
    read_table,
    read_variables,
)
from export.runtime.manifest import strict_json
from export.runtime.native.weights import Floats, NativeDims, NativeSource, Quantised

NAMES = {
    "positions": "decoder/position_encodings/encodings",
    "embedding": "decoder/embeddings",
    "source_embedding": "encoder/embeddings_0",
    "output_bias": "decoder/projection/bias",
    "encoder_norm": "encoder/layer_norm",
    "decoder_norm": "decoder/layer_norm",
}
Variables = dict[str, NDArray[Any]]


def read_ctranslate2(folder: Path) -> NativeSource:
    """The weights of a checked folder in 7 bits. Raises ValueError for a model of another kind."""
    variables = read_variables(folder / MODEL_FILE)
    entries = read_table(folder / MODEL_FILE).resolved()
    config: Any = strict_json(read_small(folder / CONFIG_FILE, 1 << 16))
    _check_ties(variables)
    table = variables["decoder/embeddings/weight"]
    shares_table = _equal(variables, "encoder/embeddings_0", "decoder/embeddings")
    encodings = variables[NAMES["positions"]]
    dims = NativeDims(
        width=table.shape[1],
        heads=_same_number(variables, "num_heads"),
        hidden=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        encoder_layers=layer_count(entries, "encoder"),
        decoder_layers=layer_count(entries, "decoder"),
        vocab_size=table.shape[0],
        source_vocab_size=0 if shares_table else len(variables["encoder/embeddings_0/weight"]),
        positions=len(encodings),
        activation=ACTIVATIONS[_same_number(variables, "activation")],
        post_norm=False,
        recurrent=False,
        shortlisted=False,
        epsilon=config["layer_norm_epsilon"],
    )
    return NativeSource(
        dims,
        quantised=lambda name: _quantised(variables, _name_of(name)),
        floats=lambda name: _floats(variables, name),
    )


def _check_ties(variables: Variables) -> None:
    """Both sides have the same positions, and the output layer is the target's table."""
    if not np.array_equal(
        variables[NAMES["positions"]], variables["encoder/position_encodings/encodings"]
    ):
        raise ValueError("encoder and decoder have other positions")
    if not _equal(variables, "decoder/projection", "decoder/embeddings"):
        raise ValueError("the output layer is not the embedding table")


def _equal(variables: Variables, one: str, other: str) -> bool:
    names = ("/weight", f"/weight{SCALE}")
    pairs = [(variables.get(one + name), variables.get(other + name)) for name in names]
    return all(
        a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs
    )


def _same_number(variables: Variables, name: str) -> int:
    encoder, decoder = (int(variables[f"{side}/{name}"]) for side in ("encoder", "decoder"))
    if encoder != decoder:
        raise ValueError(f"{name} is {encoder} in the encoder and {decoder} in the decoder")
    return encoder


def _name_of(name: str) -> str:
    """`decoder.0.cross.kv` → `decoder/layer_0/attention/linear_1`."""
    if name in NAMES:
        return NAMES[name]
    side, layer, part = name.split(".", 2)
    return f"{side}/layer_{layer}/{TENSOR_NAMES[part]}"


def _quantised(variables: Variables, name: str) -> Quantised:
    scale = variables.get(f"{name}/weight{SCALE}")
    if scale is None:
        raise ValueError(f"{name} is not in 8 bits")
    return Quantised(variables[f"{name}/weight"], (1 / scale).astype(np.float32))


def _floats(variables: Variables, name: str) -> Floats:
    if name in NAMES:
        return variables[NAMES[name]]
    module, _, kind = name.rpartition(".")
    if module.endswith("norm"):
        kind = {"weight": "gamma", "bias": "beta"}[kind]
    return variables[f"{_name_of(module)}/{kind}"]
