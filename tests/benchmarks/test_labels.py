"""Benchmarks of labelling: what they measure on next to nothing, and how they say it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import labels
from tests.export.test_native_kernels import needs_library
from tests.training.distill.store import write_shards, write_teacher
from tests.training.tiny_pretrained import firefox_folder, sentencepiece_model
from training.config.recipe import RecipeError
from training.data.batching import map_table
from training.data.tokenizer import Tokenizer
from training.data.toy import make_toy


def test_speed_of_translations_and_distributions_apart(tmp_path: Path) -> None:
    checkpoint = write_teacher(tmp_path)
    shards = write_shards(tmp_path / "tokens", Tokenizer(checkpoint / "tokenizer.model"))
    report = labels.measure_speed(checkpoint, shards, sentences=6, rounds=1, beam_size=2)
    assert [(row["task"], row["precision"]) for row in report["speeds"]] == [
        *(("translations", "int8"), ("translations", "float32")),
        *[("distributions", "float32")] * 2,
    ]
    assert all(row["source_tokens_per_second"] > 0 for row in report["speeds"])
    assert report["sentences"] == 6
    assert {"CTranslate2", "torch"} == set(report["threads"])
    assert report["machine"]["torch"]
    with pytest.raises(RecipeError, match="no token shards"):
        labels.measure_speed(checkpoint, [])


@needs_library
def test_one_pass_of_both_precisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the command sets
    firefox_folder(tmp_path / "model", sentencepiece_model(), None)
    for side in (0, 1):
        lines = [pair[side] for pair in make_toy(40, 5)]
        (tmp_path / f"text.{side}").write_text("\n".join(lines) + "\n")
    texts = tmp_path / "text.0", tmp_path / "text.1"
    labels.one_pass_command(
        tmp_path / "model", texts[0], texts[1], sentences=9, every=3, rounds=2, top_k=4
    )
    report = json.loads(capsys.readouterr().out)
    assert [row["precision"] for row in report["speeds"]] == ["float32", "int8"]
    assert report["speeds"][1]["engine"].startswith("compiled engine")
    assert all(len(row["rounds"]) == 2 and row["bleu"] >= 0 for row in report["speeds"])
    assert report["sentences"] == 9
    assert report["words"] == sum(len(pair[0].split()) for pair in make_toy(40, 5)[:27:3])
    assert report["agreement"]["same_best_word"] > 0.8
    assert 0 < report["agreement"]["logp_off_median"] < 0.25
    assert report["agreement"]["logp_off_median"] <= report["agreement"]["logp_off_99_percent"]


def test_synthetic_text_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    labels.write_random_text(tmp_path, 25_000, 8)
    tables = [map_table(path) for path in sorted((tmp_path / "tokens").iterdir())]
    assert [len(table) for table in tables] == [20_000, 5000]
    assert tables[1]["id"].to_pylist()[-1] == 24_999
    lengths = [len(row) for row in tables[1]["trg"].to_pylist()]
    assert sum(lengths) / len(lengths) == pytest.approx(8, rel=0.05)
    assert all(row[-1] == 3 for row in tables[0]["src"].to_pylist()[:100])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_both_stages_are_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels.write_random_text(tmp_path, 100, 4)
    for stage in ("write", "read"):
        labels.memory_case(stage, tmp_path)
        found = json.loads(capsys.readouterr().out)
        assert found["peak"]["anonymous"] >= found["before"]["anonymous"] > 0


def test_growth_is_between_the_two_largest_sizes() -> None:
    cases = [
        {"stage": "read", "lines": lines, "peak": {"anonymous": size}}
        for lines, size in ((10, 999), (100, 2000), (1100, 6000))
    ]
    assert labels._slope(cases, "read") == 4.0
    assert labels._slope(cases[:1], "read") is None
