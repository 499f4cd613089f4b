"""The tokenizer: text whose target side is missing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from training.config.recipe import TokenizerConfig
from training.data.tokenizer import Tokenizer, encode_rows, sample_lines, train_tokenizer
from training.data.toy import make_toy
from training.model.transformer import EOS


def test_a_missing_target_is_no_line() -> None:
    assert sample_lines([("a", "b"), ("c", None), ("d", "e")], 9, 0) == ["a", "b", "c", "d", "e"]


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
