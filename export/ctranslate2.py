"""Our Transformer as a CTranslate2 model folder, back again, and with a lexical shortlist.

CTranslate2's stock int8 saturates on CPUs with AVX2 and no VNNI (`export.quantization` says why).
Weights kept to 7 bits do not, are stored as int8 all the same, and run at the same speed.

`from_ctranslate2` reads a folder back into torch, so a bundle can be upgraded after its checkpoint
is gone. 7-bit weights become a float32 model that gives the same bytes when written as int8 again.

A shortlist makes CTranslate2 compute the output layer only for target pieces that the source
pieces have been translated to (`training.data.lexical_table`). A batch may write the union over its
sentences, so a sentence's output depends on its neighbours: shortlists are off unless a recipe asks
for them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ctranslate2.converters import Converter
from ctranslate2.specs import TransformerSpec, common_spec, transformer_spec
from ctranslate2.specs.attention_spec import MultiHeadAttentionSpec
from ctranslate2.specs.model_spec import NumpyVariable, Variable
from numpy.typing import NDArray
from torch import Tensor, nn

from export.quantization import quantize_rows
from export.runtime.ctranslate2_format import TENSOR_NAMES, dequantized, read_variables
from export.runtime.manifest import BundleError
from training.data.lexical_table import LexicalTable
from training.model.transformer import (
    BOS,
    EOS,
    PAD,
    UNK,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    SelfAttention,
    Transformer,
)

ACTIVATIONS = {
    "relu": common_spec.Activation.RELU,
    "gelu": common_spec.Activation.GELU,
    "silu": common_spec.Activation.SWISH,
}
LAYER_NORM_EPSILON = 1e-5
SPECIAL_PIECES = {PAD: "<pad>", UNK: "<unk>", BOS: "<s>", EOS: "</s>"}


def to_ctranslate2(
    model: Transformer,
    pieces: list[str],
    output_dir: Path,
    precision: Literal["float32", "int8"],
) -> None:
    """Write `model` as a CTranslate2 folder.

    `pieces` are the SentencePiece pieces in the order of their ids, the special ones first.
    "int8" stores weight matrices in 7 bits, one scale a row. A former folder is replaced only
    when the new one is written. Raises BundleError if pieces and model do not match, and for a
    model with options that are not written.
    """
    check_pieces(pieces, model.vocab_size)
    if fault := ctranslate2_fault(model):
        raise BundleError(fault)
    output_dir = Path(output_dir)
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, suffix=".tmp") as scratch:
        folder = Path(scratch) / "model"
        QuickstudyConverter(model, pieces).convert(str(folder), quantization=precision)
        if output_dir.exists():
            shutil.rmtree(output_dir)
        folder.rename(output_dir)


def ctranslate2_fault(model: Transformer) -> str | None:
    """Why a model cannot be written as a CTranslate2 folder, and what to do; None if it can."""
    options = {
        "decoder_cell ssru": model.decoder_cell != "attention",
        "norm post": model.post_norm,
        "a source vocabulary of its own": model.source_embedding is not None,
        "layers of different sizes": _differ(model),
    }
    if not any(options.values()):
        return None
    names = ", ".join(name for name, has in options.items() if has)
    return f"a model with {names} is not written for CTranslate2: choose ONNX engines"


def _differ(model: Transformer) -> bool:
    sizes = [*model.encoder_sizes, *model.decoder_sizes]
    heads = {many for size in sizes for many in (size.heads, size.cross_heads) if many}
    return heads != {model.heads} or len({size.ffn for size in sizes}) > 1


def check_pieces(pieces: list[str], vocab_size: int) -> None:
    """Raise BundleError unless the pieces fit the model and hold the special ones in place."""
    if len(pieces) != vocab_size:
        raise BundleError(
            f"the tokenizer has {len(pieces)} pieces and the model {vocab_size} embeddings: "
            "export with the tokenizer the model was trained with"
        )
    for index, piece in SPECIAL_PIECES.items():
        if pieces[index] != piece:
            raise BundleError(
                f"piece {index} is {pieces[index]!r} and must be {piece!r}: train the tokenizer "
                "with pad_id=0, unk_id=1, bos_id=2, eos_id=3"
            )
    if len(set(pieces)) != len(pieces):
        twice = sorted({piece for piece in pieces if pieces.count(piece) > 1})
        raise BundleError(f"pieces must differ, these come twice: {twice[:5]}")


class SevenBitTransformerSpec(TransformerSpec):
    """A TransformerSpec whose "int8" means 7-bit weights; other types are the stock ones."""

    def _quantize(self, quantization, variable_filter=None):  # type: ignore[no-untyped-def]
        if quantization != "int8":
            super()._quantize(quantization, variable_filter)
            return

        def quantize(spec, name, value):  # type: ignore[no-untyped-def]
            key = name.rsplit("/", 1)[-1]
            quantizable = hasattr(spec, f"{key}_scale")
            if not quantizable or not isinstance(value, Variable) or value.is_scalar():
                return
            if variable_filter is not None and not variable_filter(name):
                return
            weight, scale = quantize_rows(value.to("float32").numpy())
            setattr(spec, key, NumpyVariable(weight))
            setattr(spec, f"{key}_scale", NumpyVariable(scale))

        self._visit(quantize)


class QuickstudyConverter(Converter):
    """Converts a `training.model.Transformer` and its pieces."""

    def __init__(self, model: Transformer, pieces: list[str]) -> None:
        self._model = model
        self._pieces = pieces

    def _load(self) -> TransformerSpec:
        spec = _empty_spec(self._model)
        _set_encoder(spec.encoder, self._model)
        _set_decoder(spec.decoder, self._model)
        spec.register_source_vocabulary(self._pieces)
        spec.register_target_vocabulary(self._pieces)
        spec.config.unk_token = SPECIAL_PIECES[UNK]
        spec.config.bos_token = SPECIAL_PIECES[BOS]
        spec.config.eos_token = SPECIAL_PIECES[EOS]
        spec.config.decoder_start_token = SPECIAL_PIECES[BOS]
        spec.config.add_source_eos = True
        spec.config.add_attribute("layer_norm_epsilon", LAYER_NORM_EPSILON)
        return spec


def _empty_spec(model: Transformer) -> SevenBitTransformerSpec:
    activation = ACTIVATIONS[_activation_of(model)]
    encoder = transformer_spec.TransformerEncoderSpec(
        len(model.encoder), model.heads, pre_norm=True, activation=activation
    )
    decoder = transformer_spec.TransformerDecoderSpec(
        len(model.decoder), model.heads, pre_norm=True, activation=activation
    )
    return SevenBitTransformerSpec(encoder, decoder)


def _activation_of(model: Transformer) -> str:
    names = {m.activation for m in model.modules() if isinstance(m, FeedForward)}
    if len(names) != 1 or not names <= set(ACTIVATIONS):
        raise ValueError(f"one activation of {sorted(ACTIVATIONS)} is convertible, not {names}")
    return names.pop()


def _set_encoder(spec: transformer_spec.TransformerEncoderSpec, model: Transformer) -> None:
    spec.embeddings[0].weight = _array(model.embedding.weight)
    spec.scale_embeddings = True
    spec.position_encodings.encodings = _array(model.positions)
    _set_norm(spec.layer_norm, model.encoder_norm)
    for layer_spec, layer in zip(spec.layer, model.encoder, strict=True):
        assert isinstance(layer, EncoderLayer)
        _set_self_attention(layer_spec.self_attention, layer.attention, layer.attention_norm)
        _set_ffn(layer_spec.ffn, layer.ffn, layer.ffn_norm)


def _set_decoder(spec: transformer_spec.TransformerDecoderSpec, model: Transformer) -> None:
    spec.embeddings.weight = _array(model.embedding.weight)
    spec.scale_embeddings = True
    spec.position_encodings.encodings = _array(model.positions)
    spec.projection.weight = _array(model.embedding.weight)
    spec.projection.bias = _array(model.output_bias)
    _set_norm(spec.layer_norm, model.decoder_norm)
    for layer_spec, layer in zip(spec.layer, model.decoder, strict=True):
        assert isinstance(layer, DecoderLayer)
        _set_self_attention(layer_spec.self_attention, layer.attention, layer.attention_norm)
        _set_cross_attention(layer_spec.attention, layer.cross, layer.cross_norm)
        _set_ffn(layer_spec.ffn, layer.ffn, layer.ffn_norm)


def _set_self_attention(
    spec: MultiHeadAttentionSpec, attention: nn.Module, norm: nn.LayerNorm
) -> None:
    assert isinstance(attention, SelfAttention)
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear[0], attention.qkv)
    _set_linear(spec.linear[1], attention.out)


def _set_cross_attention(
    spec: MultiHeadAttentionSpec, attention: CrossAttention, norm: nn.LayerNorm
) -> None:
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear[0], attention.query)
    _set_linear(spec.linear[1], attention.kv)
    _set_linear(spec.linear[2], attention.out)


def _set_ffn(spec: transformer_spec.FeedForwardSpec, ffn: FeedForward, norm: nn.LayerNorm) -> None:
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear_0, ffn.inner)
    _set_linear(spec.linear_1, ffn.outer)


def _set_linear(spec: common_spec.LinearSpec, linear: nn.Linear) -> None:
    spec.weight = _array(linear.weight)
    spec.bias = _array(linear.bias)


def _set_norm(spec: common_spec.LayerNormSpec, norm: nn.Module) -> None:
    assert isinstance(norm, nn.LayerNorm)
    if norm.eps != LAYER_NORM_EPSILON:
        raise ValueError(f"a LayerNorm has eps {norm.eps}, the engine {LAYER_NORM_EPSILON}")
    spec.gamma = _array(norm.weight)
    spec.beta = _array(norm.bias)


def _array(tensor: Tensor | nn.Module) -> NDArray[np.float32]:
    """A tensor's own copy in float32 on the CPU, since quantising writes into arrays."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy().copy()


# --- back into torch ---------------------------------------------------------------------------


MODEL_FILE = "model.bin"


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


# --- lexical shortlist -------------------------------------------------------------------------


VMAP_FILE = "vmap.txt"


def write_vmap(
    path: Path, table: LexicalTable, pieces: Sequence[str], candidates: int, always: int
) -> None:
    """Write CTranslate2's vocabulary map: for each source piece its `candidates` most probable
    translations, and the `always` most frequent target pieces whatever the source is."""
    lines = ["\t" + " ".join(pieces[piece] for piece in table.frequent(always))]
    for source, likely in table.likely(candidates):
        words = " ".join(pieces[piece] for piece in likely)
        lines.append(f"{pieces[source]}\t{words}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
