"""A tiny teacher and a few token shards, laid out as a run's folder, for tests of labels."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch

from training.checkpoint import save_checkpoint
from training.config.recipe import ModelConfig, TokenizerConfig
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, train_tokenizer, write_tokens
from training.data.toy import make_toy
from training.model.transformer import EOS, Transformer

MODEL = ModelConfig(width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1)


def write_teacher(folder: Path) -> Path:
    """An untrained teacher with its tokenizer; → its checkpoint folder."""
    train_tokenizer(iter(make_toy(300, 1)), TokenizerConfig(vocab_size=320), folder / "spm.model")
    torch.manual_seed(1)
    model = Transformer(len(Tokenizer(folder / "spm.model")), **MODEL.model_dump())
    with torch.no_grad():
        model.output_bias[EOS] = 6.0
    out = folder / "checkpoint"
    save_checkpoint(out, model.state_dict(), MODEL, folder / "spm.model", "name: t\n", {})
    return out


def write_shards(folder: Path, tokenizer: Tokenizer, count: int = 3) -> list[Path]:
    """Token shards of ten pairs each, numbered from 0."""
    pairs = make_toy(10 * count, 2)
    src, trg = (tokenizer.encode([pair[side] for pair in pairs]) for side in (0, 1))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        rows = slice(10 * number, 10 * number + 10)
        columns = {"id": list(range(10 * count))[rows], "src": src[rows], "trg": trg[rows]}
        paths.append(folder / f"{number:05}.arrow")
        write_tokens(paths[-1], pa.table(columns, schema=TOKEN_SCHEMA))
    return paths
