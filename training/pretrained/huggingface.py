"""Hugging Face folders of Marian models, such as OPUS-MT's: safetensors only.

config.json, model.safetensors, source.spm, target.spm and vocab.json (of both sides, or of the
source beside target_vocab.json). Names of weights and meaning of settings are those of
`transformers.models.marian`: post-norm, epsilon 1e-5, decoding starts from
`decoder_start_token_id`, whose embedding becomes that of our BOS. Where `scale_embedding` is false,
tables are divided by √D and the last norm, which the tied output multiplies, is multiplied by it.

Shapes: D width.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from training.pretrained.base import (
    MAX_LAYERS,
    Array,
    Languages,
    PretrainedModel,
    check_finite,
    model_config,
)
from training.pretrained.files import (
    MAX_MODEL_BYTES,
    MAX_SETTINGS_BYTES,
    MAX_TOKENIZER_BYTES,
    MAX_VOCABULARY_BYTES,
    Folder,
    PretrainedError,
    language,
    plain_name,
    shown,
)
from training.pretrained.marian import sigmoid_gelu_as_silu
from training.pretrained.vocabulary import BOS, Vocabulary, check_prefix, numbered_by_list

WEIGHTS = "model.safetensors"
NEEDED = ("config.json", "source.spm", "target.spm", "vocab.json")
NORM_EPSILON = 1e-5
MAX_POSITIONS = 4096
"""Position encodings are computed, so a longer limit is cut to this one."""
ACTIVATIONS = {
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
    "gelu": "gelu",
    "quick_gelu": "silu",
}
FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (True,),
    "tie_word_embeddings": (True,),
    "quantization_config": (None,),
}
"""Settings and the values that our Transformer computes."""
_NAME = re.compile(r"opus-mt(?:-tc)?(?:-[a-z]+)*?-([a-z]{2,3})-([a-z]{2,3})")


@dataclass(frozen=True)
class Settings:
    """What config.json asks for."""

    width: int
    heads: int
    ffn: int
    encoder_layers: int
    decoder_layers: int
    activation: str
    positions: int
    source_size: int
    target_size: int
    shared: bool
    scaled: bool
    start: int


def is_huggingface(folder: Folder) -> bool:
    """Whether a folder's files are, whole or in part, those of a Hugging Face model."""
    marks = ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
    return bool(folder.matching(*marks)) or {"source.spm", "vocab.json"} <= set(folder.names)


def read_huggingface_folder(folder: Folder, source_prefix: tuple[str, ...] = ()) -> PretrainedModel:
    """The Marian model in a Hugging Face folder.

    Raises PretrainedError that says what is missing, damaged or does not fit.
    """
    values = _config(folder)
    settings = read_settings(values, str(folder.path / "config.json"))
    about = _json(folder, "tokenizer_config.json") if _has(folder, "tokenizer_config.json") else {}
    source, target = _vocabularies(folder, settings)
    check_prefix(source_prefix, source, str(folder.path))
    origin = str(folder.path / WEIGHTS)
    tensors = Tensors(folder.read(WEIGHTS, MAX_MODEL_BYTES), origin)
    state = convert_weights(tensors, settings, source, target)
    check_finite(state, origin)
    name = str(values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2]
    version = values.get("transformers_version")
    return PretrainedModel(
        config=model_config(
            width=settings.width,
            heads=settings.heads,
            ffn=settings.ffn,
            encoder_layers=settings.encoder_layers,
            decoder_layers=settings.decoder_layers,
            activation=ACTIVATIONS[settings.activation],
            max_length=min(settings.positions, MAX_POSITIONS),
            norm="post",
            norm_epsilon=NORM_EPSILON,
            sinusoids=_sinusoids(tensors, settings),
        ),
        state=state,
        tokenizer=target.model,
        source_tokenizer=None if source.model == target.model else source.model,
        lexicon=None,
        format="huggingface-marian",
        name=plain_name(name, folder.path.resolve().name),
        version=f"transformers {version}" if isinstance(version, str) else None,
        files=dict(folder.digests),
        languages=_languages(about, name, folder.path.resolve().name),
        source_prefix=source_prefix,
    )


