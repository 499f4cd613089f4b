"""A tiny model, its tokenizer and its bundle: real files, meaningless translations."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece as spm
import torch

from export.exporter import export_bundle
from export.runtime.bundle import Bundle
from training.model.transformer import BOS, EOS, PAD, Transformer

torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other

WORDS = ["a", "the", "man", "woman", "dog", "cat", "bike", "street", "red", "blue", "rides", "old"]
VOCAB_SIZE = 330


def sentences() -> list[str]:
    """A few dozen made-up sentences."""
    count = len(WORDS)
    return [
        " ".join(WORDS[(start * 7 + step * (start + 3)) % count] for step in range(4 + start % 6))
        + "."
        for start in range(60)
    ]


def train_tokenizer(path: Path) -> Path:
    """A SentencePiece model with our special ids and byte fallback, trained on `sentences`."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences()),
        model_writer=model,
        vocab_size=VOCAB_SIZE,
        hard_vocab_limit=False,
        byte_fallback=True,
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
    tokenizer = spm.SentencePieceProcessor(model_file=str(tokenizer_path))
    model = random_model(tokenizer.get_piece_size(), seed).train()
    rows = [torch.tensor([*tokenizer.encode(text), EOS]) for text in sentences()]
    src = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    start = torch.full((len(src), 1), BOS)
    trg_in = torch.cat([start, src[:, :-1]], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        logits = model(src, trg_in)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), src.flatten(), ignore_index=PAD
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
