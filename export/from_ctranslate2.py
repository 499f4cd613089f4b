"""A CTranslate2 model folder of ours as a torch model again. Needs torch.

The way back of `export.to_ctranslate2`: a bundle can be brought up to date, or get other engines,
where the checkpoint it was made from is gone. From 7-bit weights comes a float32 model with
just those weights, which written as int8 gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.ctranslate2_file import dequantized, read_variables
from export.errors import BundleError
from export.to_ctranslate2 import ACTIVATIONS
from training.model import Transformer

MODEL_FILE = "model.bin"
TENSOR_NAMES = {
    "attention_norm": "self_attention/layer_norm",
    "attention.qkv": "self_attention/linear_0",
    "attention.out": "self_attention/linear_1",
    "cross_norm": "attention/layer_norm",
    "cross.query": "attention/linear_0",
    "cross.kv": "attention/linear_1",
    "cross.out": "attention/linear_2",
    "ffn_norm": "ffn/layer_norm",
    "ffn.inner": "ffn/linear_0",
    "ffn.outer": "ffn/linear_1",
}


def from_ctranslate2(folder: Path) -> Transformer:
    """The model of a CTranslate2 folder that `to_ctranslate2` wrote, in float32, for evaluation.

    Raises BundleError where the folder holds another kind of model.
    """
    path = Path(folder) / MODEL_FILE
    variables = dequantized(read_variables(path))
    try:
        model = _empty_model(variables)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                tensor.copy_(torch.from_numpy(variables[_name_of(name)].astype(np.float32)))
    except (KeyError, RuntimeError, StopIteration, ValueError) as error:
        raise BundleError(
            f"{path} is no model that Quickstudy wrote ({error}): export from its checkpoint"
        ) from error
    return model.eval()


def _empty_model(variables: dict[str, NDArray[Any]]) -> Transformer:
    vocab_size, width = variables["decoder/embeddings/weight"].shape
    number = int(variables["decoder/activation"])
    return Transformer(
        vocab_size,
        width=width,
        heads=int(variables["encoder/num_heads"]),
        ffn=len(variables["encoder/layer_0/ffn/linear_0/bias"]),
        encoder_layers=_layers(variables, "encoder"),
        decoder_layers=_layers(variables, "decoder"),
        activation=next(name for name, known in ACTIVATIONS.items() if int(known) == number),
        dropout=0.0,
        max_length=len(variables["decoder/position_encodings/encodings"]),
    )


def _layers(variables: dict[str, NDArray[Any]], side: str) -> int:
    return len(
        {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")}
        - {"layer_norm"}
    )


def _name_of(parameter: str) -> str:
    """Name of a parameter of `Transformer` in a CTranslate2 model."""
    if parameter == "embedding.weight":
        return "decoder/embeddings/weight"
    if parameter == "output_bias":
        return "decoder/projection/bias"
    module, _, kind = parameter.rpartition(".")
    if module in ("encoder_norm", "decoder_norm"):
        return f"{module.removesuffix('_norm')}/layer_norm/{_norm(kind)}"
    side, layer, part = module.split(".", 2)
    kind = _norm(kind) if part.endswith("_norm") else kind
    return f"{side}/layer_{layer}/{TENSOR_NAMES[part]}/{kind}"


def _norm(kind: str) -> str:
    return {"weight": "gamma", "bias": "beta"}[kind]
