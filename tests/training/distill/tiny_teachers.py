"""Tiny teachers of every kind on one toy corpus: real files, meaningless translations."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece as spm
import torch

from training.checkpoint import save_checkpoint
from training.config.recipe import ModelConfig, TokenizerConfig
from training.data.tokenizer import Tokenizer, train_tokenizer
from training.data.toy import make_toy
from training.model.transformer import EOS, Transformer

torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other

MODEL = ModelConfig(
    width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1, dropout=0.0, max_length=64
)
TEXTS = [src for src, _ in make_toy(6, 3)]
REFERENCES = [trg for _, trg in make_toy(6, 3)]


def our_tokenizer(path: Path, seed: int = 1) -> Path:
    train_tokenizer(iter(make_toy(200, seed)), TokenizerConfig(vocab_size=320), path)
    return path


def other_sentencepiece(path: Path, **options: Any) -> Path:
    """A SentencePiece model as others train it: no padding piece, no bytes, its own ids."""
    model = io.BytesIO()
    lines = [line for pair in make_toy(200, 1) for line in pair]
    arguments = {"vocab_size": 150, "num_threads": 1, "minloglevel": 2, **options}
    spm.SentencePieceTrainer.Train(sentence_iterator=iter(lines), model_writer=model, **arguments)
    path.write_bytes(model.getvalue())
    return path


def make_checkpoint(
    folder: Path, tokenizer: Path, seed: int = 1, config: ModelConfig = MODEL
) -> Path:
    """A random model that ends its sentences, saved as a checkpoint."""
    torch.manual_seed(seed)
    model = Transformer(len(Tokenizer(tokenizer)), **config.model_dump())
    with torch.no_grad():
        model.embedding.weight.mul_(0.5)
        model.output_bias[EOS] = 3.0
    save_checkpoint(folder, model.state_dict(), config, tokenizer, "name: t\n", {})
    return folder


def pieces_of(path: Path) -> list[str]:
    processor = spm.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def _sizes() -> dict[str, Any]:
    return {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 128,
        "init_std": 0.3,
    }


def make_marian(folder: Path, source: Path, target: Path) -> Path:
    """A random Marian model; its tokenizer has two SentencePiece files and a joint vocabulary."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir()
    words = sorted(({*pieces_of(source), *pieces_of(target)}) - {"<s>", "</s>", "<unk>"})
    vocabulary = ["</s>", "<unk>", ">>deu<<", *words, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    tokenizer = MarianTokenizer(str(source), str(target), str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(4)
    pad = len(vocabulary) - 1
    config = MarianConfig(
        vocab_size=len(vocabulary), pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0,
        forced_eos_token_id=0, **_sizes(),
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    model.final_logits_bias[0, 0] = 5.0
    model.save_pretrained(folder)
    return folder


def make_m2m100(folder: Path, sentencepiece: Path) -> Path:
    """A random M2M100 model and its tokenizer: fairseq's ids, language tokens behind the pieces."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder.mkdir()
    words = [piece for piece in pieces_of(sentencepiece) if piece not in ("<s>", "</s>", "<unk>")]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *reversed(words)]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    tokenizer = M2M100Tokenizer(
        str(folder / "vocab.json"), str(sentencepiece), src_lang="en", tgt_lang="de"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = M2M100Config(
        vocab_size=len(vocabulary) + 108, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        decoder_start_token_id=2, **_sizes(),
    )  # fmt: skip
    M2M100ForConditionalGeneration(config).eval().save_pretrained(folder)
    return folder
