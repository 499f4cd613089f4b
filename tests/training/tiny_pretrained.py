"""Tiny random models in other toolkits' formats, and what Marian computes with them, in NumPy."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save

from training.data.toy import make_toy
from training.pretrained.lexicon import MAGIC

Array = NDArray[np.float32]
WIDTH, HEADS, FFN, ENCODER, DECODER = 16, 2, 32, 2, 2
TEXTS = [text for pair in make_toy(6, 3) for text in pair]


def sentencepiece_model(size: int = 100, **options: Any) -> bytes:
    """As Firefox has them: 0 `</s>`, 1 `<unk>`, no other special piece."""
    model = io.BytesIO()
    lines = [line for pair in make_toy(200, 1) for line in pair]
    arguments = {"vocab_size": size, "eos_id": 0, "unk_id": 1, "bos_id": -1, "num_threads": 1}
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **{**arguments, **options}
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    processor = spm.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


# --- Marian ------------------------------------------------------------------------------------


def marian_settings(**changes: Any) -> dict[str, Any]:
    """Settings of a model as Firefox has them; a value of None leaves one out."""
    settings = {
        "dec-cell": "ssru",
        "dec-depth": DECODER,
        "dim-emb": WIDTH,
        "enc-cell": "gru",
        "enc-depth": ENCODER,
        "layer-normalization": False,
        "lemma-dim-emb": 0,
        "output-omit-bias": False,
        "tied-embeddings": False,
        "tied-embeddings-all": True,
        "tied-embeddings-src": False,
        "transformer-decoder-autoreg": "rnn",
        "transformer-dim-ffn": FFN,
        "transformer-ffn-activation": "relu",
        "transformer-ffn-depth": 2,
        "transformer-heads": HEADS,
        "transformer-no-projection": False,
        "transformer-postprocess": "dan",
        "transformer-postprocess-emb": "d",
        "transformer-postprocess-top": "",
        "transformer-preprocess": "",
        "transformer-tied-layers": [],
        "type": "transformer",
        "version": "v1.9.56 2021-04-28",
    }
    settings.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in settings.items() if value is not None}


def marian_arrays(
    settings: dict[str, Any], source_size: int, target_size: int, seed: int = 1
) -> dict[str, Array]:
    """Random weights under Marian's names, matrices [in, out]."""
    random = np.random.default_rng(seed)
    pre = settings["transformer-preprocess"] == "n"
    suffix = "_pre" if pre else ""
    arrays: dict[str, Array] = {}

    def put(name: str, *shape: int) -> None:
        scale = 0.5 if shape[0] == 1 else 1.2 / math.sqrt(shape[-1])
        arrays[name] = (random.standard_normal(shape) * scale).astype(np.float32)
        if "_ln_scale" in name:
            arrays[name] += 1

    def norm(prefix: str, ending: str = suffix) -> None:
        put(f"{prefix}_ln_scale{ending}", 1, WIDTH)
        put(f"{prefix}_ln_bias{ending}", 1, WIDTH)

    def attention(prefix: str) -> None:
        for part in "qkvo":
            put(f"{prefix}_W{part}", WIDTH, WIDTH)
            put(f"{prefix}_b{part}", 1, WIDTH)
        norm(f"{prefix}_Wo")

    def feed_forward(prefix: str) -> None:
        put(f"{prefix}_W1", WIDTH, FFN)
        put(f"{prefix}_b1", 1, FFN)
        put(f"{prefix}_W2", FFN, WIDTH)
        put(f"{prefix}_b2", 1, WIDTH)
        norm(f"{prefix}_ffn")

    if settings["tied-embeddings-all"]:
        put("Wemb", target_size, WIDTH)
    else:
        put("encoder_Wemb", source_size, WIDTH)
        put("decoder_Wemb", target_size, WIDTH)
    put("decoder_ff_logit_out_b", 1, target_size)
    for layer in range(1, settings["enc-depth"] + 1):
        attention(f"encoder_l{layer}_self")
        feed_forward(f"encoder_l{layer}_ffn")
    for layer in range(1, settings["dec-depth"] + 1):
        if settings["transformer-decoder-autoreg"] == "rnn":
            prefix = f"decoder_l{layer}_rnn"
            put(f"{prefix}_W", WIDTH, WIDTH)
            put(f"{prefix}_Wf", WIDTH, WIDTH)
            put(f"{prefix}_bf", 1, WIDTH)
            norm(prefix if pre else f"{prefix}_ffn")
        else:
            attention(f"decoder_l{layer}_self")
        attention(f"decoder_l{layer}_context")
        feed_forward(f"decoder_l{layer}_ffn")
    if pre:
        norm("encoder_top", "")
        norm("decoder_top", "")
    return arrays


