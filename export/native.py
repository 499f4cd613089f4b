"""A model for our compiled engine: as `native.safetensors`, or opened as it is, to label. Torch.

Weights are bytes with a step a row, as in the ONNX engines (`export.quantization.keep_bytes`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from export.ctranslate2 import check_pieces
from export.quantization import keep_bytes
from export.runtime.manifest import NATIVE_FILE, BundleError
from export.runtime.native.library import NativeModel
from export.runtime.native.safetensors import STEPS, Arrays, write_native
from export.runtime.native.weights import (
    LayerDims,
    NativeDims,
    NativeSource,
    Quantised,
    model_bytes,
)
from quickstudy.atomic import atomic_folder
from training.model.transformer import SSRU, FeedForward, Transformer
from training.stage import say


def to_native(model: Transformer, pieces: list[str], output_dir: Path) -> None:
    """Write `native.safetensors` to a folder.

    `pieces` are the SentencePiece pieces in the order of their ids, the special ones first. A
    former folder is replaced only when the new one is written. Raises BundleError if pieces and
    model do not match, and for a model with sizes or activations that the engine does not compute.
    """
    check_pieces(pieces, model.vocab_size)
    dims = native_dims(model)
    if fault := dims.fault():
        raise BundleError(f"the native engine does not compute {fault}: choose other engines")
    with atomic_folder(output_dir) as folder:
        write_native(folder / NATIVE_FILE, dims, _arrays(model))


def open_engine(model: Transformer, shortlisted: bool, threads: int) -> NativeModel | None:
    """The model in the compiled engine, for so many calls at a time; `shortlisted`: sentences come
    with candidates. None, and says so, for a model with sizes or activations that it does not
    compute.

    Raises NativeUnavailable where the engine is not built.
    """
    dims = replace(native_dims(model), shortlisted=shortlisted)
    if fault := dims.fault():
        say(f"label: the compiled engine does not compute {fault}; torch labels, in float32")
        return None
    arrays = _arrays(model)
    source = NativeSource(
        dims,
        quantised=lambda name: Quantised(arrays[name], arrays[name + STEPS]),
        floats=lambda name: arrays[name],
    )
    return NativeModel(model_bytes(source), threads)


def native_dims(model: Transformer) -> NativeDims:
    """The sizes and options of a model."""
    blocks = [module for module in model.modules() if isinstance(module, FeedForward)]
    activations = {block.activation for block in blocks}
    norms = {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)}
    own = model.source_embedding
    sizes = tuple(LayerDims(*size) for size in (*model.encoder_sizes, *model.decoder_sizes))
    dims = NativeDims(
        width=model.width,
        heads=model.heads,
        hidden=max(layer.hidden for layer in sizes),
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        vocab_size=model.vocab_size,
        source_vocab_size=0 if own is None else own.num_embeddings,
        positions=model.max_length,
        activation=activations.pop() if len(activations) == 1 else "of several kinds",
        post_norm=model.post_norm,
        recurrent=model.decoder_cell == "ssru",
        shortlisted=False,
        epsilon=norms.pop(),
    )
    return dims if dims.layers == sizes else replace(dims, sizes=sizes)


def _arrays(model: Transformer) -> Arrays:
    """Every array by its name in `training.model.transformer`; a recurrent unit's two matrices lie
    below each other as `unit`."""
    arrays: Arrays = {"positions": _array(model.positions)}

    def add_weight(name: str, weight: NDArray[np.float32]) -> None:
        arrays[name], scale = keep_bytes(weight)
        arrays[name + STEPS] = (1 / scale).astype(np.float32)

    arrays["output_bias"] = _array(model.output_bias)
    for name, module in model.named_modules():
        if isinstance(module, SSRU):
            candidate, forget = _array(module.candidate.weight), _array(module.forget.weight)
            bias = _array(module.forget.bias)
            add_weight(f"{name}.unit", np.concatenate([candidate, forget]))
            arrays[f"{name}.unit.bias"] = np.concatenate([np.zeros_like(bias), bias])
        elif isinstance(module, nn.Embedding):
            add_weight(name, _array(module.weight))
        elif isinstance(module, nn.LayerNorm):
            arrays[f"{name}.weight"] = _array(module.weight)
            arrays[f"{name}.bias"] = _array(module.bias)
        elif isinstance(module, nn.Linear) and not name.endswith((".candidate", ".forget")):
            add_weight(name, _array(module.weight))
            arrays[f"{name}.bias"] = _array(module.bias)
    return arrays


def _array(tensor: Tensor | nn.Module) -> NDArray[np.float32]:
    """A tensor's own copy in float32 on the CPU."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy().copy()
