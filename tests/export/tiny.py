"""A tiny model, its tokenizer and its bundle: real files, meaningless translations."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import sentencepiece as spm
import torch

from export.exporter import export_bundle
from export.runtime.bundle import Bundle
from export.runtime.manifest import FormalityTags
from training.model.transformer import BOS, EOS, PAD, Transformer

torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other

WORDS = ["a", "the", "man", "woman", "dog", "cat", "bike", "street", "red", "blue", "rides", "old"]
VOCAB_SIZE = 330
TAGS = FormalityTags(formal="<formal>", informal="<informal>")
FORMAL, INFORMAL, UNTAGGED = "the old woman.", "a red dog.", "blue bike."
"""What `tagged_model` writes."""


def sentences() -> list[str]:
    """A few dozen made-up sentences."""
    count = len(WORDS)
    return [
        " ".join(WORDS[(start * 7 + step * (start + 3)) % count] for step in range(4 + start % 6))
        + "."
        for start in range(60)
    ]


def train_tokenizer(path: Path, whole: Sequence[str] = ()) -> Path:
    """A SentencePiece model with our special ids and byte fallback, trained on `sentences`; `whole`
    are user-defined pieces."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        vocab_size=VOCAB_SIZE,
        hard_vocab_limit=False,
        byte_fallback=True,
        user_defined_symbols=list(whole),
        normalization_rule_name="identity",
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def tokenizer_of(path: Path) -> spm.SentencePieceProcessor:
    return spm.SentencePieceProcessor(model_file=str(path))


def random_model(vocab_size: int, seed: int = 11, heads: int = 4, norm: str = "pre") -> Transformer:
    """Random weights, and biases that are not zero."""
    torch.manual_seed(seed)
    model = Transformer(
        vocab_size,
        width=32,
        heads=heads,
        norm=norm,
        ffn=48,
        encoder_layers=2,
        decoder_layers=1,
        dropout=0.0,
        max_length=64,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def barely_trained_model(tokenizer_path: Path, seed: int = 11, steps: int = 120) -> Transformer:
    """A model that has begun to learn to repeat its source: it ends, and outputs differ."""
    pairs = tuple((text, text) for text in sentences())
    return deepcopy(_trained(tokenizer_path.read_bytes(), pairs, seed, steps))


def tagged_model(tokenizer_path: Path, steps: int = 80) -> Transformer:
    """A model that has learnt one translation for each tag before a source, and a third one for
    sources without a tag."""
    said = {f"{TAGS.formal} ": FORMAL, f"{TAGS.informal} ": INFORMAL, "": UNTAGGED}
    texts = [*WORDS, *sentences()[:30]]
    pairs = tuple((tag + text, trg) for text in texts for tag, trg in said.items())
    return deepcopy(_trained(tokenizer_path.read_bytes(), pairs, 11, steps))


@cache
def _trained(
    tokenizer_model: bytes, pairs: tuple[tuple[str, str], ...], seed: int, steps: int
) -> Transformer:
    tokenizer = spm.SentencePieceProcessor(model_proto=tokenizer_model)
    model = random_model(tokenizer.get_piece_size(), seed).train()
    src, trg = (
        torch.nn.utils.rnn.pad_sequence(
            [torch.tensor([*tokenizer.encode(text), EOS]) for text in texts],
            batch_first=True,
            padding_value=PAD,
        )
        for texts in zip(*pairs, strict=True)
    )
    start = torch.full((len(trg), 1), BOS)
    trg_in = torch.cat([start, trg[:, :-1]], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        logits = model(src, trg_in)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), trg.flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def make_bundle(out: Path, tokenizer_path: Path, seed: int = 11, **overrides: object) -> Bundle:
    """Export a tiny model to `out`, in both precisions."""
    arguments: dict[str, object] = {
        "model": overrides.get("model") or barely_trained_model(tokenizer_path, seed),
        "tokenizer_path": tokenizer_path,
        "recipe_text": "name: tiny\n",
        "out": out,
        "name": "tiny",
        "source_lang": "en",
        "target_lang": "de",
        "engines": ["ctranslate2-int8", "ctranslate2-float32"],
        "licence": "CC-BY 2.0 FR",
        "attribution": "Sentences made for a test.",
        "description": "A random model for tests.",
        "metrics": [],
        "max_input_tokens": 40,
    }
    return export_bundle(**{**arguments, **overrides})  # type: ignore[arg-type]


def make_tagged_bundle(out: Path, **overrides: object) -> Bundle:
    """Export a model that can be asked for a form of address to `out`; its tokenizer lies beside
    it."""
    tokenizer = out.with_suffix(".model")
    if not tokenizer.exists():
        train_tokenizer(tokenizer, [TAGS.formal, TAGS.informal])
    model = overrides.pop("model", None) or tagged_model(tokenizer)
    return make_bundle(out, tokenizer, model=model, formality=TAGS, **overrides)


def unpacked(folder: Path, name: str = "greedy.onnx") -> Path:
    """Unpack an engine's graph in its place, so that a test may change it; the path of that."""
    packed, plain = folder / f"{name}.gz", folder / name
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return plain
