"""A SentencePiece model without byte fallback, as imported models have."""

from __future__ import annotations

import io
import string
from functools import cache

import sentencepiece as spm

TEXT = """the a we you they have has see saw said lives live in at of and to for with about costs
cost please use new old good nice house street friend wife word means here there now then never
yes no hello quotes names price is was are it he she wrote read end first second item"""
LETTERS = string.ascii_letters + string.digits + "é.,;:!?\"'()-/&%$=+_*[]|"
"""What it can read, besides the space."""


@cache
def tokenizer_without_bytes(normalization: str = "nmt_nfkc") -> spm.SentencePieceProcessor:
    """A tokenizer that reads `LETTERS` alone, trained on a few made-up sentences."""
    words = TEXT.split()
    sentences = [
        " ".join(words[(start * 7 + step * (start + 3)) % len(words)] for step in range(6)) + "."
        for start in range(200)
    ]
    model = io.BytesIO()
    spm.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=300,
        hard_vocab_limit=False,
        normalization_rule_name=normalization,
        required_chars=LETTERS,
        num_threads=1,
        minloglevel=2,
    )
    return spm.SentencePieceProcessor(model_proto=model.getvalue())
