"""The tokenizer: text whose target side is missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tests.training.tiny_pretrained import sentencepiece_model
from training.config.recipe import TokenizerConfig
from training.data.tokenizer import Tokenizer, encode_rows, sample_lines, train_tokenizer
from training.data.toy import make_toy
from training.model.transformer import EOS


def test_a_missing_target_is_no_line() -> None:
    assert sample_lines([("a", "b"), ("c", None), ("d", "e")], 9, 0) == ["a", "b", "c", "d", "e"]


def test_sources_that_their_own_tokenizer_cannot_read_are_left_out(tmp_path: Path) -> None:
    pairs = make_toy(300, 1)
    train_tokenizer(pairs, TokenizerConfig(vocab_size=320), tmp_path / "trg.model")
    (tmp_path / "src.model").write_bytes(sentencepiece_model())
    target, source = Tokenizer(tmp_path / "trg.model"), Tokenizer(tmp_path / "src.model")
    src = [pairs[0][0], "{name}", pairs[1][0] * 20]
    rows = pa.table({"id": [0, 1, 2], "src": src, "trg": ["ab", "ab", "ab"]})
    encoded = encode_rows(rows, target, 100, source)
    assert encoded.table["id"].to_pylist() == [0]
    assert encoded.table["src"].to_pylist() == source.encode([src[0]])
    assert (encoded.too_long, encoded.unread) == (1, 1)
    assert encode_rows(rows, target, 100).unread == 0


def test_source_text_alone_is_learnt_and_encoded(tmp_path: Path) -> None:
    sources = [src for src, _ in make_toy(300, 1)]
    config = TokenizerConfig(vocab_size=320)
    train_tokenizer(((src, None) for src in sources), config, tmp_path / "spm.model")
    tokenizer = Tokenizer(tmp_path / "spm.model")
    rows = {"id": [0, 1, 2], "src": sources[:3], "trg": pa.array([None, "ab", None], pa.string())}
    table, *left_out = encode_rows(pa.table(rows), tokenizer, 200)
    assert left_out == [0, 0]
    assert table["trg"].to_pylist() == [[], [*tokenizer.encode(["ab"])[0]], []]
    assert tokenizer.decode(table["src"].to_pylist()) == sources[:3]
    assert all(row[-1] == EOS for row in table["src"].to_pylist())