def as_bytes(array: Array, kind: str = "i1") -> tuple[NDArray[Any], float]:
    """Integers and their multiplier: array ≈ integers / multiplier."""
    largest = 127 if kind == "i1" else 1000
    multiplier = np.float32(largest / np.abs(array).max())
    return np.rint(array * multiplier).astype(f"<{kind}"), float(multiplier)


def is_matrix(name: str) -> bool:
    return name.endswith(("_W", "_Wf", "_W1", "_W2", "Wemb")) or name[-3:-1] == "_W"


def dequantized(arrays: dict[str, Array], kind: str = "i1") -> dict[str, Array]:
    """What a file of integers holds of these arrays."""
    values = dict(arrays)
    for name in filter(is_matrix, arrays):
        integers, multiplier = as_bytes(arrays[name], kind)
        values[name] = integers.astype(np.float32) / np.float32(multiplier)
    return values


Item = tuple[str, int, tuple[int, ...], bytes]
"""Name, type, shape, data."""


def bin_items(arrays: dict[str, Array], settings: dict[str, Any], kind: str | None) -> list[Item]:
    """Items of a `.bin`: float32, or integers (`i1`, `i2`) where a product reads the matrix."""
    items: list[Item] = []
    for name, array in arrays.items():
        if kind is not None and is_matrix(name):
            integers, multiplier = as_bytes(array, kind)
            stored = integers if "Wemb" in name else integers.T
            data = np.ascontiguousarray(stored).tobytes() + struct.pack("<f", multiplier)
            items.append((name, 0x4101 if kind == "i1" else 0x4102, array.shape, _filled(data)))
        else:
            items.append((name, 0x0404, array.shape, _filled(array.tobytes())))
    text = yaml.safe_dump(settings).encode() + b"\0"
    return [*items, ("special:model.yml", 0x0101, (len(text),), text)]


def _filled(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 256)


def write_bin(items: list[Item]) -> bytes:
    head = struct.pack("<QQ", 1, len(items))
    for name, kind, shape, data in items:
        head += struct.pack("<QQQQ", len(name.encode()) + 1, kind, len(shape), len(data))
    head += b"".join(name.encode() + b"\0" for name, *_ in items)
    head += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in items)
    gap = -(len(head) + 8) % 256
    return head + struct.pack("<Q", gap) + b"\0" * gap + b"".join(data for *_, data in items)


def write_npz(arrays: dict[str, Array], settings: dict[str, Any]) -> bytes:
    text = yaml.safe_dump(settings).encode() + b"\0"
    file = io.BytesIO()
    np.savez(file, **arrays, **{"special:model.yml": np.frombuffer(text, np.int8)})  # type: ignore[arg-type]
    return file.getvalue()


def write_lexicon(lists: list[list[int]], frequent: int) -> bytes:
    offsets = np.cumsum([0, *map(len, lists)])
    words = [word for words in lists for word in words]
    header = struct.pack("<6Q", MAGIC, 0, frequent, 50, len(offsets), len(words))
    return header + offsets.astype("<u8").tobytes() + np.array(words, "<u4").tobytes()


def firefox_folder(folder: Path, vocabulary: bytes, kind: str | None = "i1") -> dict[str, Array]:
    """A folder as Firefox has it; → its weights, as Marian names them."""
    folder.mkdir()
    size, settings = len(pieces_of(vocabulary)), marian_settings()
    arrays = marian_arrays(settings, size, size)
    (folder / "model.enpt.intgemm.alphas.bin").write_bytes(
        write_bin(bin_items(arrays, settings, kind))
    )
    (folder / "vocab.enpt.spm").write_bytes(vocabulary)
    lists = [[(7 * word) % size, (3 * word + 1) % size] if word % 3 else [] for word in range(size)]
    lists = [sorted(set(words)) for words in lists]
    (folder / "lex.50.50.enpt.s2t.bin").write_bytes(write_lexicon(lists, 10))
    (folder / "config.intgemm8bitalpha.yml").write_text(
        "models:\n  - model.enpt.intgemm.alphas.bin\nmax-length-factor: 2.5\n"
    )
    return dequantized(arrays, kind) if kind else arrays


# --- what Marian computes ----------------------------------------------------------------------


