"""Beams by the compiled engine and by a bundle's library, measured on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import beams
from tests.export import tiny
from tests.export.test_native_kernels import needs_library


@needs_library
def test_both_take_turns_where_both_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the command sets
    tokenizer = tiny.train_tokenizer(tmp_path / "tokenizer.model")
    bundle = tiny.make_bundle(tmp_path / "tiny", tokenizer, engines=["onnx-int8"])
    text = tmp_path / "text"
    text.write_text("\n".join(tiny.sentences()[:40]) + "\n")
    beams.main(bundle.path, text, text, sentences=34, beams="1,2", rounds=2)
    report = json.loads(capsys.readouterr().out)
    rows = [
        (row["engine"].split()[0], row["beam_size"], row["batch_size"]) for row in report["rows"]
    ]
    assert rows == [
        ("ONNX", 1, 1), ("native", 1, 1), ("ONNX", 1, 32), ("native", 1, 32),
        ("native", 2, 1), ("native", 2, 32),
    ]  # fmt: skip
    assert report["sentences"] == 34
    for row in report["rows"]:
        assert len(row["cpu_seconds"]) == 2
        assert row["words_per_cpu_second"] > 0
        assert row["equal_lines"] > 0.8
    alone, together = report["rows"][4:]
    assert alone["bleu"] == together["bleu"], "batches change nothing"
