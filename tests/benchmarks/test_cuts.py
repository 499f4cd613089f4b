"""What each layer of a model can spare, measured on a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from benchmarks import cuts
from tests.training.test_transfer import pretrained, tokenized
from tests.training.tiny_pretrained import FFN

__all__ = ["pretrained", "tokenized"]

SENTENCES = ["the red dog rides", "a cat sleeps", "two birds sing", "the cat sees a dog"]


def text(folder: Path, count: int) -> Path:
    path = folder / f"text-{count}"
    path.write_text("".join(f"{SENTENCES[i % 4]} {SENTENCES[i % 3]}\n" for i in range(count)))
    return path


def test_smaller_sizes_cost_more(pretrained: Path, tmp_path: Path) -> None:
    lines, out = text(tmp_path, 60), tmp_path / "report.json"
    cuts.main(pretrained, lines, lines, pairs=40, judged=20, steps=4, out=out)
    report = json.loads(out.read_text())
    blocks = {row["block"] for row in report["rows"]}
    assert {"encoder.0.attention", "encoder.0.ffn", "decoder.0.cross", "decoder.0.ffn"} <= blocks
    assert not any(name.endswith("decoder.0.attention") for name in blocks), "it is recurrent"
    for name in blocks:
        rows = [row for row in report["rows"] if row["block"] == name]
        kept = [row["kept"] for row in rows]
        assert kept == sorted(kept, reverse=True)
        if name.endswith("ffn"):
            assert kept == [FFN * part // 4 for part in (3, 2, 1)]
        assert rows[-1]["nats_a_word"] >= 0
    assert max(row["nats_a_word"] for row in report["rows"]) > 0


def test_text_that_is_too_short_is_refused(pretrained: Path, tmp_path: Path) -> None:
    lines = text(tmp_path, 10)
    with pytest.raises(typer.BadParameter, match="10 pairs: give --pairs fewer"):
        cuts.main(pretrained, lines, lines, pairs=40)