class MarianReference:
    """Teacher-forced logits of a Marian Transformer, written from its formulas alone."""

    def __init__(self, arrays: dict[str, Array], settings: dict[str, Any]) -> None:
        self.arrays = {name: value.astype(np.float64) for name, value in arrays.items()}
        self.settings = settings
        self.pre = settings["transformer-preprocess"] == "n"

    def logits(self, src: list[int], trg: list[int]) -> NDArray[np.float64]:
        """[T, V] for source ids with `</s>` and target ids, both Marian's."""
        x = self.embedded("Wemb" if "Wemb" in self.arrays else "encoder_Wemb", src)
        for layer in range(1, self.settings["enc-depth"] + 1):
            x = self.attention(f"encoder_l{layer}_self", x, None, causal=False)
            x = self.feed_forward(f"encoder_l{layer}_ffn", x)
        memory = self.top("encoder_top", x)
        table = "Wemb" if "Wemb" in self.arrays else "decoder_Wemb"
        x = self.embedded(table, trg[:-1], shifted=True)
        depth = self.settings["dec-depth"]
        for layer in self.settings["transformer-tied-layers"] or range(1, depth + 1):
            if self.settings["transformer-decoder-autoreg"] == "rnn":
                x = self.ssru(f"decoder_l{layer}_rnn", x)
            else:
                x = self.attention(f"decoder_l{layer}_self", x, None, causal=True)
            x = self.attention(f"decoder_l{layer}_context", x, memory, causal=False)
            x = self.feed_forward(f"decoder_l{layer}_ffn", x)
        x = self.top("decoder_top", x)
        return x @ self.arrays[table].T + self.arrays["decoder_ff_logit_out_b"]

    def embedded(self, table: str, ids: list[int], shifted: bool = False) -> NDArray[np.float64]:
        vectors = self.arrays[table][ids] * math.sqrt(WIDTH)
        if shifted:
            vectors = np.concatenate([np.zeros((1, WIDTH)), vectors])
        half = WIDTH // 2
        rates = 10000.0 ** (-np.arange(half) / (half - 1))
        angles = np.arange(len(vectors))[:, None] * rates
        return vectors + np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def residual(
        self,
        prefix: str,
        before: str,
        x: NDArray[np.float64],
        block: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        if self.pre:
            return x + block(self.norm(f"{before}", x, "_pre"))
        return self.norm(prefix, x + block(x), "")

    def norm(self, prefix: str, x: NDArray[np.float64], suffix: str) -> NDArray[np.float64]:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
        scale, bias = (self.arrays[f"{prefix}_ln_{kind}{suffix}"] for kind in ("scale", "bias"))
        return scaled * scale + bias

    def top(self, prefix: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.norm(prefix, x, "") if self.pre else x

    def attention(
        self,
        prefix: str,
        x: NDArray[np.float64],
        memory: NDArray[np.float64] | None,
        causal: bool,
    ) -> NDArray[np.float64]:
        def block(y: NDArray[np.float64]) -> NDArray[np.float64]:
            keys = y if memory is None else memory
            q, k, v = (
                (part @ self.arrays[f"{prefix}_W{name}"] + self.arrays[f"{prefix}_b{name}"])
                .reshape(len(part), HEADS, -1)
                .transpose(1, 0, 2)
                for part, name in ((y, "q"), (keys, "k"), (keys, "v"))
            )
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS)
            if causal:
                scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ v).transpose(1, 0, 2).reshape(len(y), WIDTH)
            return mixed @ self.arrays[f"{prefix}_Wo"] + self.arrays[f"{prefix}_bo"]

        return self.residual(f"{prefix}_Wo", f"{prefix}_Wo", x, block)

    def ssru(self, prefix: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        def block(y: NDArray[np.float64]) -> NDArray[np.float64]:
            gates = 1 / (
                1 + np.exp(-(y @ self.arrays[f"{prefix}_Wf"] + self.arrays[f"{prefix}_bf"]))
            )
            state, states = np.zeros(WIDTH), []
            for gate, new in zip(gates, y @ self.arrays[f"{prefix}_W"], strict=True):
                state = gate * state + (1 - gate) * new
                states.append(state)
            return np.maximum(np.array(states), 0)

        return self.residual(f"{prefix}_ffn", prefix, x, block)

    def feed_forward(self, prefix: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        def block(y: NDArray[np.float64]) -> NDArray[np.float64]:
            inner = y @ self.arrays[f"{prefix}_W1"] + self.arrays[f"{prefix}_b1"]
            name = self.settings["transformer-ffn-activation"]
            if name == "relu":
                inner = np.maximum(inner, 0)
            else:
                slope = {"swish": 1.0, "gelu": 1.702}[name]
                inner = inner / (1 + np.exp(-slope * inner))
            return inner @ self.arrays[f"{prefix}_W2"] + self.arrays[f"{prefix}_b2"]

        return self.residual(f"{prefix}_ffn", f"{prefix}_ffn", x, block)


# --- Hugging Face ------------------------------------------------------------------------------


def huggingface_config(source_size: int, target_size: int | None = None, **changes: Any) -> Any:
    """config.json of a Marian model; a value of None leaves a setting out."""
    last = (target_size or source_size) - 1
    config = {
        "activation_function": "swish",
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "d_model": WIDTH,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": FFN,
        "decoder_layers": DECODER,
        "decoder_start_token_id": last,
        "decoder_vocab_size": target_size or source_size,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": FFN,
        "encoder_layers": ENCODER,
        "eos_token_id": 0,
        "is_encoder_decoder": True,
        "max_position_embeddings": 64,
        "model_type": "marian",
        "normalize_before": False,
        "normalize_embedding": False,
        "pad_token_id": last,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": target_size is None,
        "static_position_embeddings": True,
        "transformers_version": "4.22.0",
        "vocab_size": source_size,
        **changes,
    }
    return {name: value for name, value in config.items() if value is not None}


def huggingface_tensors(config: dict[str, Any], seed: int = 1) -> dict[str, Array]:
    """Random weights under Hugging Face's names; the row of padding is zero."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}

    def put(name: str, *shape: int) -> None:
        tensors[name] = (random.standard_normal(shape) * 0.4).astype(np.float32)
        if "norm.weight" in name:
            tensors[name] += 1

    def linear(name: str, inputs: int, outputs: int) -> None:
        put(f"{name}.weight", outputs, inputs)
        put(f"{name}.bias", outputs)

    target_size = config["decoder_vocab_size"]
    if config["share_encoder_decoder_embeddings"]:
        table = "model.shared.weight"
    else:
        table = "model.decoder.embed_tokens.weight"
        put("model.encoder.embed_tokens.weight", config["vocab_size"], WIDTH)
    put(table, target_size, WIDTH)
    tensors[table][config["pad_token_id"]] = 0
    put("final_logits_bias", 1, target_size)
    for side in ("encoder", "decoder"):
        for index in range(config[f"{side}_layers"]):
            layer = f"model.{side}.layers.{index}"
            for attention in ("self_attn", *(("encoder_attn",) if side == "decoder" else ())):
                for part in ("q", "k", "v", "out"):
                    linear(f"{layer}.{attention}.{part}_proj", WIDTH, WIDTH)
                put(f"{layer}.{attention}_layer_norm.weight", WIDTH)
                put(f"{layer}.{attention}_layer_norm.bias", WIDTH)
            linear(f"{layer}.fc1", WIDTH, FFN)
            linear(f"{layer}.fc2", FFN, WIDTH)
            put(f"{layer}.final_layer_norm.weight", WIDTH)
            put(f"{layer}.final_layer_norm.bias", WIDTH)
    return tensors


def piece_ids(*models: bytes, codes: tuple[str, ...] = ()) -> dict[str, int]:
    """A vocab.json of these SentencePiece models: `</s>`, `<unk>`, codes, pieces, `<pad>`."""
    words = sorted({piece for model in models for piece in pieces_of(model)} - {"</s>", "<unk>"})
    return {name: i for i, name in enumerate(["</s>", "<unk>", *codes, *words, "<pad>"])}


def huggingface_folder(
    folder: Path,
    source: bytes,
    target: bytes,
    shared: bool = True,
    codes: tuple[str, ...] = (),
    **changes: Any,
) -> dict[str, Array]:
    """A folder as OPUS-MT's models on Hugging Face are; → its weights."""
    folder.mkdir()
    ids = piece_ids(source, target, codes=codes) if shared else piece_ids(source, codes=codes)
    target_ids = None if shared else piece_ids(target)
    config = huggingface_config(len(ids), None if shared else len(target_ids or {}), **changes)
    tensors = huggingface_tensors(config)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    (folder / "vocab.json").write_text(json.dumps(ids))
    if target_ids is not None:
        (folder / "target_vocab.json").write_text(json.dumps(target_ids))
    (folder / "model.safetensors").write_bytes(save(tensors))
    return tensors