# --- files -------------------------------------------------------------------------------------


def _has(folder: Folder, name: str) -> bool:
    return name in folder.names


def _config(folder: Folder) -> dict[str, Any]:
    """config.json, after checking that the folder is whole."""
    missing = [name for name in NEEDED if not _has(folder, name)]
    if "config.json" not in missing:
        values = _json(folder, "config.json")
        kind = values.get("model_type")
        if kind != "marian":
            raise PretrainedError(
                f"{folder.path}: a Hugging Face folder of model_type {shown(kind)}; marian is read"
            )
    if missing:
        raise PretrainedError(
            f"{folder.path}: a Hugging Face Marian folder; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing"
        )
    if not _has(folder, WEIGHTS):
        if pickles := folder.matching("pytorch_model*.bin", "*.pt", "*.pth"):
            raise PretrainedError(
                f"{folder.path}: {pickles[0]} only: loading it can run code; save the model with "
                "safetensors (`model.save_pretrained(folder)` of transformers 4.40 or newer)"
            )
        raise PretrainedError(f"{folder.path}: a Hugging Face Marian folder; {WEIGHTS} is missing")
    return values


def _json(folder: Folder, name: str, limit: int = MAX_SETTINGS_BYTES) -> dict[str, Any]:
    data = folder.read(name, limit)
    try:
        value = json.loads(data.decode("utf-8"))
    except (RecursionError, ValueError) as error:
        raise PretrainedError(f"{folder.path / name}: no JSON ({error})") from None
    if not isinstance(value, dict):
        raise PretrainedError(f"{folder.path / name}: no JSON object")
    return value


def _ids(folder: Folder, name: str) -> dict[str, int]:
    values = _json(folder, name, MAX_VOCABULARY_BYTES)
    for piece, index in values.items():
        if type(index) is not int or not 0 <= index < 1 << 31:
            raise PretrainedError(f"{folder.path / name}: {shown(piece)} has id {shown(index)}")
    return values


def _vocabularies(folder: Folder, settings: Settings) -> tuple[Vocabulary, Vocabulary]:
    """Those of source and target; BOS has the row that decoding starts from."""
    models = [
        (folder.read(name, MAX_TOKENIZER_BYTES), str(folder.path / name))
        for name in ("source.spm", "target.spm")
    ]
    path, ids = str(folder.path / "vocab.json"), _ids(folder, "vocab.json")
    if settings.shared:
        source, target = numbered_by_list(models, ids, path, settings.source_size)
    else:
        own = "target_vocab.json" if _has(folder, "target_vocab.json") else "vocab.json"
        ids_of_target = _ids(folder, own)
        (source,) = numbered_by_list(models[:1], ids, path, settings.source_size)
        (target,) = numbered_by_list(
            models[1:], ids_of_target, str(folder.path / own), settings.target_size
        )
    return (_starting(source, settings.start) if settings.shared else source), _starting(
        target, settings.start
    )


def _starting(vocabulary: Vocabulary, start: int) -> Vocabulary:
    rows = vocabulary.original_ids.copy()
    rows[BOS] = start
    return dataclasses.replace(vocabulary, original_ids=rows)


def _languages(about: dict[str, Any], *names: str) -> Languages:
    source, target = (language(about.get(f"{side}_lang")) for side in ("source", "target"))
    if source and target:
        return source, target
    for name in names:
        if match := _NAME.fullmatch(name):
            return match[1], match[2]
    return source, target


# --- settings ----------------------------------------------------------------------------------


def read_settings(values: dict[str, Any], origin: str) -> Settings:
    """What config.json asks for. Raises PretrainedError with all that our Transformer does not
    compute."""
    faults: list[str] = []

    def number(name: str, most: int, least: int = 1, default: Any = None) -> int:
        value = values.get(name)
        value = default if value is None else value
        if type(value) is not int or not least <= value <= most:
            faults.append(f"{name}: {shown(value)} ({least} to {most} are read)")
            return least
        return value

    for name, allowed in FIXED.items():
        if name in values and values[name] not in allowed:
            faults.append(f"{name}: {shown(values[name])}")
    for part in ("attention_heads", "ffn_dim"):
        sides = [values.get(f"{side}_{part}") for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            faults.append(f"decoder_{part}: {shown(sides[1])} (encoder_{part}: {shown(sides[0])})")
    activation = values.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        faults.append(f"activation_function: {shown(activation)}")
    source_size = number("vocab_size", 1 << 20)
    settings = Settings(
        width=number("d_model", 1 << 16, least=8),
        heads=number("encoder_attention_heads", 1 << 10),
        ffn=number("encoder_ffn_dim", 1 << 18),
        encoder_layers=number("encoder_layers", MAX_LAYERS),
        decoder_layers=number("decoder_layers", MAX_LAYERS),
        activation=str(activation),
        positions=number("max_position_embeddings", 1 << 20, least=16, default=1024),
        source_size=source_size,
        target_size=number("decoder_vocab_size", 1 << 20, default=source_size),
        shared=values.get("share_encoder_decoder_embeddings", True) is not False,
        scaled=values.get("scale_embedding", False) is True,
        start=number(
            "decoder_start_token_id", (1 << 20) - 1, least=0, default=values.get("pad_token_id")
        ),
    )
    if settings.start >= settings.target_size:
        faults.append(f"decoder_start_token_id: {settings.start} of {settings.target_size} words")
    if faults:
        raise PretrainedError(
            f"{origin}: these settings do not fit our Transformer: {'; '.join(faults)}"
        )
    return settings


# --- weights -----------------------------------------------------------------------------------


class Tensors:
    """The tensors of a safetensors file, each of the shape that is needed."""

    def __init__(self, data: bytes, origin: str) -> None:
        self.origin = origin
        try:
            self.entries = dict(deserialize(data))
        except (SafetensorError, ValueError, OverflowError, MemoryError) as error:
            raise PretrainedError(f"{origin}: no safetensors file ({error})") from None

    def get(self, name: str, *shape: int) -> Array:
        """A tensor as float32. Raises PretrainedError where it is missing or of another shape."""
        entry = self.entries.get(name)
        if entry is None:
            raise PretrainedError(f"{self.origin}: it has no {name}, which config.json asks for")
        if tuple(entry["shape"]) != shape:
            raise PretrainedError(
                f"{self.origin}: {name} is {list(entry['shape'])}, config.json asks for "
                f"{list(shape)}"
            )
        return self._values(name, entry).reshape(shape)

    def _values(self, name: str, entry: dict[str, Any]) -> Array:
        plain = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(entry["data"], "<u2").astype(np.uint32) << np.uint32(16)
            return wide.view(np.float32)
        if entry["dtype"] not in plain:
            raise PretrainedError(
                f"{self.origin}: {name} has type {shown(entry['dtype'])}; save the model in float32"
            )
        with np.errstate(over="ignore"):
            return np.frombuffer(entry["data"], plain[entry["dtype"]]).astype(np.float32)

    def linear(self, name: str, inputs: int, outputs: int) -> dict[str, Array]:
        return {
            "weight": self.get(f"{name}.weight", outputs, inputs),
            "bias": self.get(f"{name}.bias", outputs),
        }

    def norm(self, name: str, width: int) -> dict[str, Array]:
        return {key: self.get(f"{name}.{key}", width) for key in ("weight", "bias")}

    def stacked(self, prefix: str, parts: str, width: int) -> dict[str, Array]:
        """Projections of an attention below each other."""
        projections = [self.linear(f"{prefix}.{part}_proj", width, width) for part in parts]
        return {
            key: np.concatenate([projection[key] for projection in projections])
            for key in ("weight", "bias")
        }


def convert_weights(
    tensors: Tensors, settings: Settings, source: Vocabulary, target: Vocabulary
) -> dict[str, Array]:
    """The weights of a Hugging Face Marian model, named and shaped as ours.

    Raises PretrainedError for a weight that is missing or of another shape.
    """
    width = settings.width
    state: dict[str, Array] = {}
    trg_table = _table(tensors, settings, ("shared", "decoder.embed_tokens"), settings.target_size)
    state["embedding.weight"] = target.embedding(trg_table)
    if not settings.shared:
        src_table = _table(tensors, settings, ("encoder.embed_tokens",), settings.source_size)
        state["source_embedding.weight"] = source.embedding(src_table)
    bias = np.zeros(settings.target_size, dtype=np.float32)
    if "final_logits_bias" in tensors.entries:
        bias = tensors.get("final_logits_bias", 1, settings.target_size)[0]
    state["output_bias"] = target.output_bias(bias)
    for side, count in (("encoder", settings.encoder_layers), ("decoder", settings.decoder_layers)):
        for index in range(count):
            for name, parts in _layer(tensors, settings, side, index):
                state.update({f"{side}.{index}.{name}.{key}": parts[key] for key in parts})
    if not settings.scaled:
        _unscale(state, settings, math.sqrt(width))
    return state


def _table(tensors: Tensors, settings: Settings, names: tuple[str, ...], size: int) -> Array:
    """The embedding under the first of the names that the file has."""
    keys = [f"model.{name}.weight" for name in names]
    if settings.shared:
        keys += ["model.encoder.embed_tokens.weight"]
    if "encoder.embed_tokens" not in names:
        keys += ["lm_head.weight"]
    present = [key for key in keys if key in tensors.entries]
    return tensors.get(present[0] if present else keys[0], size, settings.width)


def _layer(
    tensors: Tensors, settings: Settings, side: str, index: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Our names of a layer's parts and their weights."""
    theirs, width = f"model.{side}.layers.{index}", settings.width
    yield "attention_norm", tensors.norm(f"{theirs}.self_attn_layer_norm", width)
    yield "attention.qkv", tensors.stacked(f"{theirs}.self_attn", "qkv", width)
    yield "attention.out", tensors.linear(f"{theirs}.self_attn.out_proj", width, width)
    if side == "decoder":
        yield "cross_norm", tensors.norm(f"{theirs}.encoder_attn_layer_norm", width)
        yield "cross.query", tensors.linear(f"{theirs}.encoder_attn.q_proj", width, width)
        yield "cross.kv", tensors.stacked(f"{theirs}.encoder_attn", "kv", width)
        yield "cross.out", tensors.linear(f"{theirs}.encoder_attn.out_proj", width, width)
    inner = tensors.linear(f"{theirs}.fc1", width, settings.ffn)
    outer = tensors.linear(f"{theirs}.fc2", settings.ffn, width)
    if settings.activation == "quick_gelu":
        inner, outer = sigmoid_gelu_as_silu(inner, outer)
    yield "ffn_norm", tensors.norm(f"{theirs}.final_layer_norm", width)
    yield "ffn.inner", inner
    yield "ffn.outer", outer


def _unscale(state: dict[str, Array], settings: Settings, factor: float) -> None:
    """Let tables that are used as they are stand the factor √D that ours are multiplied by."""
    for name in ("embedding.weight", "source_embedding.weight"):
        if name in state:
            state[name] = state[name] / np.float32(factor)
    for key in ("weight", "bias"):
        name = f"decoder.{settings.decoder_layers - 1}.ffn_norm.{key}"
        state[name] = state[name] * np.float32(factor)


def _sinusoids(tensors: Tensors, settings: Settings) -> str:
    """The rates of the position encodings; a file that stores encodings must store known ones."""
    kind = "vaswani"
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        if name not in tensors.entries:
            continue
        stored = tensors.get(name, settings.positions, settings.width)
        fitting = [
            candidate
            for candidate in ("vaswani", "tensor2tensor")
            if np.allclose(stored[:64], encodings(64, settings.width, candidate), atol=1e-3)
        ]
        if not fitting:
            raise PretrainedError(f"{tensors.origin}: {name} holds no sinusoids that are known")
        kind = fitting[0]
    return kind


def encodings(length: int, width: int, kind: str) -> Array:
    """Position encodings [length, D] as `training.model.transformer` computes them."""
    half = width // 2
    steps = half - 1 if kind == "tensor2tensor" else half
    rates = np.exp(np.arange(half) * (-math.log(10_000.0) / steps))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
